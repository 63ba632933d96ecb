"""Whether two files have the same bytes."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlpack.tensor_patch.equality import equal

BLOCK = 1 << 22


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 4097, BLOCK - 1, BLOCK, BLOCK + 5, 2 * BLOCK])
def test_any_byte_counts(size: int) -> None:
    content = os.urandom(size)
    assert equal(memoryview(content), memoryview(bytearray(content)))
    assert not equal(memoryview(content), memoryview(content + b"\0"))
    for at in {0, size // 2, size - 1} if size else set():
        changed = bytearray(content)
        changed[at] ^= 1
        assert not equal(memoryview(content), memoryview(changed)), at


def test_mapped_files_keep_their_content(tmp_path: Path) -> None:
    content = os.urandom(BLOCK + 5000)
    (tmp_path / "a").write_bytes(content)
    with (tmp_path / "a").open("rb") as a, (tmp_path / "a").open("r+b") as b:
        read = mmap.mmap(a.fileno(), 0, access=mmap.ACCESS_READ)
        private = mmap.mmap(b.fileno(), 0, access=mmap.ACCESS_COPY)
        assert equal(memoryview(read), memoryview(private))
        private[7] ^= 1
        assert not equal(memoryview(read), memoryview(private))
        assert private[7] != content[7], "what was written to a private map stays"
        private[7] ^= 1
        assert equal(memoryview(read)[4:], memoryview(private)[4:])
        assert bytes(read) == content


MEASURE = """
import mmap, resource, sys
from mlpack.tensor_patch.equality import equal
files = [open(path, "rb") for path in sys.argv[1:]]
views = [memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)) for f in files]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert equal(*views)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_flat(tmp_path: Path) -> None:
    for name in "ab":
        with (tmp_path / name).open("wb") as out:
            out.truncate(200_000_000)
    command = [sys.executable, "-c", MEASURE, *(str(tmp_path / name) for name in "ab")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40_000, "KiB for two files of 200 MB"
