"""Differences that are multiples of a step: those of a model that was rounded to what it was."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlpack.delta.logs import STEPS, Array, log2
from mlpack.delta.trial import OVERHEAD, Fit, Sample, split, written_bytes
from mlpack.runtime.patch.arrays import BLOCK, Kind, exponents, folded, ordered
from mlpack.runtime.patch.law import Law, Widths
from mlpack.runtime.patch.program import ArrayForm


def rounded_fits(of: Sample) -> Iterator[Fit]:
    """The differences as multiples of one step, where they are (those of a rounded model)."""
    kind = of.kind
    step = _step(kind, of.old, of.new)
    if step is not None and of.all_new is not of.new:
        # What holds for a sample may not for all.
        step = _step(kind, of.all_old, of.all_new)
    if step is None:
        return
    form = ArrayForm(kind=kind, rounded=True, base=8 * step)
    found = Law(form, b"").widths(exponents(kind, of.old), np.zeros(0), 1)
    if int(found.low.sum(dtype=np.int64)) < len(of.old):
        return
    differences = ordered(kind, of.new) - ordered(kind, of.old)
    made = split(kind, rounded_residuals(kind, differences, found), found.none_low())
    yield Fit(form, b"", written_bytes(of, form, made) + OVERHEAD)


def _step(kind: Kind, old: Array, new: Array) -> int | None:
    """The largest step, as a power of two, of which all differences are multiples.

    It is the same for all numbers, so fewer units in the last place of larger ones.
    """
    least = None
    for first in range(0, len(new), BLOCK):
        before = old[first : first + BLOCK]
        differences = ordered(kind, new[first : first + BLOCK]) - ordered(kind, before)
        lowest = differences & (kind.unsigned.type(0) - differences)
        # As many zeros as an array may leave out are enough.
        tells = (lowest > 0) & (lowest < kind.unsigned.type(1 << kind.widest))
        steps = log2(lowest[tells]) // STEPS + exponents(kind, before)[tells]
        if len(steps):
            least = min(int(steps.min()), least) if least is not None else int(steps.min())
    return least


def rounded_residuals(kind: Kind, differences: Array, found: Widths) -> Array:
    """The multiples of two to the power of their widths that differences are."""
    # The shift keeps the sign: numpy's of signed integers does.
    signed = differences.view(f"<i{kind.size}") >> found.low.astype(f"<i{kind.size}")
    return folded(kind, signed.view(kind.unsigned))
