"""Differences that are multiples of a step: what rounding leaves, and how it is recognised."""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import partial

import numpy as np

from mlpack.runtime.patch.arrays import BF16, Array, NumberType, exponents, stepped

LARGEST = (1 << 24) - 1
"""The largest multiple of a step: float32 has all whole numbers up to it."""

STEPS = range(-100, 101)
"""Powers of two that are steps; with these no sum is subnormal, unless it is the old number."""

_SAMPLED = 512
"""Changed numbers that are looked at first."""


def values(kind: NumberType, bits: Array) -> Array:
    """Return floats, given by their bits, as float64."""
    floats = (bits.astype("<u4") << np.uint32(16)).view("<f4") if kind == BF16 else bits
    # numpy warns when a signalling NaN becomes a quiet one.
    with np.errstate(invalid="ignore"):
        found: Array = floats.view(kind.scalar or "<f4").astype(np.float64)
    return found


def steps(kind: NumberType, old: Array, new: Array, step: int) -> Array:
    """Return the differences in multiples of ``2**step`` (int32), rounded to the nearest.

    It is 0 if a number or the difference is not finite, or a multiple exceeds :data:`LARGEST`.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        moved = values(kind, new) - values(kind, old)
        found = np.rint(moved * 2.0**-step)
        made: Array = np.where(np.abs(found) <= LARGEST, found, 0.0).astype(np.int32)
    return made


def rounding_step(kind: NumberType, old: Array, new: Array) -> int | None:
    """Return the largest step of which all differences of two arrays (bits) are multiples.

    ``stepped(kind, old, steps(kind, old, new, step), step)`` is ``new``. ``None`` if there is no
    such step, or only one below the last place of most numbers, which saves nothing.
    """
    changed = np.flatnonzero(old != new) if kind.fraction else np.zeros(0, np.int64)
    if not len(changed):
        return None
    few = changed[:: -(-len(changed) // _SAMPLED)]
    with np.errstate(invalid="ignore", over="ignore"):
        moved = np.abs(values(kind, new[few]) - values(kind, old[few]))
    places = int(np.median(exponents(kind, new[few]))) - kind.exponents // 2 + 1 - kind.fraction
    least, most = (math.frexp(float(each))[1] for each in (moved.min(), moved.max()))
    # What is a multiple of a step is one of half that step.
    tried = range(max(places + 1, most - 24, STEPS[0]), min(least + 1, STEPS[-1]) + 1)
    found = None
    for sampled in (few, changed):
        before, after = old[sampled], new[sampled]
        fits = partial(_fits, kind, before, after)
        found = bisect_left(tried, True, key=lambda step: not fits(step))
        if not found:
            return None
        tried = tried[:found]
    return tried[-1]


def _fits(kind: NumberType, old: Array, new: Array, step: int) -> bool:
    made = stepped(kind, old, steps(kind, old, new, step), step)
    return np.array_equal(made, new)
