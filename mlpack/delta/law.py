"""Choosing how an array is written: what predicts it, and how wide its low bits are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlpack.delta.logs import STEPS, Array, coded_bytes, log2, whole
from mlpack.runtime.patch.arrays import (
    BLOCK,
    EXTRA,
    LAST,
    Kind,
    exponents,
    folded,
    ordered,
    scaled,
    symbols_of,
    turned,
)
from mlpack.runtime.patch.law import Law, Widths
from mlpack.runtime.patch.program import UNIT, ArrayForm, Factor

SAMPLE = 1 << 15
"""Elements on which a choice is made, where an array has more."""

WHOLE = 1 << 20
"""Elements up to which tables over axes are tried: they are fitted to all of an array."""

_EXPECTED = 4
"""Bits of the usual residual that are in its symbol: those from 32 to 64 are usual."""

_CENTRE = {5: 10, 8: 60, 11: 60}
"""Where the usual exponent of floats that nothing predicts comes to lie, by bits of exponent."""

_EVEN = np.ones(256)
_RESIDUALS: Array = np.rint(204.8 * 0.975 ** np.arange(256)) / 16 + 1 / 16
"""How often symbols of residuals are expected: the larger, the rarer; about 512 in all."""

_OCTAVES = (1, 24, 123, 148, 102, 56, 31, 15, 8, 4, 2, 1)
"""How often normal numbers have an exponent of three above the usual one, of two, and so on."""

_PER_ENTRY = 0.7
"""Bytes that an entry of a table takes, compressed."""

_SCALE = 3
"""Bytes a scale takes."""

_OVERHEAD = 8
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


def _prior(form: ArrayForm) -> Array:
    """What symbols are expected."""
    if form.delta or not form.kind.fraction:
        return _RESIDUALS
    expected: Array = np.full(256, 1 / 16)
    first = 2 * _CENTRE[form.kind.exponent] + 7
    for place, count in enumerate(_OCTAVES):
        expected[first - 2 * place - 1 : first - 2 * place + 1] += count / 2
    return expected


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
        yield from _rounded(of)
    if share < 0.7:
        part = replace(of, old=of.old[changed], new=of.new[changed], shape=())
        found = _delta(part, 1.0, tables=False)
        mask = coded_bytes(np.packbits(of.old != of.new), _EVEN) * of.share
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


def _rounded(of: Sample) -> Iterator[Fit]:
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
    low = int(made.low.sum(dtype=np.int64)) // 8
    full = int((made.symbols == LAST).sum()) * kind.size
    data = (low + full + coded_bytes(made.symbols, _RESIDUALS)) * of.share
    yield Fit(form, b"", data + _OVERHEAD)


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


def _plain(of: Sample, tables: bool) -> Fit:
    kind = of.kind
    residuals = turned(kind, of.new)
    form = ArrayForm(kind=kind, delta=False)
    if not kind.fraction:
        sizes = log2(residuals * 0.5 + 0.3)
        return _fitted(of, form, residuals, exponents(kind, of.new), sizes, _EXPECTED, tables)
    # The exponent and the fraction after it are, as one number, nearly the logarithm.
    sizes = (residuals >> kind.unsigned.type(kind.fraction - 7)).astype(np.int64)
    centre = _CENTRE[kind.exponent]
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
        return Fit(form, b"", _OVERHEAD)
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
        low = int(made.low.sum(dtype=np.int64)) // 8
        full = int((made.symbols == LAST).sum()) * form.kind.size
        data = (low + full + coded_bytes(made.symbols, _prior(form))) * self.of.share
        return Fit(form, tables, data + len(entries) * _PER_ENTRY + _OVERHEAD)

    def moved(self, fit: Fit, eighths: int) -> Fit:
        """``fit`` with another base."""
        form, entries = fit.form, np.frombuffer(fit.tables, np.int8)
        return self.fit(form.base + eighths, form.factors, entries, form.lowest, form.exponents)


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
