"""Compares patches and packed models with what others make: bytes, speed, memory.

``make bench-delta`` writes benchmarks/results/tensor_patch.{md,json};
``python -m benchmarks.tensor_patch SOURCE…`` only prints the tables of some cases.

Speeds are bytes of the new model per second of one processor, in a separate process; memory is its
peak minus what the imports take. Mapped pages of both files count, so a decoder takes about the
old file's size and its own memory. results/format1.json has the bytes that the release before
format 2 took for the same pairs.
"""

from __future__ import annotations

import filecmp
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.tensor_patch_pairs import CHECKOUT, SOURCES, Case, Group
from benchmarks.tensor_patch_peers import install, peers, run_bounded
from benchmarks.tensor_patch_tables import TITLE, Patch, Result, Work, conclusions, lines
from mlpack.tensor_patch import Effort

RESULTS = CHECKOUT / "benchmarks/results"
FORMAT_1: dict[str, int] = json.loads((RESULTS / "format1.json").read_text())

SMALL = 5_000_000
"""Bytes up to which the highest effort is measured, too."""

_WORK = """
import mmap, os, sys, time
from pathlib import Path
from mlpack.tensor_patch import Effort, make_patch
from mlpack.runtime.patch import apply_patch
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

def mapped(name):
    if name == "-":
        return memoryview(b"")
    with open(name, "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

import bsdiff4, lzma, bz2, zstandard, numpy, pcodec

def peak():
    # Not getrusage: that begins with what the parent process held.
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

do, old, source, out = sys.argv[1:]
base = peak()
start = time.process_time()
if do == "apply":
    with open(out, "wb") as file:
        apply_patch(mapped(old), mapped(source), file.write)
else:
    Path(out).write_bytes(make_patch(mapped(old), mapped(source), effort=Effort(do)))
print(time.process_time() - start, peak() - base)
"""


def main(sources: Sequence[str], folder: Path) -> None:
    """Measure the cases of these sources, or of all, and write the tables of all."""
    if unknown := ", ".join(set(sources) - set(SOURCES)):
        sys.exit(f"error: unknown cases: {unknown}\nhint: choose from {', '.join(SOURCES)}")
    install()
    results = list[Result]()
    for source in sources or SOURCES:
        for case in SOURCES[source](folder):
            results.append(measure(case, folder))
            print(case.name, *map(results[-1].size, results[-1].patches), flush=True)
            if not sources:
                write(results)
    print("\n".join([*lines(results), *conclusions(results)]))


def write(results: Sequence[Result]) -> None:
    """Write the tables of what has been measured so far."""
    found = [asdict(each) for each in results]
    (RESULTS / "tensor_patch.json").write_text(json.dumps(found, indent=1) + "\n")
    text = [TITLE, "", *lines(results), *conclusions(results), ""]
    (RESULTS / "tensor_patch.md").write_text("\n".join(text))


def measure(case: Case, folder: Path) -> Result:
    """Measure one case."""
    full = case.new.stat().st_size
    efforts = [Effort.FAST] if case.group is Group.TIMES else []
    efforts += [Effort.DEFAULT, Effort.MAX] if full <= SMALL else [Effort.DEFAULT]
    return Result(
        group=case.group,
        name=case.name,
        old=case.old.stat().st_size if case.old else 0,
        full=full,
        counted=case.counted,
        floor=case.floor,
        format_1=FORMAT_1.get(case.name),
        patches={effort: _patch(case, effort, folder) for effort in efforts},
        peers={} if case.group is Group.TIMES else peers(case, folder),
    )


def _patch(case: Case, effort: Effort, folder: Path) -> Patch | None:
    patch, result = folder / "patch", folder / "result"
    old = case.old or "-"
    made = _work(effort, old, case.new, patch)
    applied = made and _work("apply", old, patch, result)
    if made is None or applied is None:
        return None
    if not filecmp.cmp(result, case.new, shallow=False):
        raise SystemExit(f"{case.name}: the patch makes a different file")
    return Patch(patch.stat().st_size, made, applied)


def _work(*args: str | Path) -> Work | None:
    done = run_bounded(sys.executable, "-c", _WORK, *args)
    if done.returncode < 0:
        return None
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds, memory = done.stdout.split()
    return Work(float(seconds), int(memory))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="mlpack-bench-") as place:
        main(sys.argv[1:], Path(place))
