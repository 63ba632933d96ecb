"""How arrays of numbers are written: as symbols, low bits, and the rare number that is neither.

A number is predicted (by the old one, scaled; or by nothing), and the difference of the two,
as ordered integers, is a *residual*: non-negative, small where the prediction is good. Its
lowest bits look like noise and are stored as they are; what is above them is its *symbol*, a
byte, which compresses. How many bits are low follows from the prediction, in eighths of a bit:
a base, less the prediction's exponent (a change of some size is many units in the last place
of a small number and few of a large one), plus tables over exponents and axes. Symbols from 64
on are steps of a thirty-second of a power of two, so that rare large residuals fit, too; the
larger the step, the more bits are low.

The encoder (``mlpack.delta``) calls the same functions, so both sides compute the same widths.
All arithmetic is on integers, but for the scale: one multiplication, which IEEE 754 rounds the
same everywhere, of numbers whose product is no subnormal one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BLOCK = 65536
"""Elements that are worked on at once; the low bits of each block begin with a byte."""

LAST = 255
"""The symbol that says: the residual is written in full."""

_DIRECT = 64
_STEPS = 32
_STEEP = 6
"""Powers of two that symbols reach above those that are numbers themselves."""

EXTRA = np.array([0] * _DIRECT + [1 + each // _STEPS for each in range(192)], np.uint8)
"""How many more bits are low, by symbol."""

HEAD = np.array([*range(_DIRECT)] + [_STEPS + each % _STEPS for each in range(192)], np.uint8)
"""What is above the low bits, by symbol."""

_SYMBOLS = np.full(1 << 12, LAST, np.uint8)
"""The symbol of each number that has one."""
for _each in range(LAST):
    _bits = int(EXTRA[_each])
    _SYMBOLS[int(HEAD[_each]) << _bits : (int(HEAD[_each]) + 1) << _bits] = _each


def symbols_of(high: Array) -> Array:
    """The symbols (uint8) of residuals less their low bits."""
    found: Array = _SYMBOLS.take(np.minimum(high, high.dtype.type(len(_SYMBOLS) - 1)))
    return found


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of numbers: bytes of one, and for floats the bits of its fraction and exponent."""

    name: str
    size: int
    fraction: int = 0
    exponent: int = 0
    scalar: Any = None
    """numpy's type, where it multiplies as the kind does."""

    @property
    def unsigned(self) -> np.dtype[Any]:
        """The bits of one number."""
        return np.dtype(f"<u{self.size}")

    @property
    def bits(self) -> int:
        """Bits of one number."""
        return 8 * self.size

    @property
    def widest(self) -> int:
        """The most bits that are low before those of the symbol: eight of a number are not."""
        # A word of four bytes holds 25 bits that begin anywhere in a byte, one of eight 57.
        return {1: 0, 2: 8, 4: 25 - _STEEP, 8: 57 - _STEEP}[self.size]

    @property
    def exponents(self) -> int:
        """How many exponents there are."""
        return 1 << self.exponent if self.exponent else 0


F16, BF16 = Kind("f16", 2, 10, 5, np.float16), Kind("bf16", 2, 7, 8)
F32, F64 = Kind("f32", 4, 23, 8, np.float32), Kind("f64", 8, 52, 11, np.float64)
I8, I16, I32, I64 = Kind("i8", 1), Kind("i16", 2), Kind("i32", 4), Kind("i64", 8)
KINDS = (F16, BF16, F32, F64, I8, I16, I32, I64)


def exponents(kind: Kind, numbers: Array) -> Array:
    """The exponent field of each number; zeros where the kind has none."""
    if not kind.fraction:
        return np.zeros(numbers.shape, np.uint8)
    shifted = numbers >> kind.unsigned.type(kind.fraction)
    if kind.exponent == 8:
        # Cut off with the sign.
        cut: Array = shifted.astype(np.uint8)
        return cut
    made: Array = (shifted & kind.unsigned.type(kind.exponents - 1)).astype(np.uint16)
    return made


def scaled(kind: Kind, numbers: Array, scale: float) -> Array:
    """``numbers`` multiplied; those near zero or infinity are left as they are."""
    if scale == 1.0:
        return numbers
    found = exponents(kind, numbers)
    fit = (found >= 2) & (found <= kind.exponents - 4)
    values = np.where(fit, numbers, kind.unsigned.type(0)).view(kind.scalar)
    product = values * kind.scalar(scale)
    return np.where(fit, product.view(kind.unsigned), numbers)


def ordered(kind: Kind, numbers: Array) -> Array:
    """The bits of floats as integers in the floats' order; those of integers as they are."""
    if not kind.fraction:
        return numbers
    negative = numbers >> kind.unsigned.type(kind.bits - 1)
    made: Array = numbers ^ (_all_ones(kind, negative) | kind.unsigned.type(1 << (kind.bits - 1)))
    return made


def unordered(kind: Kind, keys: Array) -> Array:
    """The opposite of :func:`ordered`."""
    if not kind.fraction:
        return keys
    positive = keys >> kind.unsigned.type(kind.bits - 1)
    flips = ~_all_ones(kind, positive) | kind.unsigned.type(1 << (kind.bits - 1))
    made: Array = keys ^ flips
    return made


def folded(kind: Kind, differences: Array) -> Array:
    """Differences modulo 2**bits with the sign as the lowest bit: small ones are small numbers."""
    negative = differences >> kind.unsigned.type(kind.bits - 1)
    made: Array = (differences << kind.unsigned.type(1)) ^ _all_ones(kind, negative)
    return made


def unfolded(kind: Kind, residuals: Array) -> Array:
    """The opposite of :func:`folded`."""
    one = kind.unsigned.type(1)
    made: Array = (residuals >> one) ^ _all_ones(kind, residuals & one)
    return made


def turned(kind: Kind, numbers: Array) -> Array:
    """Floats with their sign as the lowest bit; integers :func:`folded`."""
    if not kind.fraction:
        return folded(kind, numbers)
    one, rest = kind.unsigned.type(1), kind.unsigned.type(kind.bits - 1)
    made: Array = (numbers << one) | (numbers >> rest)
    return made


def unturned(kind: Kind, residuals: Array) -> Array:
    """The opposite of :func:`turned`."""
    if not kind.fraction:
        return unfolded(kind, residuals)
    one, rest = kind.unsigned.type(1), kind.unsigned.type(kind.bits - 1)
    made: Array = (residuals >> one) | (residuals << rest)
    return made


def _all_ones(kind: Kind, bit: Array) -> Array:
    made: Array = kind.unsigned.type(0) - bit
    return made


def unpack_low(kind: Kind, stored: memoryview, widths: Array) -> Array:
    """The low bits of each element: ``widths`` bits each, from the lowest bit of a byte up."""
    word = np.dtype("<u8" if kind.size == 8 else "<u4")
    ends = np.cumsum(widths, dtype=np.int64)
    starts = ends - widths
    padded = np.frombuffer(bytes(stored) + bytes(word.itemsize), np.uint8)
    windows = np.lib.stride_tricks.as_strided(
        padded[: word.itemsize].view(word), (len(padded) - word.itemsize + 1,), (1,)
    )
    # take(), since indexing with brackets is six times as slow where words are not aligned.
    found = windows.take(starts >> 3) >> (starts & 7).astype(word)
    masks = (word.type(1) << widths.astype(word)) - word.type(1)
    made: Array = (found & masks).astype(kind.unsigned)
    return made


def low_bytes(widths: Array) -> int:
    """Bytes that the low bits of a block take."""
    return (int(widths.sum(dtype=np.int64)) + 7) >> 3
