"""What a patch does, in the order of the new file: copy, literal bytes, bytes added, arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .arrays import KINDS, Kind
from .container import BadPatch, Varints

COPY, LITERAL, ADD, ARRAY, ROUNDED = range(5)
"""Bytes of the old file; bytes of the patch; both added modulo 256; numbers (arrays.py), and
those whose differences to the old ones are multiples of two to the power of their width."""

DELTA, SCALED, EXPONENTS, MASKED, FACTORS = 8, 16, 32, 64, 128
"""Flags of an array, in one byte with its kind."""

_MAX_FACTORS = 8
UNIT = 1 << 20
"""Scales are one and so many parts of this."""


@dataclass(frozen=True, slots=True)
class Factor:
    """A table over one axis: element ``i`` takes entry ``i // stride % size``."""

    stride: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayForm:
    """How an array of numbers is written (docs/patch-format.md says what each is for)."""

    kind: Kind
    delta: bool = True
    """Whether it is the difference to an array of the old file."""

    rounded: bool = False
    """Whether its differences have zeros where others have low bits, which are left out."""

    masked: bool = False
    """Whether only elements that differ are written, and a bit for each says which."""

    scale: float = 1.0
    """What the old numbers are multiplied with first."""

    base: int = 0
    """The width of an element's low bits, in eighths of a bit, before the tables."""

    lowest: int = 0
    """The exponent of the first entry of the table of exponents."""

    exponents: int = 0
    """Entries of that table; 0 where there is none."""

    factors: tuple[Factor, ...] = ()

    @property
    def entries(self) -> int:
        """Entries of all its tables: that of exponents, then one table for each factor."""
        return self.exponents + sum(each.size for each in self.factors)


@dataclass(frozen=True, slots=True)
class Operation:
    """One step: it makes ``length`` bytes, of the old file's at ``source`` where it reads those."""

    code: int
    length: int
    source: int = 0
    form: ArrayForm | None = None

    @property
    def has_source(self) -> bool:
        """Whether it reads the old file."""
        return self.code in (COPY, ADD) or bool(self.form and self.form.delta)


def read_program(content: memoryview, old_size: int, new_size: int) -> list[Operation]:
    """The operations; each is within the old file, and together they make ``new_size`` bytes.

    Raises :class:`BadPatch`.
    """
    numbers = Varints(content)
    count = numbers.unsigned()
    codes = bytes(numbers.bytes(count))
    if codes and max(codes) > ROUNDED:
        raise BadPatch(f"an operation of the patch is unknown ({max(codes)})")
    lengths = [numbers.unsigned() for _ in codes]
    if 0 in lengths or sum(lengths) != new_size:
        raise BadPatch(f"the patch makes {sum(lengths)} bytes and declares {new_size}")
    forms = [_form(numbers, code == ROUNDED) if code >= ARRAY else None for code in codes]
    made = list(_placed(zip(codes, lengths, forms, strict=True), numbers, old_size))
    if numbers.at != len(content):
        raise BadPatch("the patch's program is longer than its operations")
    return made


def _placed(
    steps: Iterator[tuple[int, int, ArrayForm | None]], numbers: Varints, old_size: int
) -> Iterator[Operation]:
    end = 0
    for code, length, form in steps:
        if form and length % form.kind.size:
            raise BadPatch(f"an array of {length} bytes has no whole number of {form.kind.name}")
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


def _form(numbers: Varints, rounded: bool) -> ArrayForm:
    flags = numbers.bytes(1)[0]
    kind = KINDS[flags & 7]
    if rounded and not flags & DELTA:
        raise BadPatch("an array is rounded and no difference")
    if flags & (SCALED | EXPONENTS) and not kind.fraction:
        raise BadPatch(f"{kind.name} has no exponents")
    if flags & SCALED and kind.scalar is None:
        raise BadPatch(f"{kind.name} cannot be scaled")
    scale = 1.0
    base = numbers.signed()
    if flags & SCALED:
        scale = 1 + numbers.signed() / UNIT
        if not 0.5 <= scale <= 2.0:
            raise BadPatch(f"an array is scaled by {scale}; 0.5 to 2 is allowed")
    lowest = exponents = 0
    if flags & EXPONENTS:
        lowest, exponents = numbers.unsigned(), numbers.unsigned()
    if abs(base) > 2**20 or lowest + exponents > kind.exponents:
        raise BadPatch(f"widths of an array are out of bounds ({base}, {lowest}, {exponents})")
    return ArrayForm(
        kind=kind,
        delta=bool(flags & DELTA),
        rounded=rounded,
        masked=bool(flags & MASKED),
        scale=scale,
        base=base,
        lowest=lowest,
        exponents=exponents,
        factors=tuple(_factors(numbers)) if flags & FACTORS else (),
    )


def _factors(numbers: Varints) -> Iterator[Factor]:
    count = numbers.unsigned()
    if count > _MAX_FACTORS:
        raise BadPatch(f"an array has {count} tables, {_MAX_FACTORS} is the most")
    for _ in range(count):
        stride, size = numbers.unsigned(), numbers.unsigned()
        if not 0 < stride < 2**40 or not 0 < size < 2**32:
            raise BadPatch(f"a table of {size} entries and stride {stride}")
        yield Factor(stride, size)
