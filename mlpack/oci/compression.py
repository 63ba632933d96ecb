"""Turning tar bytes into blob bytes that are the same on every machine.

The compressor is libdeflate (package ``deflate``, pinned). Measured over nine
x86-64 and arm64 processors: libdeflate gives the same bytes on all; ISA-L does
not (levels 0 to 2 differ between x86-64 and arm64, level 3 between two x86-64),
and what Python's ``zlib`` links to depends on who built that Python. At level
10 an operating-system layer is 4 % smaller than with zlib 9.

libdeflate takes its input in one piece, so a tar is cut into members of 8 MiB,
which a gzip file may hold many of (RFC 1952, 2.2) and engines read as one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from mlpack.errors import MlpackError
from mlpack.oci.digest import Writable
from mlpack.oci.packing import Packing
from mlpack.oci.tree import Entry

PACKING = Packing(revision=1, compressor="deflate 0.9.0")
"""What this mlpack writes: the constants of this module and of ``tarball``."""

MEMBER = 8 * 1024 * 1024
"""Bytes of tar in one gzip member; also the memory one costs, twice over."""

_SMALL = 4 * 1024 * 1024
"""Up to here the best level is free: a 6 KB model takes 1.5 ms, 1 MB of weights 40 ms."""

_BEST, _GENERAL, _WEIGHTS = 12, 10, 6
_NOISE, _DENSE = 0.99, 0.70
"""Samples above the first share of their size are stored as they are; above the second they
are weights, which a slow level makes no smaller (83.9 % at level 6, 83.7 % at level 12)."""

_SAMPLES, _SAMPLE = 16, 64 * 1024
_WORKERS = 2


class WrongCompressor(MlpackError):
    """Another compressor than the one layer digests depend on."""

    hint = "install the pinned one: pip install deflate==0.9.0"


class OpenFile(Protocol):
    """Opens the content of a file by its path in the layer; the stream can seek."""

    def __call__(self, path: str, /) -> AbstractContextManager[BinaryIO]:
        """Open ``path`` for reading."""
        ...


def choose_level(entries: Sequence[Entry], open_file: OpenFile) -> int:
    """Decide from the content alone how hard to deflate this layer; 0 stores a plain tar.

    A plain tar is taken by all three engines (measured on Docker 20.10, containerd
    1.6, podman 4.3), and costs a device nothing to inflate.
    """
    total = sum(entry.size for entry in entries)
    if total <= _SMALL:
        return _BEST
    ratio = _sampled_ratio(entries, open_file)
    if ratio > _NOISE:
        return 0
    return _WEIGHTS if ratio > _DENSE else _GENERAL


def tar_level(size: int) -> int:
    """How hard to deflate a tar of ``size`` bytes of which nothing more is known."""
    return _BEST if size <= _SMALL else _WEIGHTS


class Gzip:
    """Deflates what is written to it into ``out``; :meth:`finish` ends the stream.

    Members are deflated by two threads (libdeflate releases the interpreter) and
    written in order, so at most three are in memory.
    """

    def __init__(self, out: Writable, level: int) -> None:
        self._out = out
        self._level = level
        self._open = bytearray()
        self._pool: ThreadPoolExecutor | None = None
        self._running: deque[Future[bytes]] = deque()

    def write(self, data: bytes) -> None:
        """Take the next bytes of the tar."""
        self._open += data
        while len(self._open) >= MEMBER:
            self._submit(bytes(memoryview(self._open)[:MEMBER]))
            del self._open[:MEMBER]

    def finish(self) -> None:
        """Write what is left."""
        while self._running:
            self._out.write(self._running.popleft().result())
        if self._open:
            self._out.write(_member(bytes(self._open), self._level))
        self.close()

    def close(self) -> None:
        """Let the threads go; what was not finished is lost."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _submit(self, data: bytes) -> None:
        self._pool = self._pool or ThreadPoolExecutor(_WORKERS, thread_name_prefix="deflate")
        if len(self._running) == _WORKERS:
            self._out.write(self._running.popleft().result())
        self._running.append(self._pool.submit(_member, data, self._level))


def _member(data: bytes, level: int) -> bytes:
    """One gzip member; libdeflate writes no name, time 0 and system 255."""
    import deflate

    if PACKING.compressor != f"deflate {deflate.__version__}":
        raise WrongCompressor(
            f"deflate {deflate.__version__} is installed; layers are written with "
            f"{PACKING.compressor}, and another version may give other digests"
        )
    return bytes(deflate.gzip_compress(data, level))


def _sampled_ratio(entries: Sequence[Entry], open_file: OpenFile) -> float:
    """How far samples, spread over all large files, shrink at the fastest level."""
    before = after = 0
    for entry in (each for each in entries if each.size >= _SAMPLE):
        with open_file(entry.path) as content:
            for start in range(0, entry.size, max(_SAMPLE, entry.size // _SAMPLES)):
                content.seek(start)
                sample = content.read(_SAMPLE)
                before += len(sample)
                after += len(_member(sample, 1)) if sample else 0
    return after / before if before else 0.0
