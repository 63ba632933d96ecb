"""Estimates how many bytes numbers take, from logarithms and counts.

Both are integers, which are the same on every processor: patch bytes depend on them, and numpy's
``log2`` and float sums differ in the last bit between instruction sets.
"""

from __future__ import annotations

import math

import numpy as np

from mlpack.runtime.patch.arrays import Array, NumberType

STEPS = 256
"""Logarithms are in these parts of a bit."""

_TABLE = np.array([round(math.log2(1 + each / 256) * STEPS) for each in range(256)], np.int64)

_FINE = 3
"""Bits of a number below its first that a symbol of the estimate has."""

_PER_SYMBOL = 20
"""Bits that describe one symbol of a group."""

_FEW = 256
"""Elements up to which counts say little."""

_SPREAD = 5 * STEPS // 2
"""Bits of a usual difference above its logarithm."""


def log2(values: Array) -> Array:
    """Return the logarithms of positive numbers, in 1/256 of a bit, as int64."""
    bits = values.astype(np.float64).view(np.int64)
    found: Array = ((bits >> 52) - 1023) * STEPS + _TABLE[(bits >> 44) & 255]
    return found


def sizes_of(kind: NumberType, values: Array, *, delta: bool) -> Array:
    """Return about the logarithms of differences, or of floats themselves, as int32 in 1/256 bit.

    The exponent and the fraction of a float are, as one number, nearly its logarithm.
    """
    if delta or not kind.fraction:
        lengths = np.abs(values.astype(np.float32)) + np.float32(0.3)
        found: Array = (lengths.view(np.int32) >> 15) - (127 << 8)
        return found
    magnitude = np.abs(values) & np.iinfo(values.dtype).max
    if kind.size == 2:
        magnitude = magnitude.astype(np.int32) << 8
    return (magnitude >> (kind.fraction - (8 if kind.size > 2 else 0))).astype(np.int32)


def low_zeros(values: Array) -> int:
    """Return how many of the lowest bits are zero in nearly all numbers: floats were narrower."""
    some = values[:: max(len(values) >> 14, 1) | 1]
    some = some[some != 0]
    if not len(some):
        return 0
    zeros = np.frexp(np.abs((some & -some).astype(np.float64)))[1] - 1
    rare = len(zeros) // 50
    return int(np.partition(zeros, rare)[rare])


def number_bytes(kind: NumberType, values: Array, groups: Array, *, delta: bool) -> int:
    """Return about how many bytes signed ``values`` take, coded separately by group (uint8)."""
    count = len(values)
    centred = bool(kind.fraction) and not delta
    if count <= _FEW:
        if centred:
            return count * (kind.fraction + 4) >> 3
        return int(sizes_of(kind, values, delta=True).sum(dtype=np.int64) + count * _SPREAD) // (
            8 * STEPS
        )
    if centred:
        rest = max(kind.fraction - 2, 0)
        most = 1 << (kind.exponent + 3)
        symbols = (values >> rest) & (most - 1)
        extra = count * max(rest - low_zeros(values), 0)
    else:
        most = 1 << 10
        bits = np.abs(values.astype(np.float64)).view(np.int64) >> (52 - _FINE)
        symbols = np.maximum(bits - (1022 << _FINE), 0)
        extra = int(np.maximum((symbols >> _FINE) - _FINE, np.sign(symbols)).sum())
    joint = (groups - groups.min()).astype(np.int64) * most + symbols.astype(np.int64)
    counts = np.bincount(joint)
    by_group = np.add.reduceat(counts, np.arange(0, len(counts), most))
    counts, totals = counts[counts > 0], by_group[by_group > 0]
    entropy = int((totals * log2(totals)).sum() - (counts * log2(counts)).sum()) // STEPS
    return (entropy + extra + _PER_SYMBOL * min(len(counts), count // 8)) >> 3


def whole(values: Array) -> Array:
    """Scale floats to integers of at most 16 bits, so that their sums are exact."""
    largest = float(np.abs(values).max(initial=0.0))
    if not 0.0 < largest < math.inf:
        return np.zeros(values.shape, np.int64)
    exponent = math.frexp(largest)[1]
    return np.rint(np.ldexp(values.astype(np.float64), 15 - exponent)).astype(np.int64)


def spread(values: Array, count: int, pieces: int) -> Array:
    """Return ``count`` of the values, in pieces over their whole length; all if there are fewer."""
    if len(values) <= count:
        return values
    piece = count // pieces
    starts = [(len(values) - piece) * each // (pieces - 1) for each in range(pieces)]
    return np.concatenate([values[start : start + piece] for start in starts])
