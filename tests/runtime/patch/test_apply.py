"""Patches that are damaged, hostile, or for another file: one clear error, nothing trusted."""

from __future__ import annotations

import bz2
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zstandard

from mlpack.runtime.patch import BadPatch, apply_patch, container
from mlpack.runtime.patch.arrays import BF16, F16, F32, I8, KINDS, ArrayForm, Factor
from mlpack.runtime.patch.container import (
    BZIP2,
    PCODEC,
    RAW,
    ZSTD,
    StreamPart,
    StreamReader,
    Varints,
)
from mlpack.runtime.patch.format1 import read_old_index
from mlpack.runtime.patch.number_sets import NumberSet
from mlpack.runtime.patch.program import (
    ADD,
    ADDED,
    ARRAY,
    COPY,
    LITERAL,
    LITERALS,
    MASKED,
    MASKS,
    MAX_INDEX,
    TABLES,
    Operation,
)
from mlpack.tensor_patch import Effort, InvalidPatch, describe
from mlpack.tensor_patch.array_coding import CodedSet
from mlpack.tensor_patch.compression import PackedPart, compress, signed, unsigned
from tests.runtime.patch.fuzz import FORMAT1, format1, format2
from tests.runtime.patch.plain import Pieces, forms, head, operations, patch_of, plain_set
from tests.tensor_patch.files import applied, made, pair, trained

OLD, NEW = b"the old file", b"a new file"
EMPTY = memoryview(b"")
CHECKOUT = Path(__file__).resolve().parents[3]

Step = Operation[ArrayForm]


def patch(steps: Sequence[Step], *sets: CodedSet, **streams: bytes) -> bytes:
    """A patch from OLD to NEW of uncompressed streams, which are given by their names."""
    names = {"tables": TABLES, "added": ADDED, "literal": LITERALS, "masks": MASKS}
    held = {names[name]: content for name, content in streams.items()}
    return Pieces(steps, held, sets).patch(OLD, NEW)


def literal() -> bytes:
    return patch([Operation(LITERAL, len(NEW))], literal=NEW)


def form(**changes: object) -> ArrayForm:
    return replace(ArrayForm(kind=F32), **changes)  # type: ignore[arg-type]


def one_array(of: ArrayForm, length: int = 8) -> list[Step]:
    """The first bytes of NEW as an array, and the rest."""
    return [Operation(ARRAY, length, 0, of), Operation(LITERAL, len(NEW) - length)]


F32S = plain_set([np.zeros(2, "<i4")])


def test_a_patch_by_hand() -> None:
    assert applied(OLD, literal()) == NEW
    added = bytes((after - before) % 256 for before, after in zip(OLD, NEW, strict=False))
    assert applied(OLD, patch([Operation(ADD, len(NEW), 0)], added=added)) == NEW
    difference = np.frombuffer(NEW, "<i2") - np.frombuffer(OLD, "<i2", len(NEW) // 2)
    # In the order of floats, only those with a sign differ from integers; text has none.
    halves = Operation(ARRAY, len(NEW), 0, ArrayForm(kind=F16))
    assert applied(OLD, patch([halves], plain_set([difference]))) == NEW


def test_a_patch_of_groups_tables_and_steps_by_hand() -> None:
    """The numbers in docs/reference/patch-format.md, computed without mlpack."""
    old = np.array([1.0, 2.0, -4.0, 0.5, -0.0, np.nan], "<f4")
    # Sizes are 1000 - 8 * exponent + 0 and 16 in turns: -16, -8, -32, 8, 1000, -1024.
    of = form(base=1000, factors=(Factor(1, 2),))
    bits, difference = old.view("<i4"), np.array([5, -6, 7, -8, 9, 10], "<i4")
    moved = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits) + difference
    new = np.where(moved < 0, moved ^ 0x7FFFFFFF, moved).astype("<i4").tobytes()
    groups = [np.array(each, "<i4") for each in ([7, 10], [5], [-6], [-8, 9])]
    made = Pieces(
        [Operation(ARRAY, 24, 0, of)], {TABLES: bytes([0, 16])}, (plain_set(groups, (-20, -8, 0)),)
    )
    assert applied(old.tobytes(), made.patch(old.tobytes(), new)) == new
    multiples = plain_set([np.array([3, -1, 1, 0, 0, 0], "<i8")])
    stepped = np.array([1.75, 1.75, -3.75, 0.5, -0.0, np.nan], "<f4").tobytes()
    steps = Pieces([Operation(ARRAY, 24, 0, form(step=-2))], {}, (multiples,))
    assert applied(old.tobytes(), steps.patch(old.tobytes(), stepped)) == stepped


@pytest.mark.parametrize("effort", list(Effort))
def test_groups_of_numbers_by_every_coder(effort: Effort) -> None:
    """Numbers of one byte may be compressed as bytes, by any coder that compresses bytes."""
    text = b"It is a truth universally acknowledged, that a tensor in possession of weights. " * 9
    found = [compress(0, content, effort) for content in (NEW, text, bytes(99), text * 300)]
    found += [PackedPart(0, text, BZIP2, bz2.compress(text))]
    for each in found:
        reader = StreamReader([(each.part, memoryview(each.stored))], EMPTY)
        content = bytes(reader.read(each.part.size))
        of = CodedSet(NumberSet(1, (), (each.part,)), (bytes(each.stored),))
        steps = [Operation(ARRAY, len(content), 0, ArrayForm(kind=I8, delta=False))]
        assert applied(OLD, Pieces(steps, {}, (of,)).patch(OLD, content)) == content


def test_the_wrong_old_file_is_named() -> None:
    made = patch([Operation(COPY, len(NEW), 0)])
    with pytest.raises(BadPatch, match="the old file has 3 bytes, the patch is for 12"):
        applied(b"old", made)
    with pytest.raises(BadPatch, match=r"the old file has sha256 .*, the patch is for"):
        applied(OLD.upper(), made)
    with pytest.raises(BadPatch, match=r"the result has sha256 .*, not"):
        applied(OLD, made)


def test_a_patch_cut_off_anywhere_is_refused() -> None:
    of = pair(trained, shape=(8, 4), arrays=2)
    whole = made(of)
    for length in range(len(whole)):
        with pytest.raises(BadPatch):
            applied(of.old, whole[:length])
    with pytest.raises(BadPatch, match="or something follows it"):
        applied(of.old, whole + b"\0")


def test_other_versions_are_named() -> None:
    for version in (0, 9):
        made = bytearray(literal())
        made[4] = version
        with pytest.raises(BadPatch, match=f"of version {version}; this reads versions 1 and 2"):
            applied(OLD, bytes(made))
    with pytest.raises(BadPatch, match="does not begin with MLPD"):
        applied(OLD, b"BSDIFF40" + bytes(90))


def test_patches_of_version_1_apply_exactly() -> None:
    kinds, codes, classes, coders = set(), set(), set(), set()
    for old, new, given in format1():
        assert applied(old, given) == new
        described = describe(memoryview(given))
        assert described.version == 1
        assert sum(each.size for each in described.operations) == len(new)
        _, index = read_old_index(memoryview(given))
        classes.add(index.classes)
        coders |= {each.coder for each in index.parts}
        codes |= {each.code for each in index.operations}
        for of in (each.form for each in index.operations if each.form):
            kinds |= {(of.kind.name, of.delta), f"masked {of.masked}", f"scaled {of.scale != 1}"}
            kinds |= {f"tables {len(of.factors)} {of.exponents > 0}"}
    assert classes == {1, 8}
    assert coders >= {0, 1, 2, 4}
    assert codes == {*range(5)}
    assert kinds >= {(each.name, True) for each in KINDS if each != I8}
    assert kinds >= {
        "masked True",
        "masked False",
        "scaled True",
        "tables 1 True",
        "tables 1 False",
    }


def test_arrays_of_several_blocks_of_version_1_apply_exactly() -> None:
    with zipfile.ZipFile(FORMAT1) as archive:
        old, new, given = (archive.read(f"large.{each}") for each in ("old", "new", "mlpd"))
    assert len(new) > 4 * 2**17
    assert applied(old, given) == new


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([Operation(LITERAL, 9)], "makes 9 bytes and declares 10"),
        ([Operation(LITERAL, 2**40)], "declares 10"),
        ([Operation(COPY, 10, 3)], "reads bytes 3 to 13 of 12"),
        ([Operation(COPY, 10, -1)], "reads bytes -1 to 9 of 12"),
        ([Operation(ADD, 10, 2**40)], "reads bytes"),
        ([Operation(LITERAL, 6), Operation(ARRAY, 4, 9, form())], "reads bytes 9 to 13"),
        ([Operation(9, 10)], "unknown"),
        ([Operation(LITERAL, 10), Operation(LITERAL, 0)], "declares 10"),
        ([Operation(ARRAY, 10, 0, form())], "not a whole number of f32"),
        (one_array(form(base=2**30)), "out of bounds"),
        (one_array(form(base=-32001)), "out of bounds"),
        (one_array(form(scale=4.0)), "scaled by 4"),
        (one_array(form(lowest=250, exponents=9)), "out of bounds"),
        (one_array(form(factors=(Factor(1, 9),))), "a table of more entries"),
        (one_array(form(factors=(Factor(0, 2),))), "stride 0"),
        (one_array(form(factors=(Factor(1, 2),) * 9)), "9 tables"),
        (one_array(form(factors=(Factor(1, 2**24 + 1),))), "a table of 16777217"),
        (one_array(form(set=1)), "1 as the number set"),
        (one_array(form(set=2**40)), "as the number set"),
        (one_array(ArrayForm(kind=F16)), "numbers of 4 bytes are read as f16"),
        (one_array(ArrayForm(kind=I8)), "numbers of 4 bytes are read as i8"),
        (one_array(form(step=1101)), "too large a step"),
        (one_array(form(step=-1101)), "too large a step"),
        (one_array(form(step=1, scale=1.5)), "with a step has exponents, a scale"),
        (one_array(form(step=1, exponents=1)), "with a step has exponents, a scale"),
        (one_array(form(step=1, delta=False)), "without differences of floats"),
        (one_array(form(scale=1.5, delta=False)), "without differences of floats"),
        (one_array(form(exponents=2, delta=False)), "without differences of floats"),
        (one_array(ArrayForm(kind=I8, step=1)), "without differences of floats"),
        (one_array(ArrayForm(kind=I8, exponents=1)), "without differences of floats"),
        (one_array(ArrayForm(kind=BF16, scale=1.5)), "numbers of 4 bytes are read as bf16"),
        ([Operation(MASKED, 8, 0, form(delta=False))], "makes 8 bytes"),
        ([Operation(MASKED, 10, 0, ArrayForm(kind=I8, delta=False))], "or no differences"),
        (
            [Operation(MASKED, 10, 0, ArrayForm(kind=I8, factors=(Factor(1, 2),)))],
            "has tables over axes",
        ),
        (one_array(form(), 4), "a set of 2 numbers for 1 elements"),
        ([Operation(LITERAL, 10)], "a set of 2 numbers for 0 elements"),
    ],
)
def test_operations_that_lie_are_refused_before_any_is_executed(
    steps: list[Step], said: str
) -> None:
    refused(patch([Operation(LITERAL, 10)], literal=NEW), "")  # to be sure that it is no lie
    refused(patch(steps, F32S, literal=NEW), said)


def refused(made: bytes, said: str) -> None:
    """Apply; without a message expected, this succeeds, otherwise nothing has been written."""
    written: list[bytes] = []

    def apply() -> None:
        apply_patch(memoryview(OLD), memoryview(made), lambda piece: written.append(bytes(piece)))

    if not said:
        apply()
        return
    with pytest.raises(BadPatch, match=said):
        apply()
    assert not written
    with pytest.raises(InvalidPatch, match=said):
        describe(memoryview(made))


def lying_set(bounds: Sequence[int] = (), coder: int = RAW, size: int = 4) -> CodedSet:
    part = StreamPart(0, coder, 2, 4 * (coder == RAW))
    groups = (part,) * (len(bounds) + 1)
    return CodedSet(NumberSet(size, tuple(bounds), groups), (bytes(part.stored),) * len(groups))


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (lying_set(size=16), "4 as the width of numbers"),
        (lying_set((-32001,)), "begins at a size of -32001"),
        (lying_set((0, 32001)), "begins at a size of 32001"),
        # Bounds are written as distances less one, so two that are equal are -1: no number.
        (lying_set(range(255)), "255 groups in a set"),
        (lying_set(coder=container.ZSTD_OLD), "an unknown coder"),
        (lying_set(coder=PCODEC, size=8), "a set of 2 numbers for 0 elements"),
        (lying_set(coder=7), "an unknown coder"),
        (lying_set(coder=255), "an unknown coder"),
    ],
)
def test_number_sets_that_lie_are_refused_before_any_is_read(of: CodedSet, said: str) -> None:
    refused(patch([Operation(LITERAL, 10)], of, literal=NEW), said)


def test_an_index_that_lies_is_refused_before_it_is_used() -> None:
    index = Pieces([Operation(LITERAL, len(NEW))], {LITERALS: NEW}).index()
    refused(patch_of(OLD, NEW, index + b"\0", NEW), "longer than its operations")
    refused(patch_of(OLD, NEW, index[:-1], NEW), "ends in the middle of a number")
    refused(patch_of(OLD, NEW, index, NEW + b"\0"), "something follows it")
    refused(patch_of(OLD, NEW, index, NEW[:-1]), "the patch is truncated")
    for coder in (container.ZSTD_OLD, PCODEC, 255):
        made = head(OLD, NEW) + bytes([coder]) + unsigned(len(index)) * 2 + index + NEW
        refused(made, "an index of")
    big = 64 * (len(NEW) + 64) + 1
    refused(head(OLD, NEW) + bytes([RAW]) + unsigned(big) * 2 + bytes(big), f"index of {big}")
    made = unsigned(0) + unsigned(1) + unsigned(2) + unsigned(0)
    made += bytes([PCODEC]) + unsigned(2) + unsigned(0)
    refused(patch_of(OLD, NEW, made + unsigned(17) + bytes(17)), "17 bytes of pcodec's header")


def test_numbers_are_read_as_they_are_written() -> None:
    for value in (0, 1, -1, 63, 64, -64, -65, 2**31, 2**62 - 1, -(2**62)):
        assert Varints(memoryview(signed(value))).signed() == value
        assert Varints(memoryview(unsigned(abs(value)))).unsigned() == abs(value)
    with pytest.raises(BadPatch, match="too large"):
        Varints(memoryview(unsigned(2**63))).unsigned()


def garbage(body: bytes, size: int = 2) -> CodedSet:
    """A set that has ``body`` for two numbers of pcodec."""
    part = StreamPart(0, PCODEC, size, len(body))
    return CodedSet(NumberSet(4, (), (part,)), (body,))


def pcodec_garbage() -> bytes:
    return patch(one_array(form()), garbage(bytes(range(40))), literal=NEW)


def pcodec_ones() -> bytes:
    return patch(one_array(form()), garbage(b"\xff" * 40), literal=NEW)


def pcodec_nothing() -> bytes:
    return patch(one_array(form()), garbage(b"", 2**40), literal=NEW)


def another_pcodec() -> bytes:
    index = Pieces(one_array(form()), {LITERALS: NEW[8:]}, (garbage(bytes(9)),)).index()
    for length, header in ((0, b""), (2, b"\xff\xff"), (3, b"\x04\x09\x00")):
        made = index.replace(b"\x02\x04\x01", bytes([length]) + header)
        if made != index:
            return patch_of(OLD, NEW, made, NEW[8:] + bytes(9))
    return patch_of(OLD, NEW, index, NEW[8:] + bytes(9))


def numbers_that_are_missing() -> bytes:
    return patch(one_array(form()), plain_set([np.zeros(1, "<i4")]), literal=NEW)


def numbers_that_are_not_stored() -> bytes:
    part = StreamPart(0, RAW, 2**50, 4)
    lying = CodedSet(NumberSet(4, (), (part,)), (bytes(4),))
    return patch(one_array(form()), lying, literal=NEW)


def group_that_is_missing() -> bytes:
    groups = plain_set([np.zeros(2, "<i4"), np.zeros(1, "<i4")], (-8,))
    return patch(one_array(form(base=1000)), groups, literal=NEW)


def mask_that_is_missing() -> bytes:
    steps = [Operation(MASKED, 8, 0, form()), Operation(LITERAL, 2)]
    return patch(steps, F32S, literal=NEW)


def mask_of_more_numbers() -> bytes:
    steps = [Operation(MASKED, 8, 0, form()), Operation(LITERAL, 2)]
    return patch(steps, plain_set([np.zeros(1, "<i4")]), literal=NEW, masks=b"\xff")


def bf16_scaled() -> bytes:
    halves = ArrayForm(kind=BF16, scale=1.5)
    return patch(one_array(halves), plain_set([np.zeros(4, "<i2")]), literal=NEW)


def huge_numbers() -> bytes:
    return patch_of(OLD, NEW, bytes(2) + unsigned(2**62) + b"\1")


def endless_number() -> bytes:
    return patch_of(OLD, NEW, b"\xff" * 40)


def table_that_is_missing() -> bytes:
    return patch(one_array(form(exponents=4)), F32S, literal=NEW)


def dictionary_outside() -> bytes:
    index = unsigned(1) + bytes([LITERALS, container.ZSTD_OLD]) + unsigned(4) + unsigned(0)
    index += unsigned(1) + signed(5) + unsigned(100)
    return patch_of(OLD, NEW, index)


def literal_by_zstandard(frame: bytes) -> bytes:
    """A patch whose ten literal bytes are ``frame``, as it claims."""
    index = unsigned(1) + bytes([LITERALS, ZSTD]) + unsigned(10) + unsigned(len(frame))
    index += unsigned(0) + unsigned(1) + bytes([LITERAL]) + unsigned(10)
    return patch_of(OLD, NEW, index, frame)


def test_a_literal_by_zstandard_by_hand() -> None:
    assert applied(OLD, literal_by_zstandard(zstandard.compress(NEW))) == NEW


def zeros(mebibytes: int) -> bytes:
    """A zstandard frame of zeros: 4 GiB are a few hundred KB."""
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    pieces = [packer.compress(bytes(2**20)) for _ in range(mebibytes)]
    return b"".join(pieces) + packer.flush()


def bomb() -> bytes:
    """A part of a few bytes that decompresses to 4 GiB, and declares ten."""
    return literal_by_zstandard(zeros(4096))


def wide_window() -> bytes:
    chosen = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=chosen).compressobj()
    return literal_by_zstandard(packer.compress(NEW) + packer.flush())


def numbers_in_a_wide_window() -> bytes:
    chosen = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=chosen).compressobj()
    frame = packer.compress(bytes(8)) + packer.flush()
    part = StreamPart(0, ZSTD, 2, len(frame))
    lying = CodedSet(NumberSet(4, (), (part,)), (frame,))
    return patch(one_array(form()), lying, literal=NEW)


def index_that_is_a_bomb() -> bytes:
    """An index of 2**21 operations that make nothing, in a KB, for a file of 2**60 bytes."""
    start = bytes(2) + unsigned(2**21)
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    frame = packer.compress(start + bytes(MAX_INDEX - len(start))) + packer.flush()
    made = head(OLD, NEW, new_size=2**60) + bytes([ZSTD])
    return made + unsigned(MAX_INDEX) + unsigned(len(frame)) + frame


def index_of_more_operations_than_there_are() -> bytes:
    return head(OLD, NEW, new_size=2**60) + bytes([RAW, 6, 6, 0, 0]) + unsigned(2**27)


def tables_that_are_a_bomb() -> bytes:
    """An array whose tables, in a few hundred KB, have 2**31 entries."""
    count = 2**31
    frame = zeros(count >> 20)
    index = unsigned(1) + bytes([TABLES, ZSTD]) + unsigned(count) + unsigned(len(frame))
    index += unsigned(1) + unsigned(2) + unsigned(0) + bytes([RAW]) + unsigned(2) + unsigned(8)
    index += unsigned(0) + unsigned(1) + bytes([ARRAY]) + unsigned(4 * count)
    # Numbers of no old file, with one table of as many entries.
    index += bytes([2 | 64]) + unsigned(0) + signed(0) + unsigned(1) + unsigned(1) + unsigned(count)
    made = head(OLD, NEW, new_size=4 * count) + bytes([RAW]) + unsigned(len(index)) * 2
    return made + index + frame + bytes(8)


@pytest.mark.parametrize(
    "hostile",
    [
        pcodec_garbage,
        pcodec_ones,
        pcodec_nothing,
        another_pcodec,
        numbers_that_are_missing,
        numbers_that_are_not_stored,
        group_that_is_missing,
        mask_that_is_missing,
        mask_of_more_numbers,
        bf16_scaled,
        huge_numbers,
        endless_number,
        table_that_is_missing,
        dictionary_outside,
        bomb,
        wide_window,
        numbers_in_a_wide_window,
        index_that_is_a_bomb,
        index_of_more_operations_than_there_are,
        tables_that_are_a_bomb,
    ],
)
def test_what_a_patch_declares_takes_no_memory(hostile: Callable[[], bytes]) -> None:
    made = hostile()
    # The peak counts from here.
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    with pytest.raises(BadPatch):
        applied(OLD, made)
    assert peak() - before < 100_000, "KiB"


def peak() -> int:
    """The most memory that this process has held, in KiB."""
    return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0])


def test_a_corpus_of_version_2_has_every_operation_and_every_kind() -> None:
    """What the fuzzer mutates is what there is."""
    found = [given for _, _, given in format2()]
    assert {each.code for given in found for each in operations(given)} == {*range(5)}
    arrays = [of for given in found for of in forms(given)]
    assert {of.kind for of in arrays if of.delta} == {*KINDS}
    assert {of.kind for of in arrays if of.step is not None} == {of for of in KINDS if of.fraction}
    assert (
        {bool(of.factors) for of in arrays}
        == {bool(of.exponents) for of in arrays}
        == {True, False}
    )


_MAKE = """
import numpy as np
from pathlib import Path
from mlpack.tensor_patch import Arrays, make_patch
from mlpack.tensor_patch.spans import Span
from mlpack.tensor_patch.spans.span import Kind
from mlpack.runtime.patch import apply_patch
import bsdiff4, lzma, bz2, zstandard
count = {count}
random = np.random.default_rng(1)
old = random.standard_normal(count, dtype=np.float32)
new = old + random.standard_normal(count, dtype=np.float32) * np.float32(1e-4)
spans = [Span("w", 0, 4 * count, Kind.F32, (count,))]
before, after = memoryview(old).cast("B"), memoryview(new).cast("B")
def peak():
    # Not getrusage: that begins with what the parent process held.
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
held = peak()
patch = make_patch(before, after, arrays=Arrays(spans, spans))
made = peak() - held
print(made / (4 * count), len(patch))
"""

_APPLY = """
import sys, mmap
from pathlib import Path
from mlpack.runtime.patch import apply_patch
import lzma, bz2, zstandard, pcodec
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
    share, length = run(_MAKE.replace("{count}", str(2**24)))
    assert share < 4, "times the model of 64 MiB, beyond both files"
    assert length < 0.6 * 2**26


@pytest.mark.parametrize("arrays", [1, 64])
def test_applying_takes_memory_for_pieces_and_not_for_the_model(
    tmp_path: Path, arrays: int
) -> None:
    of = pair(trained, shape=(2**23 // arrays,), arrays=arrays)
    (tmp_path / "old").write_bytes(of.old)
    (tmp_path / "patch").write_bytes(made(of))
    (share,) = run(_APPLY, tmp_path / "old", tmp_path / "patch", len(of.new))
    assert share < 0.5, "times the model of 32 MiB"
