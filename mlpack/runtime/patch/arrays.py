"""Arrays of numbers as a patch codes them: as differences from old numbers, sorted by group.

Bits of floats are read as integers in the floats' order, so a small change of a number is a small
difference. How small depends on the number: a given change is many units in the last place of a
small number and few of a large one. So each element has an expected *size* in eighths of a bit: a
base, less the exponent of the old number, plus tables over exponents and axes. Elements of like
size are a *group*, and the numbers of each group are coded separately (numbers.py).

The encoder, ``mlpack.tensor_patch``, calls the same functions, so both sides compute the same
groups. All arithmetic is on integers except where a number is scaled or a step is added: single
operations that IEEE 754 rounds the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BLOCK = 1 << 17
"""Elements that are processed at once."""


@dataclass(frozen=True, slots=True)
class NumberType:
    """A type of numbers: its size in bytes, and for floats the bits of fraction and exponent."""

    name: str
    size: int
    fraction: int = 0
    exponent: int = 0
    scalar: Any = None
    """The numpy type that multiplies these numbers, if there is one."""

    @property
    def unsigned(self) -> np.dtype[Any]:
        """The numpy type of a number's bits."""
        return np.dtype(f"<u{self.size}")

    @property
    def signed(self) -> np.dtype[Any]:
        """The numpy type of differences."""
        return np.dtype(f"<i{self.size}")

    @property
    def bits(self) -> int:
        """The bits of one number."""
        return 8 * self.size

    @property
    def exponents(self) -> int:
        """How many values the exponent field has."""
        return 1 << self.exponent if self.exponent else 0


F16, BF16 = NumberType("f16", 2, 10, 5, np.float16), NumberType("bf16", 2, 7, 8)
F32, F64 = NumberType("f32", 4, 23, 8, np.float32), NumberType("f64", 8, 52, 11, np.float64)
I8, I16, I32, I64 = (NumberType(f"i{8 * size}", size) for size in (1, 2, 4, 8))
KINDS = (F16, BF16, F32, F64, I8, I16, I32, I64)


@dataclass(frozen=True, slots=True)
class Factor:
    """A table over one axis: element ``i`` takes entry ``i // stride % size``."""

    stride: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayForm:
    """How an array of numbers is coded (docs/reference/patch-format.md)."""

    kind: NumberType
    set: int = 0
    """The number set that has its numbers."""

    delta: bool = True
    """Whether it is the difference from an array of the old file."""

    step: int | None = None
    """If its numbers are multiples of a step that are added to the old ones: log2 of the step."""

    scale: float = 1.0
    """The factor for the old numbers."""

    base: int = 0
    """The expected size of an element, in eighths of a bit, before the tables are added."""

    lowest: int = 0
    """The exponent of the first entry in the table of exponents."""

    exponents: int = 0
    """Entries of that table; 0 if there is none."""

    factors: tuple[Factor, ...] = ()

    @property
    def entries(self) -> int:
        """Entries of all tables: the table of exponents, then one for each factor."""
        return self.exponents + sum(each.size for each in self.factors)

    @property
    def by_exponent(self) -> bool:
        """Whether sizes depend on the exponent of the old number."""
        return self.delta and self.step is None and self.kind.fraction > 0


def exponents(kind: NumberType, numbers: Array) -> Array:
    """Return the exponent field of each number; zeros for integers."""
    if not kind.fraction:
        return np.zeros(numbers.shape, np.uint8)
    shifted = numbers >> kind.unsigned.type(kind.fraction)
    if kind.exponent == 8:
        # The conversion drops the sign.
        cut: Array = shifted.astype(np.uint8)
        return cut
    made: Array = (shifted & kind.unsigned.type(kind.exponents - 1)).astype(np.uint16)
    return made


def scaled(kind: NumberType, numbers: Array, scale: float) -> Array:
    """Return ``numbers`` times ``scale``; those near zero or infinity are not changed."""
    if scale == 1.0:
        return numbers
    found = exponents(kind, numbers)
    with np.errstate(all="ignore"):
        product: Array = (numbers.view(kind.scalar) * kind.scalar(scale)).view(kind.unsigned)
    if len(found) and found.min() >= 2 and found.max() <= kind.exponents - 4:
        return product
    fitting: Array = np.where((found >= 2) & (found <= kind.exponents - 4), product, numbers)
    return fitting


def ordered(kind: NumberType, numbers: Array) -> Array:
    """Return the bits of floats as signed integers in the floats' order, and the other way round.

    Integers are not changed. Applied twice, it returns what it was given.
    """
    signed = numbers.view(kind.signed)
    if not kind.fraction:
        return signed
    flips = (signed >> (kind.bits - 1)).view(kind.unsigned) >> kind.unsigned.type(1)
    made: Array = signed ^ flips.view(kind.signed)
    return made


def mirrored(kind: NumberType, numbers: Array) -> Array:
    """Return the bits of floats as signed integers, each that of the float without its sign.

    So low bits that are zero stay zero. Minus zero is the smallest integer; integers are not
    changed. Applied twice, it returns what it was given.
    """
    signed = numbers.view(kind.signed)
    if not kind.fraction:
        return signed
    smallest = np.array(-1 << (kind.bits - 1), kind.signed)
    made: Array = np.where((signed < 0) & (signed != smallest), smallest - signed, signed)
    return made


def stepped(kind: NumberType, old: Array, multiples: Array, step: int) -> Array:
    """Return the bits of ``old + multiples * 2**step``, rounded once, to the nearest even.

    ``old`` are bits of floats, ``multiples`` integers of any size. f16 and bf16 are added as f32.
    A number does not change if its multiple is 0, so -0 and NaN stay.
    """
    wide = np.float64 if kind == F64 else np.float32
    with np.errstate(all="ignore"):
        moves = np.ldexp(multiples.astype(wide), np.int32(step))
        if kind == BF16:
            bits = ((old.astype(np.uint32) << 16).view(np.float32) + moves).view(np.uint32)
            made = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(kind.unsigned)
        else:
            made = (old.view(kind.scalar) + moves).astype(kind.scalar).view(kind.unsigned)
    found: Array = np.where(multiples == 0, old, made)
    return found


class Groups:
    """Sorts the elements of an array into the groups of a number set.

    ``bounds`` are the sizes (in eighths of a bit, ascending) at which a new group begins;
    ``entries`` are those of the array's tables (int8).
    """

    def __init__(self, form: ArrayForm, entries: bytes | memoryview, bounds: Array) -> None:
        table = np.frombuffer(entries, np.int8).astype(np.int16)
        sizes = np.full(form.kind.exponents if form.by_exponent else 1, form.base, np.int16)
        if form.by_exponent:
            sizes -= 8 * np.arange(len(sizes), dtype=np.int16)
            sizes[form.lowest : form.lowest + form.exponents] += table[: form.exponents]
        ends = np.cumsum([form.exponents, *(each.size for each in form.factors)])
        self._factors = [
            (each, table[end - each.size : end])
            for each, end in zip(form.factors, ends[1:], strict=True)
        ]
        self._sizes = sizes
        self._single = len(bounds) == 0 or (len(sizes) == 1 and not form.factors)
        self._group = self._first = 0
        if self._single:
            self._group = int(np.searchsorted(bounds, sizes[0], "right"))
        elif not form.factors:
            self._keys = np.searchsorted(bounds, sizes, "right").astype(np.uint8)
        else:
            self._first = int(bounds[0]) - 1
            steps = np.arange(self._first, int(bounds[-1]) + 1)
            self._keys = np.searchsorted(bounds, steps, "right").astype(np.uint8)

    @property
    def single(self) -> int | None:
        """The group of all elements, if they are of one."""
        return self._group if self._single else None

    def of(self, exponents: Array, first: int) -> Array:
        """Return the groups (uint8) of a block that begins with element ``first``."""
        if not self._factors:
            return self._keys.take(exponents)
        found = self.sizes(exponents, first)
        found -= np.int16(self._first)
        return self._keys.take(found, mode="clip")

    def sizes(self, exponents: Array, first: int) -> Array:
        """Return the expected sizes (int16, eighths of a bit) of such a block."""
        count = len(exponents)
        if len(self._sizes) > 1:
            found = self._sizes.take(exponents)
        else:
            found = np.full(count, self._sizes[0], np.int16)
        for factor, table in self._factors:
            found += _along(factor, table, first, count)
        return found


def _along(factor: Factor, table: Array, first: int, count: int) -> Array:
    """Return the entries for ``count`` elements from ``first`` on."""
    row, skipped = divmod(first, factor.stride)
    rows = (skipped + count - 1) // factor.stride + 1
    # Not mode="wrap", which subtracts the size until it fits.
    entries = table.take(np.arange(row % factor.size, row % factor.size + rows) % factor.size)
    if factor.stride == 1:
        return entries
    counts = np.full(rows, min(factor.stride, skipped + count), np.int64)
    counts[0] -= skipped
    counts[-1] -= counts.sum() - count
    return np.repeat(entries, counts)
