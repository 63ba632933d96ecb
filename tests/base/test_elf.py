"""Shrinking shared objects: what stays, what goes, what is left alone."""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.base.elf import needs, shrink
from tests.base.doubles import elf
from tests.support import unavailable

PLAIN = elf(("libc.so.6", "libm.so.6"), debug=b"debug" * 100)


def patched(offset: int, value: bytes) -> bytes:
    return PLAIN[:offset] + value + PLAIN[offset + len(value) :]


def test_only_what_a_segment_covers_stays() -> None:
    small = shrink(PLAIN)
    covered = struct.unpack_from("<Q", PLAIN, 64 + 32)[0]
    assert len(small) == covered
    assert b"debug" not in small
    # Where the section headers were, how many, and which names them.
    assert small[40:48] == bytes(8)
    assert small[58:64] == bytes(6)
    assert small[64:] == PLAIN[64:covered]
    assert small[:40] == PLAIN[:40]
    assert small[48:58] == PLAIN[48:58]


def test_bytes_between_segments_become_zeros() -> None:
    # The second segment starts later: what lies between is in no segment.
    apart = bytearray(elf(debug=b"between" * 40))
    late = len(apart) - 2 * 64 - 16
    struct.pack_into("<QQQQQ", apart, 64 + 56 + 8, late, 0, 0, 8, 8)
    small = shrink(bytes(apart))
    assert len(small) == late + 8
    assert b"between" * 2 not in small


def test_shrinking_twice_changes_nothing_more() -> None:
    assert shrink(shrink(PLAIN)) == shrink(PLAIN)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"#!/bin/sh\n" * 20, id="script"),
        pytest.param(PLAIN[:50], id="header cut off"),
        pytest.param(PLAIN[:100], id="segments cut off"),
        pytest.param(PLAIN[:300], id="sections cut off"),
        pytest.param(patched(4, b"\x01"), id="32 bits"),
        pytest.param(patched(5, b"\x02"), id="big endian"),
        pytest.param(patched(16, b"\x01\x00"), id="object file"),
        pytest.param(patched(16, b"\x04\x00"), id="core dump"),
        pytest.param(patched(52, b"\x34\x00"), id="other header size"),
        pytest.param(patched(54, b"\x20\x00"), id="other segment size"),
        pytest.param(patched(56, b"\x00\x00"), id="no segments"),
        pytest.param(patched(56, b"\xff\xff"), id="too many segments"),
        pytest.param(patched(58, b"\x28\x00"), id="other section size"),
        pytest.param(patched(64 + 32, b"\xff" * 8), id="segment beyond the end"),
        pytest.param(PLAIN + b"payload" * 20, id="payload behind the end"),
    ],
)
def test_what_is_not_understood_is_left_alone(data: bytes) -> None:
    assert shrink(data) == data


def test_the_libraries_a_file_is_linked_to() -> None:
    assert needs(PLAIN) == ("libc.so.6", "libm.so.6")
    assert needs(shrink(PLAIN)) == ("libc.so.6", "libm.so.6")
    assert needs(elf()) == ()
    assert needs(b"text") == ()


@given(st.binary(max_size=400), st.integers(0, len(PLAIN)), st.binary(max_size=16))
def test_no_bytes_make_it_fail(noise: bytes, place: int, change: bytes) -> None:
    for data in (noise, patched(place, change)[: len(PLAIN)], PLAIN[:place]):
        assert len(shrink(data)) <= len(data)
        assert all(isinstance(name, str) for name in needs(data))


def compiler() -> str:
    return shutil.which("cc") or shutil.which("gcc") or ""


def test_a_real_library_still_works(tmp_path: Path) -> None:
    if not compiler():
        unavailable("no C compiler")
    source, library = tmp_path / "a.c", tmp_path / "liba.so"
    source.write_text(
        "#include <math.h>\nstatic __thread int calls;\nstatic double twice(double x)"
        "{ calls++; return 2 * x; }\ndouble half_of_twice_root(double x)"
        "{ return twice(sqrt(x)) / 2 + calls - 1; }\n"
    )
    build = [compiler(), "-g", "-shared", "-fPIC", "-o", str(library), str(source), "-lm"]
    subprocess.run(build, check=True)
    before = library.read_bytes()
    small = tmp_path / "small.so"
    small.write_bytes(shrink(before))
    assert small.stat().st_size < len(before) * 0.9
    function = ctypes.CDLL(str(small)).half_of_twice_root
    function.restype, function.argtypes = ctypes.c_double, [ctypes.c_double]
    assert function(9.0) == 3.0
    assert "libm.so.6" in needs(before)


def test_the_running_python_still_runs(tmp_path: Path) -> None:
    small = tmp_path / "python"
    original = Path(sys.executable).resolve()
    small.write_bytes(shrink(original.read_bytes()))
    small.chmod(0o755)
    done = subprocess.run(
        [str(small), "-c", "import math; print(math.factorial(20))"],
        env={"PYTHONHOME": sys.base_prefix, "LD_LIBRARY_PATH": f"{sys.base_prefix}/lib"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "2432902008176640000\n"), done.stderr
