"""What others take for the benchmark's models: programs, libraries, a paper's method, a bound.

The libraries are installed in a virtual environment of their own, .cache/peers.
"""

from __future__ import annotations

import gzip
import lzma
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.tensor_patch_pairs import CHECKOUT, Array, Case
from mlpack.base.python import find_uv
from mlpack.runtime.patch.arrays import exponents, ordered
from mlpack.tensor_patch.match import ArrayPair, match, numbers
from mlpack.tensor_patch.spans import find_spans

SECONDS = 150
"""Of a processor, after which a program is ended."""

BYTE_PEERS = ("zstd -19", "zstd --patch-from", "xdelta3", "bsdiff", "HDiffPatch")
"""Those that patch any file."""

FM_DELTA = "FM-Delta"
BOUND = "context bound"
GZIP, XZ, ZIPNN, PLANES = "gzip -9", "xz -9e", "ZipNN", "byte planes + xz"

Sizes = dict[str, int | None]
"""Bytes by peer; ``None`` if it is not installed, fails, or takes too long."""

_PYTHON = CHECKOUT / ".cache/peers/bin/python"

_HDIFFPATCH = """
import sys, hdiffpatch
from pathlib import Path
old, new = (Path(each).read_bytes() for each in sys.argv[1:])
# The largest window that the library takes.
config = hdiffpatch.ZStdConfig(level=20, window=27)
print(len(hdiffpatch.diff(old, new, config, validate=False)))
"""

# ZipNN imports torch, of 5 GB, for tensors; what codes bytes never calls it. It reads beyond the
# end unless the length is a multiple of 4 (0.5.4), so bytes after that are left out.
_ZIPNN = """
import sys
from pathlib import Path
from unittest.mock import MagicMock
sys.modules.update({"torch": MagicMock(), "safetensors.torch": MagicMock()})
from zipnn import ZipNN
content = Path(sys.argv[1]).read_bytes()
content = content[:len(content) // 4 * 4]
kinds = ("float32", "bfloat16", "float16")
print(min(len(ZipNN(bytearray_dtype=each, threads=1).compress(content)) for each in kinds))
"""

_BLOSC2 = """
import itertools, sys, blosc2
from pathlib import Path
content = Path(sys.argv[1]).read_bytes()
filters = (blosc2.Filter.SHUFFLE, blosc2.Filter.BITSHUFFLE)
print(min(
    len(blosc2.compress2(content, codec=blosc2.Codec.ZSTD, clevel=9, typesize=size, filters=[each]))
    for size, each in itertools.product((2, 4), filters)
))
"""


def install() -> None:
    """Install the libraries, if they are not; without them, their columns are empty."""
    if _PYTHON.exists():
        return
    uv, pip = find_uv(), ["pip", "install", "-q", "--python", str(_PYTHON)]
    for command in (
        ["venv", "-q", "--python", "3.11", str(_PYTHON.parents[1])],
        [*pip, "blosc2==4.14.1", "hdiffpatch==2.6.0", "numpy"],
        [*pip, "--no-deps", "zipnn==0.5.4", "safetensors"],
    ):
        subprocess.run([uv, *command], check=False)


def peers(case: Case, folder: Path) -> Sizes:
    """Return the bytes that each peer takes for the case."""
    if case.old is None:
        return _sizes(_packed(case.new, folder))
    found = _sizes(_patch(case.old, case.new, folder)) if case.searched else {}
    return {**dict.fromkeys(BYTE_PEERS), **found, **_array_coders(case.old, case.new)}


def _sizes(ways: Mapping[str, Callable[[], int | None]]) -> Sizes:
    # Only their sizes count, so they may run at the same time.
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(ways, pool.map(lambda way: way(), ways.values()), strict=True))


def _patch(old: Path, new: Path, folder: Path) -> Mapping[str, Callable[[], int | None]]:
    # zstd's window must hold both files.
    window = min(max((old.stat().st_size + new.stat().st_size).bit_length(), 10), 31)
    zstd = ["zstd", "-qq", "-19", "-f"]
    origin = [f"--long={window}", f"--patch-from={old}"]
    ways: Sequence[Callable[[], int | None]] = (
        lambda: _file(folder / "1", *zstd, new, "-o"),
        lambda: _file(folder / "2", *zstd, *origin, new, "-o"),
        lambda: _file(folder / "3", "xdelta3", "-q", "-f", "-9", "-s", old, new),
        lambda: _file(folder / "4", "bsdiff", old, new),
        lambda: _library(_HDIFFPATCH, old, new),
    )
    return dict(zip(BYTE_PEERS, ways, strict=True))


def _packed(model: Path, folder: Path) -> Mapping[str, Callable[[], int | None]]:
    content = model.read_bytes()
    return {
        GZIP: lambda: len(gzip.compress(content, 9, mtime=0)),
        "zstd -19": lambda: _file(folder / "1", "zstd", "-qq", "-19", "-f", model, "-o"),
        XZ: lambda: _xz(content),
        ZIPNN: lambda: _library(_ZIPNN, model),
        "blosc2": lambda: _library(_BLOSC2, model),
        PLANES: lambda: min(_xz(_planes(content, width)) for width in (2, 4)),
    }


def _file(out: Path, *command: str | Path) -> int | None:
    return out.stat().st_size if _output(*command, out) is not None else None


def _library(script: str, *files: Path) -> int | None:
    found = _output(_PYTHON, "-c", script, *files)
    return None if found is None else int(found)


def _output(*command: str | Path) -> str | None:
    done = run_bounded(*command)
    return None if done.returncode else done.stdout


def run_bounded(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program that is ended by a signal after :data:`SECONDS` of a processor."""
    bounded = ["prlimit", f"--cpu={SECONDS}", *map(str, command)]
    return subprocess.run(bounded, capture_output=True, text=True, cwd=CHECKOUT, check=False)


def _xz(content: bytes) -> int:
    return len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))


def _planes(content: bytes, width: int) -> bytes:
    """Return each number's first bytes, then all second ones, and so on."""
    end = len(content) // width * width
    return np.frombuffer(content[:end], np.uint8).reshape(-1, width).T.tobytes() + content[end:]


def _array_coders(old: Path, new: Path) -> Sizes:
    """Return the bytes by FM-Delta and by the bound for files that are mostly changed floats.

    Both are for the float arrays alone, aligned as mlpack does. FM-Delta's program takes about 21
    bytes more for each array (measured on rfb320), for a header and the coder's last bytes.
    """
    before, after = memoryview(old.read_bytes()), memoryview(new.read_bytes())
    pairs = [
        each
        for each in match(before, after, find_spans(before), find_spans(after))
        if each.kind.name in ("f32", "f16", "bf16")
    ]
    if 2 * sum(each.new.length for each in pairs if not each.same) < len(after):
        return {FM_DELTA: None, BOUND: None}
    low, coded, bound = np.sum([_array_bits(before, after, each) for each in pairs], axis=0)
    return {FM_DELTA: round((coded + low) / 8), BOUND: round((bound + low) / 8)}


def _array_bits(old: memoryview, new: memoryview, pair: ArrayPair) -> tuple[float, float, float]:
    """Return the bits of an array's residuals: low ones, FM-Delta's and the bound's for sizes."""
    kind, after = pair.kind, numbers(new, pair.new)
    before = numbers(old, pair.old) if pair.old else np.zeros_like(after)
    moved = ordered(kind, after).astype(np.int64) - ordered(kind, before)
    lengths = np.frexp(np.abs(moved).astype(np.float64))[1]
    symbols = np.sign(moved) * lengths + kind.bits
    joint = (exponents(kind, before).astype(np.int64) << 7) + symbols
    return (
        float(np.maximum(lengths - 1, 0).sum()),
        _adaptive_bits(symbols, 2 * kind.bits + 1),
        _entropy(np.bincount(joint)) - _entropy(np.bincount(joint >> 7)),
    )


def _entropy(counts: Array) -> float:
    """Return the bits of all symbols of which these are the counts, without a table's cost."""
    some = counts[counts > 0]
    return float((some * np.log2(some.sum() / some)).sum())


def _adaptive_bits(symbols: Array, count: int) -> float:
    """Return the code length of symbols by FM-Delta's range coder (Ning et al., NeurIPS 2024).

    Its model is Schindler's quasi-static one as fpzip has it: frequencies of 16 bits in all,
    halved after 1,024 symbols, at first earlier.
    """
    weights = (1 << 16) // count + (np.arange(count) < (1 << 16) % count)
    at, interval, bits = 0, (count >> 4) | 2, 0.0
    while at < len(symbols):
        costs = 16 - np.log2(weights)
        weights = (weights >> 1) | 1
        interval = min(2 * interval, 1024)
        step, more = divmod((1 << 16) - int(weights.sum()), interval)
        middle, end = at + interval - more, at + interval
        early = np.bincount(symbols[at:middle], minlength=count)
        late = np.bincount(symbols[middle:end], minlength=count)
        bits += float(((early + late) * costs).sum())
        weights += early * step + late * (step + 1)
        at = end
    return bits
