"""Logarithms and sums that every processor computes alike, because patch bytes depend on them.

numpy's ``log2`` and float sums differ in the last bit between instruction sets; what decides
how a patch is written is computed in integers here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

STEPS = 256
"""Parts of a bit in which logarithms are given."""

_TABLE = np.array([round(math.log2(1 + each / 256) * STEPS) for each in range(256)], np.int64)


def log2(values: Array) -> Array:
    """The logarithms of positive numbers, in 1/256 of a bit, as int64."""
    bits = values.astype(np.float64).view(np.int64)
    found: Array = ((bits >> 52) - 1023) * STEPS + _TABLE[(bits >> 44) & 255]
    return found


def coded_bytes(symbols: Array, prior: Array) -> int:
    """Bytes that symbols (uint8) take, each written independently of the others.

    ``prior`` (256 counts) is what the coder expects before it has seen any. Without it, arrays
    of few elements would seem to take little whatever they hold.
    """
    counts = np.bincount(symbols, minlength=256)
    seen = counts > 0
    total = np.array([len(symbols) + prior.sum()])
    bits = counts[seen] * (log2(total) - log2(counts[seen] + prior[seen]))
    return int(bits.sum()) // (8 * STEPS)


def whole(values: Array) -> Array:
    """Floats as integers of 16 bits, the largest of them the largest: for sums that are exact."""
    largest = float(np.abs(values).max(initial=0.0))
    if not 0.0 < largest < math.inf:
        return np.zeros(values.shape, np.int64)
    exponent = math.frexp(largest)[1]
    return np.rint(np.ldexp(values.astype(np.float64), 15 - exponent)).astype(np.int64)
