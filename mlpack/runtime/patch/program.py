"""The index of a patch: its parts, its number sets, and its operations in the new file's order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from .arrays import KINDS, ArrayForm, Factor, NumberType
from .container import (
    BZIP2,
    COLUMNS,
    LZMA_SYMBOLS,
    LZMA_TEXT,
    PCODEC,
    RAW,
    ZSTD,
    BadPatch,
    Header,
    StreamPart,
    StreamReader,
    Varints,
    read_header,
)
from .number_sets import NumberSet

COPY, LITERAL, ADD, ARRAY, MASKED = range(5)
"""Bytes of the old file; bytes of the patch; their sum modulo 256; numbers (arrays.py), and numbers
of those elements of an array that differ from the old one."""

TABLES, ADDED, LITERALS, MASKS = range(4)
"""The streams of bytes: entries of arrays' tables; what is added to old bytes; new bytes; a bit for
each element of a masked array, from a byte's lowest up: whether it differs."""

DELTA, SCALED, EXPONENTS, FACTORS, STEPPED = 8, 16, 32, 64, 128
"""Flags of an array, in one byte with its number type."""

UNIT = 1 << 20
"""A scale is stored as the number of these parts above one."""

MOST_GROUPS = 255
"""Groups in a number set."""

MOST_FACTORS = 8
"""Tables over axes of an array."""

MOST_ENTRIES = 1 << 21
"""Entries of such a table, as they are written; what is read has as many in all tables."""

MAX_INDEX = 1 << 25
"""Bytes of an index."""

_MAX_SETS = 65536
_MAX_SIZE = 32000
_MAX_STEP = 1100
_MAX_OPERATIONS = 1 << 21
_MAX_ENTRIES = MOST_FACTORS * MOST_ENTRIES
_INDEX_CODERS = (RAW, ZSTD, LZMA_TEXT, LZMA_SYMBOLS)


class Form(Protocol):
    """What an operation has to know of how an array is coded."""

    @property
    def kind(self) -> NumberType:
        """The type of its numbers."""

    @property
    def delta(self) -> bool:
        """Whether it reads the old file."""

    @property
    def factors(self) -> tuple[Factor, ...]:
        """Its tables over axes."""


F = TypeVar("F", bound=Form)


@dataclass(frozen=True, slots=True)
class Operation(Generic[F]):
    """Makes ``length`` bytes, from those at ``source`` of the old file if it reads them."""

    code: int
    length: int
    source: int = 0
    form: F | None = None

    @property
    def has_source(self) -> bool:
        """Whether it reads the old file."""
        return self.code in (COPY, ADD) or bool(self.form and self.form.delta)


@dataclass(frozen=True, slots=True)
class Index:
    """What a patch of version 2 consists of."""

    parts: tuple[StreamPart, ...]
    sets: tuple[NumberSet, ...]
    pcodec: bytes
    """The header that pcodec's files begin with."""

    operations: list[Operation[ArrayForm]]
    bodies: int
    """Where the parts' bytes begin in the patch."""

    part: StreamPart
    """The index itself."""

    columns: bool = False
    """Whether the operations make a file of columns, which is joined to the new file."""


def read_index(patch: memoryview) -> tuple[Header, Index]:
    """Read header and index of a patch of version 2; raise :class:`BadPatch`."""
    header = read_header(patch)
    numbers = Varints(patch, header.length)
    flags = numbers.bytes(1)[0]
    columns, coder = bool(flags & COLUMNS), flags & ~COLUMNS
    made = numbers.count(header.new_size, "bytes of columns") if columns else header.new_size
    size, stored = numbers.unsigned(), numbers.unsigned()
    # An operation makes at least one byte, and takes at most about ten bytes of the index.
    if coder not in _INDEX_CODERS or size > min(64 * (header.new_size + 64), MAX_INDEX):
        raise BadPatch(f"an index of {size} bytes for {header.new_size} bytes")
    part = StreamPart(0, coder, size, stored)
    content = StreamReader([(part, numbers.bytes(stored))], memoryview(b"")).read(size)
    index = _index(Varints(content), replace(header, new_size=made), part, numbers.at)
    groups = [each for found in index.sets for each in found.groups]
    if numbers.at + sum(each.stored for each in (*index.parts, *groups)) != len(patch):
        raise BadPatch("the patch is truncated, or something follows it")
    return header, replace(index, columns=columns)


def _index(numbers: Varints, header: Header, part: StreamPart, bodies: int) -> Index:
    parts = numbers.parts(header.old_size)
    sets = tuple(_set(numbers) for _ in range(numbers.count(_MAX_SETS, "number sets")))
    pcodec = bytes(numbers.bytes(numbers.count(16, "bytes of pcodec's header"))) if sets else b""
    operations = list(_operations(numbers, sets, header))
    _require_used(sets, operations)
    if numbers.left:
        raise BadPatch("the patch's index is longer than its operations")
    return Index(parts, sets, pcodec, operations, bodies, part)


def _require_used(sets: Sequence[NumberSet], operations: Sequence[Operation[ArrayForm]]) -> None:
    """Raise :class:`BadPatch` if sets have more numbers than arrays have elements.

    So what is decompressed and not yet used is never more than the new file.
    """
    elements = [0] * len(sets)
    for each in operations:
        if each.form:
            elements[each.form.set] += each.length // each.form.kind.size
    for of, most in zip(sets, elements, strict=True):
        declared = sum(part.size for part in of.groups)
        if declared > most:
            raise BadPatch(f"a set of {declared} numbers for {most} elements of arrays")


def _set(numbers: Varints) -> NumberSet:
    width = numbers.count(3, "as the width of numbers")
    groups, end, bounds = 1 + numbers.count(MOST_GROUPS - 1, "groups in a set"), 0, list[int]()
    for place in range(groups - 1):
        end += numbers.unsigned() + 1 if place else numbers.signed()
        if abs(end) > _MAX_SIZE:
            raise BadPatch(f"a group of numbers begins at a size of {end}")
        bounds.append(end)
    found = [
        StreamPart(0, numbers.bytes(1)[0], numbers.unsigned(), numbers.unsigned())
        for _ in range(groups)
    ]
    if any(each.coder not in (*_INDEX_CODERS, BZIP2, PCODEC) for each in found):
        raise BadPatch("a group of numbers has an unknown coder")
    return NumberSet(1 << width, tuple(bounds), tuple(found))


def _operations(
    numbers: Varints, sets: Sequence[NumberSet], header: Header
) -> Iterator[Operation[ArrayForm]]:
    codes, lengths = codes_and_lengths(numbers, header.new_size, MASKED)
    forms = [_form(numbers, sets, code == MASKED) if code >= ARRAY else None for code in codes]
    return placed(zip(codes, lengths, forms, strict=True), numbers, header.old_size)


def codes_and_lengths(numbers: Varints, new_size: int, last: int) -> tuple[bytes, list[int]]:
    """Read what operations there are; their lengths make ``new_size`` together."""
    codes = bytes(numbers.bytes(numbers.count(_MAX_OPERATIONS, "operations")))
    if codes and max(codes) > last:
        raise BadPatch(f"an operation of the patch is unknown ({max(codes)})")
    lengths = [numbers.unsigned() for _ in codes]
    if 0 in lengths or sum(lengths) != new_size:
        raise BadPatch(f"the patch makes {sum(lengths)} bytes and declares {new_size}")
    return codes, lengths


def placed(
    steps: Iterator[tuple[int, int, F | None]], numbers: Varints, old_size: int
) -> Iterator[Operation[F]]:
    """Yield operations with their sources, each of which is inside the old file."""
    end = 0
    for code, length, form in steps:
        if form and length % form.kind.size:
            raise BadPatch(f"an array of {length} bytes is not a whole number of {form.kind.name}")
        if form and any(each.size > length for each in form.factors):
            raise BadPatch(f"an array of {length} bytes has a table of more entries")
        if not Operation(code, length, 0, form).has_source:
            yield Operation(code, length, 0, form)
            continue
        source = end + numbers.signed()
        end = source + length
        if source < 0 or end > old_size:
            raise BadPatch(f"the patch reads bytes {source} to {end} of {old_size}")
        yield Operation(code, length, source, form)


def _form(numbers: Varints, sets: Sequence[NumberSet], masked: bool) -> ArrayForm:
    flags = numbers.bytes(1)[0]
    kind = KINDS[flags & 7]
    number = numbers.count(len(sets) - 1, "as the number set of an array")
    step = numbers.signed() if flags & STEPPED else None
    if flags & (SCALED | EXPONENTS | STEPPED) and not (kind.fraction and flags & DELTA):
        raise BadPatch("an array without differences of floats has a scale, a step or exponents")
    if masked and (flags & FACTORS or not flags & DELTA):
        raise BadPatch("a masked array has tables over axes, or no differences")
    if step is None and sets[number].size != kind.size:
        raise BadPatch(f"numbers of {sets[number].size} bytes are read as {kind.name}")
    if step is not None and (abs(step) > _MAX_STEP or flags & (SCALED | EXPONENTS)):
        raise BadPatch("an array with a step has exponents, a scale, or too large a step")
    base, scale, lowest, exponents = read_widths(
        numbers, kind, scaled=bool(flags & SCALED), table=bool(flags & EXPONENTS), most=_MAX_SIZE
    )
    return ArrayForm(
        kind=kind,
        set=number,
        delta=bool(flags & DELTA),
        step=step,
        scale=scale,
        base=base,
        lowest=lowest,
        exponents=exponents,
        factors=tuple(read_factors(numbers)) if flags & FACTORS else (),
    )


def read_widths(
    numbers: Varints, kind: NumberType, *, scaled: bool, table: bool, most: int
) -> tuple[int, float, int, int]:
    """Read the base, the scale, and the first exponent and the entries of a table of them."""
    if scaled and kind.scalar is None:
        raise BadPatch(f"{kind.name} cannot be scaled")
    scale, base = 1.0, numbers.signed()
    if scaled:
        scale = 1 + numbers.signed() / UNIT
        if not 0.5 <= scale <= 2.0:
            raise BadPatch(f"an array is scaled by {scale}; 0.5 to 2 is allowed")
    lowest, exponents = (numbers.unsigned(), numbers.unsigned()) if table else (0, 0)
    if abs(base) > most or lowest + exponents > kind.exponents:
        raise BadPatch(f"widths of an array are out of bounds ({base}, {lowest}, {exponents})")
    return base, scale, lowest, exponents


def read_factors(numbers: Varints) -> Iterator[Factor]:
    """Yield the tables over axes of an array."""
    left = _MAX_ENTRIES
    for _ in range(numbers.count(MOST_FACTORS, "tables of an array")):
        stride, size = numbers.unsigned(), numbers.unsigned()
        if not 0 < stride < 2**40 or not 0 < size <= left:
            raise BadPatch(f"a table of {size} entries and stride {stride}")
        left -= size
        yield Factor(stride, size)
