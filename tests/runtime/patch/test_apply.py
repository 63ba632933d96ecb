"""Patches that are damaged, hostile, or for another file: one clear error, and nothing believed."""

from __future__ import annotations

import hashlib
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zstandard

from mlpack.delta import make_patch
from mlpack.delta.spans import Span
from mlpack.delta.spans.span import Kind
from mlpack.delta.streams import signed, unsigned, write_program
from mlpack.runtime.patch import BadPatch, apply_patch, container
from mlpack.runtime.patch.arrays import F32, I8
from mlpack.runtime.patch.container import Header, read_header
from mlpack.runtime.patch.program import (
    ARRAY,
    COPY,
    LITERAL,
    ROUNDED,
    ArrayForm,
    Factor,
    Operation,
)
from tests.delta.files import applied, pair, trained
from tests.runtime.patch.plain import header_of

OLD, NEW = b"the old file", b"a new file"
CHECKOUT = Path(__file__).resolve().parents[3]


def header(old: bytes = OLD, new: bytes = NEW, classes: int = 1) -> Header:
    return Header(
        old_size=len(old),
        new_size=len(new),
        old_sha256=hashlib.sha256(old).hexdigest(),
        new_sha256=hashlib.sha256(new).hexdigest(),
        classes=classes,
        parts=(),
        length=0,
    )


def patch(of: Header, **streams: bytes) -> bytes:
    """A patch of streams that are stored as they are, by their names."""
    held = {getattr(container, name.upper()): content for name, content in streams.items()}
    return header_of(of, held) + b"".join(held.values())


def literal(new: bytes = NEW) -> bytes:
    return write_program([Operation(LITERAL, len(new))])


def test_a_patch_by_hand() -> None:
    assert applied(OLD, patch(header(), program=literal(), literal=NEW)) == NEW


def test_the_wrong_old_file_is_named() -> None:
    made = patch(header(), program=write_program([Operation(COPY, len(NEW), 0)]))
    with pytest.raises(BadPatch, match="the old file has 3 bytes, the patch is for 12"):
        applied(b"old", made)
    with pytest.raises(BadPatch, match=r"the old file has sha256 .*, the patch is for"):
        applied(OLD.upper(), made)
    with pytest.raises(BadPatch, match=r"the result has sha256 .*, not"):
        applied(OLD, made)


def test_a_patch_cut_off_anywhere_is_refused() -> None:
    of = pair(trained, shape=(8, 4), arrays=2)
    made = make_patch(memoryview(of.old), memoryview(of.new))
    for length in range(len(made)):
        with pytest.raises(BadPatch):
            applied(of.old, made[:length])
    with pytest.raises(BadPatch, match="or something follows it"):
        applied(of.old, made + b"\0")


def test_other_versions_are_named() -> None:
    made = bytearray(patch(header(), program=literal(), literal=NEW))
    made[4] = 9
    with pytest.raises(BadPatch, match="of version 9; this reads version 1"):
        applied(OLD, bytes(made))
    with pytest.raises(BadPatch, match="does not begin with MLPD"):
        applied(OLD, b"BSDIFF40" + bytes(90))


def form(**changes: object) -> ArrayForm:
    return replace(ArrayForm(kind=F32), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([Operation(LITERAL, 9)], "makes 9 bytes and declares 10"),
        ([Operation(LITERAL, 2**40)], "declares 10"),
        ([Operation(COPY, 10, 3)], "reads bytes 3 to 13 of 12"),
        ([Operation(COPY, 10, -1)], "reads bytes -1 to 9 of 12"),
        ([Operation(9, 10)], "unknown"),
        ([Operation(LITERAL, 10), Operation(LITERAL, 0)], "declares 10"),
        ([Operation(ARRAY, 10, 0, form())], "no whole number of f32"),
        ([Operation(ARRAY, 8, 0, form(base=2**30)), Operation(LITERAL, 2)], "out of bounds"),
        ([Operation(ARRAY, 8, 0, form(scale=4.0)), Operation(LITERAL, 2)], "scaled by 4"),
        (
            [Operation(ARRAY, 8, 0, form(lowest=250, exponents=9)), Operation(LITERAL, 2)],
            "out of bounds",
        ),
        (
            [Operation(ARRAY, 8, 0, form(factors=(Factor(1, 2**31),))), Operation(LITERAL, 2)],
            "a table of more entries",
        ),
        (
            [Operation(ARRAY, 8, 0, form(factors=(Factor(1, 2),) * 9)), Operation(LITERAL, 2)],
            "9 tables",
        ),
        (
            [Operation(ROUNDED, 10, 0, ArrayForm(kind=I8, delta=False, rounded=True))],
            "rounded and no difference",
        ),
        (
            [Operation(ARRAY, 10, 0, ArrayForm(kind=I8, lowest=1, exponents=1))],
            "i8 has no exponents",
        ),
    ],
)
def test_a_program_that_lies_is_refused_before_it_runs(steps: list[Operation], said: str) -> None:
    written: list[bytes] = []
    made = patch(header(), program=write_program(steps), literal=NEW)
    with pytest.raises(BadPatch, match=said):
        apply_patch(memoryview(OLD), memoryview(made), lambda piece: written.append(bytes(piece)))
    assert not written


def huge_numbers(old: bytes) -> bytes:
    return patch(header(), program=unsigned(2**62) + literal()[1:], literal=NEW)


def endless_number(old: bytes) -> bytes:
    return patch(header(), program=b"\xff" * 40, literal=NEW)


def table_that_is_missing(old: bytes) -> bytes:
    steps = [Operation(ARRAY, 8, 0, form(exponents=4)), Operation(LITERAL, 2)]
    return patch(header(), program=write_program(steps), literal=NEW)


def symbols_that_are_missing(old: bytes) -> bytes:
    steps = [Operation(ARRAY, 8, 0, form(base=8 * 130)), Operation(LITERAL, 2)]
    return patch(header(), program=write_program(steps), low=bytes(99), literal=NEW)


def low_bits_that_are_missing(old: bytes) -> bytes:
    steps = [Operation(ARRAY, 8, 0, form(base=8 * 140)), Operation(LITERAL, 2)]
    return patch(header(), program=write_program(steps), symbols=b"\1\2", literal=NEW)


def escapes_that_are_missing(old: bytes) -> bytes:
    steps = [Operation(ARRAY, 8, 0, form()), Operation(LITERAL, 2)]
    return patch(header(), program=write_program(steps), symbols=b"\xff\xff", low=bytes(8))


def dictionary_outside(old: bytes) -> bytes:
    made = container.MAGIC + bytes([1, 0]) + unsigned(len(old)) + unsigned(4) + bytes(64)
    part = bytes([container.LITERAL, container.ZSTD_OLD]) + unsigned(4) + unsigned(0)
    return made + unsigned(1) + part + unsigned(1) + signed(5) + unsigned(100)


def bomb(old: bytes) -> bytes:
    """A part of a few bytes that unpacks to 4 GiB, and says it is ten."""
    packer = zstandard.ZstdCompressor(level=19).compressobj()
    pieces = [packer.compress(bytes(2**20)) for _ in range(4096)]
    frame = b"".join(pieces) + packer.flush()
    made = bytearray(patch(header(), program=literal(), literal=frame))
    part = read_header(memoryview(made)).parts[1]
    entry = bytes([container.LITERAL, container.RAW]) + unsigned(part.size) * 2
    says = bytes([container.LITERAL, container.ZSTD]) + unsigned(10) + unsigned(part.stored)
    return bytes(made).replace(entry, says)


def wide_window(old: bytes) -> bytes:
    chosen = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=chosen).compressobj()
    frame = packer.compress(NEW) + packer.flush()
    made = bytearray(patch(header(), program=literal(), literal=frame))
    entry = bytes([container.LITERAL, container.RAW]) + unsigned(len(frame)) * 2
    says = bytes([container.LITERAL, container.ZSTD]) + unsigned(10) + unsigned(len(frame))
    return bytes(made).replace(entry, says)


@pytest.mark.parametrize(
    "hostile",
    [
        huge_numbers,
        endless_number,
        table_that_is_missing,
        symbols_that_are_missing,
        low_bits_that_are_missing,
        escapes_that_are_missing,
        dictionary_outside,
        bomb,
        wide_window,
    ],
)
def test_what_a_patch_declares_takes_no_memory(hostile: Callable[[bytes], bytes]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = hostile(OLD)
    with pytest.raises(BadPatch):
        applied(OLD, made)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "KiB"


_PEAK = """
import numpy as np
from pathlib import Path
from mlpack.delta import make_patch
from mlpack.delta.spans import Span
from mlpack.delta.spans.span import Kind
from mlpack.runtime.patch import apply_patch
import bsdiff4, lzma, bz2, zstandard
count = {count}
random = np.random.default_rng(1)
old = random.standard_normal(count, dtype=np.float32)
new = old + random.standard_normal(count, dtype=np.float32) * np.float32(1e-4)
span = Span("w", 0, 4 * count, Kind.F32, (count,))
before, after = memoryview(old).cast("B"), memoryview(new).cast("B")
def peak():
    # Not getrusage: that begins with what the parent process held.
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
held = peak()
patch = make_patch(before, after, old_spans=[span], new_spans=[span])
made = peak() - held
print(made / (4 * count), len(patch))
"""

_APPLY = """
import sys, mmap
from pathlib import Path
from mlpack.runtime.patch import apply_patch
import lzma, bz2, zstandard
old, patch, size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
def mapped(path):
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
def peak():
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before, given = mapped(old), mapped(patch)
held = peak()
apply_patch(before, given, lambda piece: None)
print((peak() - held - len(before) - len(given)) / size)
"""


def run(program: str, *args: object) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, args)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(each) for each in done.stdout.split()]


def test_making_takes_four_times_the_model_at_most() -> None:
    share, length = run(_PEAK.replace("{count}", str(2**24)))
    assert share < 4, "times the model of 64 MiB, beyond both files"
    assert length < 0.6 * 2**26


def test_applying_takes_the_model_s_size_at_most_beyond_what_is_mapped(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    old = random.standard_normal(2**23, dtype=np.float32)
    new = old + random.standard_normal(2**23, dtype=np.float32) * np.float32(1e-4)
    span = Span("w", 0, old.nbytes, Kind.F32, old.shape)
    made = make_patch(old.data.cast("B"), new.data.cast("B"), old_spans=[span], new_spans=[span])
    (tmp_path / "old").write_bytes(old.tobytes())
    (tmp_path / "patch").write_bytes(made)
    (share,) = run(_APPLY, tmp_path / "old", tmp_path / "patch", new.nbytes)
    assert share < 1
