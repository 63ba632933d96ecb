"""Choosing how an array is written: what predicts it, and how wide its low bits are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlpack.delta.logs import STEPS, Array, coded_bytes, log2, whole
from mlpack.delta.steps import rounded_fits
from mlpack.delta.trial import CENTRE, EVEN, OVERHEAD, Fit, Sample, split, written_bytes
from mlpack.runtime.patch.arrays import Kind, exponents, folded, ordered, scaled, turned
from mlpack.runtime.patch.law import Law
from mlpack.runtime.patch.program import UNIT, ArrayForm, Factor

_EXPECTED = 4
"""Bits of the usual residual that are in its symbol: those from 32 to 64 are usual."""

_PER_ENTRY = 0.7
"""Bytes that an entry of a table takes, compressed."""

_SCALE = 3
"""Bytes a scale takes."""


def best_fit(of: Sample, *, paired: bool, tables: bool, usual: float = 1.0) -> Fit:
    """The cheapest law for an array.

    ``tables`` allows those over axes; ``usual`` is the scale of the array before this one,
    since weights that decay do so alike, and a scale that was there before takes no bytes.
    """
    fits = [_plain(of, tables)]
    if paired:
        fits += _deltas(of, tables, usual)
    return min(fits, key=_cost)


def _deltas(of: Sample, tables: bool, usual: float) -> Iterator[Fit]:
    changed = np.flatnonzero(of.old != of.new)
    share = len(changed) / max(len(of.new), 1)
    if share > 0.3:
        scales = {1.0: 0, usual if of.kind.scalar else 1.0: 0}
        if share > 0.5:
            scales.setdefault(_scale(of.kind, of.old, of.new), _SCALE)
        for scale, taken in scales.items():
            found = _delta(of, scale, tables)
            yield replace(found, cost=found.cost + taken)
    if len(changed):
        yield from rounded_fits(of)
    if share < 0.7:
        part = replace(of, old=of.old[changed], new=of.new[changed], shape=())
        found = _delta(part, 1.0, tables=False)
        mask = coded_bytes(np.packbits(of.old != of.new), EVEN) * of.share
        masked = replace(found.form, masked=True)
        yield Fit(masked, found.tables, found.cost + mask)


def _delta(of: Sample, scale: float, tables: bool) -> Fit:
    kind = of.kind
    predicted = scaled(kind, of.old, scale)
    residuals = folded(kind, ordered(kind, of.new) - ordered(kind, predicted))
    found = exponents(kind, predicted)
    # Half of it is the size of the difference; 0.3 stands for none.
    sizes = log2(residuals * 0.5 + 0.3) + found.astype(np.int64) * STEPS
    form = ArrayForm(kind=kind, delta=True, scale=scale)
    return _fitted(of, form, residuals, found, sizes, _EXPECTED, tables)


def _plain(of: Sample, tables: bool) -> Fit:
    kind = of.kind
    residuals = turned(kind, of.new)
    form = ArrayForm(kind=kind, delta=False)
    if not kind.fraction:
        sizes = log2(residuals * 0.5 + 0.3)
        return _fitted(of, form, residuals, exponents(kind, of.new), sizes, _EXPECTED, tables)
    # The exponent and the fraction after it are, as one number, nearly the logarithm.
    sizes = (residuals >> kind.unsigned.type(kind.fraction - 7)).astype(np.int64)
    centre = CENTRE[kind.exponent]
    return _fitted(of, form, residuals, np.zeros(len(sizes), np.uint8), sizes, centre, tables)


def _fitted(
    of: Sample,
    form: ArrayForm,
    residuals: Array,
    found: Array,
    sizes: Array,
    expected: int,
    tables: bool,
) -> Fit:
    """The cheapest of the laws without tables, with one of exponents, and with those of axes."""
    if not len(sizes):
        return Fit(form, b"", OVERHEAD)
    tried = _Tried(of, form, residuals, found)
    mean = int(sizes.sum()) // len(sizes)
    base = _eighths(mean) - 8 * expected
    best = tried.fit(base, (), np.zeros(0, np.int64), 0)
    over = sizes - mean
    if tables and of.shape:
        axes = list(_axes(of.shape, over))
        if axes:
            factors, entries = [axis for axis, _ in axes], [entry for _, entry in axes]
            best = min(best, tried.fit(base, factors, np.concatenate(entries), 0), key=_cost)
    if form.delta and form.kind.fraction and len(sizes) >= 64:
        best = min(best, _with_exponents(tried, best, base, over, found), key=_cost)
    return min([best, *(tried.moved(best, each) for each in (-8, 8))], key=_cost)


def _cost(fit: Fit) -> float:
    return fit.cost


def _eighths(size: int) -> int:
    return (size * 8 + STEPS // 2) // STEPS


def _with_exponents(tried: _Tried, best: Fit, base: int, over: Array, found: Array) -> Fit:
    """``best``, and a table of what residuals of each exponent are beside the usual ones."""
    counts = np.bincount(found)
    sums = _sums(found, over, len(counts))
    common = np.flatnonzero(counts >= 16)
    if not len(common):
        return best
    lowest, beyond = int(common[0]), int(common[-1]) + 1
    entries = _entries(sums, counts)
    entries[counts < 16] = 0
    table = entries[lowest:beyond]
    axes = np.frombuffer(best.tables, np.int8).astype(np.int64)
    return tried.fit(base, best.form.factors, np.concatenate([table, axes]), lowest, len(table))


def _axes(shape: Sequence[int], over: Array) -> Iterator[tuple[Factor, Array]]:
    """A table for each axis along which sizes differ by more than the table costs."""
    stride = over.size
    for size in shape:
        stride //= size
        count = over.size // size
        if size < 2 or count < 8:
            continue
        where = np.arange(over.size) // stride % size
        sums = _sums(where, over, size)
        entries = _entries(sums, np.full(size, count))
        # What a better fitting width saves is about half the square of the misfit, in bits.
        saved = float((entries**2).sum()) / 64 * count / 16
        if saved > size * _PER_ENTRY:
            yield Factor(stride, size), entries


def _sums(where: Array, values: Array, size: int) -> Array:
    """Sums of integers by group. Exact: below 2**53 floats are integers."""
    return np.bincount(where, weights=values, minlength=size).astype(np.int64)


def _entries(sums: Array, counts: Array) -> Array:
    """Means in eighths of a bit, drawn towards zero where there are few."""
    means = sums * 8 // (STEPS * (counts.astype(np.int64) + 4))
    return np.clip(means, -128, 127)


@dataclass(frozen=True, slots=True)
class _Tried:
    """What the laws of one array are compared on."""

    of: Sample
    form: ArrayForm
    residuals: Array
    found: Array

    def fit(
        self, base: int, factors: Sequence[Factor], entries: Array, lowest: int, count: int = 0
    ) -> Fit:
        """The law of this base and these tables: one of exponents, then one for each factor."""
        form = replace(self.form, base=base, factors=tuple(factors), lowest=lowest, exponents=count)
        tables = entries.astype(np.int8).tobytes()
        found = Law(form, tables).widths(self.found, np.arange(len(self.residuals)), 1)
        made = split(form.kind, self.residuals, found)
        data = written_bytes(self.of, form, made)
        return Fit(form, tables, data + len(entries) * _PER_ENTRY + OVERHEAD)

    def moved(self, fit: Fit, eighths: int) -> Fit:
        """``fit`` with another base."""
        form, entries = fit.form, np.frombuffer(fit.tables, np.int8)
        return self.fit(form.base + eighths, form.factors, entries, form.lowest, form.exponents)


def _scale(kind: Kind, old: Array, new: Array) -> float:
    """By what the old numbers best are multiplied (least squares), near 1; 1 for integers."""
    if kind.scalar is None or len(old) < 64:
        return 1.0
    with np.errstate(invalid="ignore"):
        before, after = old.view(kind.scalar), new.view(kind.scalar)
        fit = np.isfinite(before) & np.isfinite(after)
        pair = whole(np.concatenate([before[fit], after[fit]]).astype(np.float64))
    first, second = pair[: len(pair) // 2], pair[len(pair) // 2 :]
    squares = int((first * first).sum())
    scale = 1 + round((int((first * second).sum()) / squares - 1) * UNIT) / UNIT if squares else 1.0
    return scale if 0.5 < scale < 2.0 else 1.0
