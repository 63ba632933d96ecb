"""Patches beside zstd -19, zstd --patch-from, bsdiff and xdelta3: bytes, speed, memory.

``make bench-delta``. Writes benchmarks/results/delta.md and delta.json. Speeds are bytes of the
new model by seconds of one processor, of a process of its own; memory is the process's peak, less
that of one that has imported the same and read nothing; mapped pages of the old and the new file
count in it, so that of a decoder is about the old file's size and its own.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.delta_pairs import CHECKOUT, Pair, made_pairs, real_pairs

RESULTS = CHECKOUT / "benchmarks/results"

_WORK = """
import mmap, os, sys, time
from pathlib import Path
from mlpack.delta import make_patch
from mlpack.runtime.patch import apply_patch
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

def mapped(name):
    with open(name, "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

import bsdiff4, lzma, bz2, zstandard, numpy

def peak():
    # Not getrusage: that begins with what the parent process held.
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

base = peak()
start = time.process_time()
if sys.argv[1] == "make":
    Path(sys.argv[4]).write_bytes(make_patch(mapped(sys.argv[2]), mapped(sys.argv[3])))
else:
    with open(sys.argv[4], "wb") as out:
        apply_patch(mapped(sys.argv[2]), mapped(sys.argv[3]), out.write)
print(time.process_time() - start, peak() - base)
"""


@dataclass(frozen=True)
class Result:
    """One pair; sizes and memory in bytes, times in seconds of a processor."""

    name: str
    full: int
    peers: dict[str, int]
    patch: int
    make_seconds: float
    make_memory: int
    apply_seconds: float
    apply_memory: int
    changed: bool
    floor: int | None

    @property
    def best(self) -> str:
        """The peer with the smallest result."""
        return min(self.peers, key=lambda each: self.peers[each])

    @property
    def ratio(self) -> float:
        """Bytes of the patch for each of the best peer's."""
        return self.patch / self.peers[self.best]

    @property
    def never_larger(self) -> bool:
        """The rule: at most a hundredth and 200 bytes above the best peer."""
        return self.patch <= 1.01 * self.peers[self.best] + 200


def main(folder: Path) -> None:
    """Measure all pairs, and write the tables."""
    results = []
    for pair in [*real_pairs(), *made_pairs(folder)]:
        results.append(measure(pair, folder))
        print(line(results[-1]), flush=True)
        write(results)
    print("\n".join(closing(results)))


def write(results: Sequence[Result]) -> None:
    """The tables, of what has been measured so far."""
    text = "\n".join([*HEAD, *map(line, results), "", *closing(results), ""])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "delta.md").write_text(text)
    found = [{**asdict(each), "ratio": round(each.ratio, 4)} for each in results]
    (RESULTS / "delta.json").write_text(json.dumps(found, indent=1) + "\n")


def measure(pair: Pair, folder: Path) -> Result:
    """One pair, by all."""
    patch, made = folder / "patch", folder / "made"
    making = _work("make", pair.old, pair.new, patch)
    applying = _work("apply", pair.old, patch, made)
    if made.read_bytes() != pair.new.read_bytes():
        raise SystemExit(f"{pair.name}: the patch makes another file")
    return Result(
        name=pair.name,
        full=pair.new.stat().st_size,
        peers=peers(pair.old, pair.new, folder / "peer"),
        patch=patch.stat().st_size,
        make_seconds=making[0],
        make_memory=int(making[1]),
        apply_seconds=applying[0],
        apply_memory=int(applying[1]),
        changed=pair.changed,
        floor=pair.floor,
    )


def _work(*args: str | Path) -> list[float]:
    command = [sys.executable, "-c", _WORK, *map(str, args)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=CHECKOUT)
    return [float(each) for each in done.stdout.split()]


def peers(old: Path, new: Path, out: Path) -> dict[str, int]:
    """Bytes of what the peers' own programs make of the pair."""
    # zstd's window has to hold both files.
    window = max((old.stat().st_size + new.stat().st_size).bit_length(), 10)
    commands: dict[str, Sequence[str]] = {
        "zstd -19": ["zstd", "-qq", "-19", "-f", str(new), "-o", str(out)],
        "zstd --patch-from": [
            *("zstd", "-qq", "-19", f"--long={min(window, 31)}", "-f"),
            *(f"--patch-from={old}", str(new), "-o", str(out)),
        ],
        "xdelta3": ["xdelta3", "-q", "-f", "-9", "-s", str(old), str(new), str(out)],
        "bsdiff": ["bsdiff", str(old), str(new), str(out)],
    }

    def size(name: str) -> int:
        place = out.with_name(name.replace(" ", ""))
        command = [str(place) if each == str(out) else each for each in commands[name]]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        return place.stat().st_size

    # Only their sizes count, so they may run at once.
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(commands, pool.map(size, commands), strict=True))


HEAD = (
    "Bytes of a patch beside its peers', each pair in one run (`make bench-delta`).",
    "",
    "| pair | full | zstd -19 | --patch-from | xdelta3 | bsdiff | mlpack | of full | of the best "
    "| make MB/s | MB | apply MB/s | MB |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
)


def line(of: Result) -> str:
    """A row of the table."""
    sizes = " | ".join(f"{each:,}" for each in (of.full, *of.peers.values(), of.patch))
    ratio = f"{of.patch / of.full:.4f} | {of.ratio:.3f}"
    speeds = " | ".join(
        f"{of.full / 1e6 / max(seconds, 1e-3):,.3g} | {memory / 1e6:,.0f}"
        for seconds, memory in (
            (of.make_seconds, of.make_memory),
            (of.apply_seconds, of.apply_memory),
        )
    )
    return f"| {of.name} | {sizes} | {ratio} | {speeds} |"


def closing(results: Sequence[Result]) -> list[str]:
    """What the table comes to."""
    changed = [each.ratio for each in results if each.changed]
    mean = math.exp(sum(map(math.log, changed)) / max(len(changed), 1))
    above = [each.name for each in results if not each.never_larger]
    said = [
        f"Above the best peer by more than 1 % and 200 bytes: {', '.join(above) or 'none'}.",
        f"Geometric mean over the {len(changed)} float ONNX pairs with changed weights: "
        f"{mean:.4f} of the best peer.",
    ]
    said += [
        f"{each.name}: {each.patch / each.full:.4f} of full; the noise in it alone holds "
        f"{each.floor / each.full:.4f}, below which nothing lossless can be."
        for each in results
        if each.floor
    ]
    return said


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="mlpack-bench-") as place:
        main(Path(place))
