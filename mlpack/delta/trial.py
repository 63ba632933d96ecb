"""What ways of writing an array are compared on: a sample of it, and what each would take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlpack.delta.logs import Array, coded_bytes
from mlpack.runtime.patch.arrays import EXTRA, LAST, Kind, symbols_of
from mlpack.runtime.patch.law import Widths
from mlpack.runtime.patch.program import ArrayForm

SAMPLE = 1 << 15
"""Elements on which a choice is made, where an array has more."""

WHOLE = 1 << 20
"""Elements up to which tables over axes are tried: they are fitted to all of an array."""

CENTRE = {5: 10, 8: 60, 11: 60}
"""Where the usual exponent of floats that nothing predicts comes to lie, by bits of exponent."""

EVEN = np.ones(256)
"""Nothing is known of the symbols."""

_RESIDUALS: Array = np.rint(204.8 * 0.975 ** np.arange(256)) / 16 + 1 / 16
"""How often symbols of residuals are expected: the larger, the rarer; about 512 in all."""

_OCTAVES = (1, 24, 123, 148, 102, 56, 31, 15, 8, 4, 2, 1)
"""How often normal numbers have an exponent of three above the usual one, of two, and so on."""

OVERHEAD = 8
"""Bytes an array takes in the program."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A form and the entries (int8) of its tables; ``cost`` is estimated, in bytes."""

    form: ArrayForm
    tables: bytes
    cost: float


@dataclass(frozen=True, slots=True)
class Sample:
    """Elements of an array in whole: the old ones (zeros where there are none), and the new."""

    kind: Kind
    old: Array
    new: Array
    all_old: Array
    all_new: Array
    shape: tuple[int, ...]
    """Of the array, where the sample is all of it; else empty."""

    share: float
    """Elements of the array for each in the sample."""


def sample(
    kind: Kind, old: Array | None, new: Array, shape: tuple[int, ...], *, tables: bool
) -> Sample:
    """All of an array, where ``tables`` are wanted or it is small, else pieces of it."""
    count = len(new)
    # Where there is no old one, anything does.
    before = new if old is None else old
    if count <= SAMPLE or (tables and count <= WHOLE):
        return Sample(kind, before, new, before, new, shape, 1.0)
    piece = SAMPLE // 16
    starts = [(count - piece) * each // 15 for each in range(16)]
    held, taken = (
        np.concatenate([each[start : start + piece] for start in starts]) for each in (before, new)
    )
    return Sample(kind, held, taken, before, new, (), count / len(taken))


def expected_symbols(form: ArrayForm) -> Array:
    """How often each symbol is expected before any is seen."""
    if form.delta or not form.kind.fraction:
        return _RESIDUALS
    expected: Array = np.full(256, 1 / 16)
    first = 2 * CENTRE[form.kind.exponent] + 7
    for place, count in enumerate(_OCTAVES):
        expected[first - 2 * place - 1 : first - 2 * place + 1] += count / 2
    return expected


@dataclass(frozen=True, slots=True)
class Split:
    """Residuals as they are written: symbols (uint8), and how many bits of each are low."""

    symbols: Array
    low: Array
    shifted: Array
    """The residuals less the shift."""


def split(kind: Kind, residuals: Array, found: Widths) -> Split:
    """What is written of residuals."""
    shifted = residuals if found.shift is None else residuals - found.shift
    high = shifted >> found.low.astype(kind.unsigned)
    if not found.steep:
        symbols = np.minimum(high, kind.unsigned.type(LAST)).astype(np.uint8)
        return Split(symbols, found.low, shifted)
    symbols = symbols_of(high)
    return Split(symbols, found.low + EXTRA.take(symbols), shifted)


def written_bytes(of: Sample, form: ArrayForm, made: Split) -> float:
    """About what the whole array takes, if all of it is like the sample."""
    low = int(made.low.sum(dtype=np.int64)) // 8
    full = int((made.symbols == LAST).sum()) * of.kind.size
    return (low + full + coded_bytes(made.symbols, expected_symbols(form))) * of.share
