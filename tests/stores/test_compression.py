"""Compressed content of every kind in use, whole and damaged, in one frame and in several."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random

import pytest
import zstandard

from mlpack.oci.unpacking import MAGIC_BYTES, compression_of
from mlpack.stores.compression import inflated, unreadable

_RANDOM = random.Random(1)
CONTENT = _RANDOM.randbytes(200_000) + b"a" * 300_000
GZIP, ZSTD, XZ, BZIP2 = (
    make(CONTENT) for make in (gzip.compress, zstandard.compress, lzma.compress, bz2.compress)
)


def skipped(content: bytes, kind: int = 0) -> bytes:
    """A zstd frame that decoders skip."""
    return bytes((0x50 + kind, 0x2A, 0x4D, 0x18)) + len(content).to_bytes(4, "little") + content


def read_all(content: bytes, size: int) -> bytes:
    found = inflated(io.BufferedReader(io.BytesIO(content)))
    return b"".join(iter(lambda: found.read(size), b""))


@pytest.mark.parametrize("size", [777, 1024 * 1024])
@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        ("", b"", b""),
        ("", CONTENT, CONTENT),
        ("gzip", GZIP, CONTENT),
        ("gzip", gzip.compress(b""), b""),
        ("gzip", GZIP + bytes(700), CONTENT),
        ("gzip", GZIP + gzip.compress(b"") + GZIP, CONTENT * 2),
        ("gzip", GZIP + bytes(10) + GZIP, CONTENT * 2),
        ("zstd", ZSTD, CONTENT),
        ("zstd", zstandard.compress(b""), b""),
        ("zstd", skipped(b"head") + ZSTD, CONTENT),
        ("zstd", skipped(b"") + ZSTD, CONTENT),
        ("zstd", skipped(b"x", 15) + ZSTD, CONTENT),
        ("zstd", skipped(b"x" * 3_000_000) + ZSTD, CONTENT),
        ("zstd", skipped(b"x") * 3000 + ZSTD, CONTENT),
        ("zstd", skipped(b"no frame"), b""),
        ("zstd", ZSTD + skipped(b"toc" * 9) + ZSTD + skipped(b"footer"), CONTENT * 2),
        ("zstd", zstandard.compress(b"") * 3 + ZSTD, CONTENT),
        ("xz", XZ, CONTENT),
        ("xz", lzma.compress(b""), b""),
        ("xz", XZ + bytes(100_000), CONTENT),
        ("xz", XZ + lzma.compress(b"") + bytes(8) + XZ, CONTENT * 2),
        ("bzip2", BZIP2, CONTENT),
        ("bzip2", bz2.compress(b""), b""),
        ("bzip2", BZIP2 * 3, CONTENT * 3),
    ],
    ids=range(24),
)
def test_content_is_what_was_compressed(
    kind: str, content: bytes, expected: bytes, size: int
) -> None:
    assert compression_of(content[:MAGIC_BYTES]).partition("-")[0] == (kind or "none")
    assert read_all(content, size) == expected


@pytest.mark.parametrize(
    "content",
    [
        GZIP + b"garbage",
        GZIP[:-20],
        ZSTD + b"garbage",
        XZ + b"garbage",
        XZ[:-20],
        XZ[:1000] + b"garbage" + XZ[1007:],
        BZIP2 + b"garbage",
        BZIP2[:-20],
        BZIP2[:1000] + b"garbage" + BZIP2[1007:],
        # A dictionary of a gigabyte.
        lzma.compress(b"a", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**30}]),
    ],
    ids=range(10),
)
def test_damaged_content_is_an_error_that_readers_know(content: bytes) -> None:
    with pytest.raises(unreadable()):
        read_all(content, 100_000)
