"""Codes arrays of numbers: chooses the form of each, and codes their numbers group by group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, PagingSpec, wrapped

from mlpack.kinds import Effort
from mlpack.runtime.patch.arrays import (
    Array,
    ArrayForm,
    Factor,
    Groups,
    NumberType,
    exponents,
    mirrored,
    ordered,
    scaled,
)
from mlpack.runtime.patch.container import PCODEC, StreamPart
from mlpack.runtime.patch.number_sets import PAGE, NumberSet
from mlpack.runtime.patch.program import MOST_ENTRIES, MOST_FACTORS, MOST_GROUPS, UNIT
from mlpack.tensor_patch.compression import compress
from mlpack.tensor_patch.cost_estimate import (
    STEPS,
    low_zeros,
    number_bytes,
    sizes_of,
    spread,
    whole,
)
from mlpack.tensor_patch.match import MOST
from mlpack.tensor_patch.steps import rounding_step, steps

_SAMPLE, _PIECES = 1 << 14, 16
"""Elements in the sample of a larger array, and the pieces they are in."""

_OWN = 1 << 14
"""Elements from which an array has a number set of its own."""

_OWN_AT_MOST = (1 << 12, 1 << 13, 1 << 14, 1 << 16, 1 << 62)
"""The same, as tried at the highest effort."""

_AT_ONCE = 1 << 20
"""Elements whose sizes are computed at once, and in the sample for a table of exponents."""

_FEW = 1 << 14
"""Numbers of a set up to which the default effort tries several widths of groups."""

_ONE = 1 << 14
"""The width of a group that has all sizes, in eighths of a bit."""

_COMPARED = 1 << 18
"""Elements of an array up to which ways to code it are compared on all of them."""

_FEWEST = 96
"""Numbers in a group, if there are any next to it."""

_MASKED = 0.7
"""The share of elements that differ up to which they are coded alone."""

_PER_ENTRY = 0.7
"""Bytes of a table entry, compressed."""

_OVERHEAD = 8
"""Bytes of an array in the index."""

_SCALE = 3
"""Bytes of a scale."""

_NONE = np.zeros(0, np.int16)


@dataclass(frozen=True, slots=True)
class ArrayCoding:
    """A form and the entries (int8) of its tables; ``cost`` is estimated, in bytes."""

    form: ArrayForm
    tables: bytes
    cost: float
    masked: bool = False
    """Whether only elements that differ are coded, with a bit for each element."""


def values_of(form: ArrayForm, old: Array | None, new: Array) -> tuple[Array, Array]:
    """Return the numbers (signed) that code ``new``, and the predictions of ``old`` (bits)."""
    kind = form.kind
    if old is None or not form.delta:
        return mirrored(kind, new), np.zeros_like(new)
    if form.step is not None:
        return steps(kind, old, new, form.step), old
    predicted = scaled(kind, old, form.scale)
    return ordered(kind, new) - ordered(kind, predicted), predicted


def expected_sizes(form: ArrayForm, tables: bytes, predicted: Array) -> Array:
    """Return the expected size of each element (int16, eighths of a bit)."""
    kind = form.kind
    found = exponents(kind, predicted) if form.by_exponent else predicted
    return Groups(form, tables, _NONE).sizes(found, 0)


def best_coding(
    kind: NumberType, old: Array | None, new: Array, shape: Sequence[int], usual: float
) -> ArrayCoding:
    """Return the cheapest coding of an array of ``shape``.

    ``usual`` is the scale of the previous array, because weight decay is the same for all, and a
    repeated scale takes no bytes.
    """
    some_new = spread(new, _SAMPLE, _PIECES)
    some_old = None if old is None else spread(old, _SAMPLE, _PIECES)
    share = len(new) / len(some_new)
    forms = [ArrayForm(kind=kind, delta=False)]
    if old is not None and some_old is not None:
        scales = dict.fromkeys((1.0, usual if kind.scalar else 1.0))
        if np.count_nonzero(some_old != some_new) * 2 > len(some_new):
            scales[_scale(kind, some_old, some_new)] = None
        forms += [ArrayForm(kind=kind, scale=scale) for scale in scales]
        step = rounding_step(kind, some_old, some_new)
        if step is not None and len(some_new) < len(new):
            # The whole array may differ from its sample.
            step = rounding_step(kind, old, new)
        forms += [ArrayForm(kind=kind, step=step)] if step is not None else []
    codings = [_sample_coding(form, some_old, some_new, share) for form in forms]
    codings = [
        replace(each, cost=each.cost + (_SCALE if each.form.scale not in (1.0, usual) else 0))
        for each in codings
    ]
    if old is not None and len(new) <= _COMPARED:
        codings += _masked(ArrayForm(kind=kind), old, new, len(new))
    elif some_old is not None:
        codings += _masked(ArrayForm(kind=kind), some_old, some_new, len(new))
    best = min(codings, key=lambda each: each.cost)
    fitted = _with_tables(best, old, new, shape)
    if len(new) > _COMPARED or old is None or not best.form.delta:
        return fitted
    # The sample may mislead where few elements changed: compare the whole.
    others = [replace(best, masked=False), *(each for each in codings if each.masked)]
    plain = _with_tables(others[0], old, new, ())
    tried = [fitted, plain, *(_with_tables(each, old, new, shape) for each in others[1:])]
    return min((_exact_cost(each, old, new) for each in tried), key=lambda each: each.cost)


def _exact_cost(coding: ArrayCoding, old: Array, new: Array) -> ArrayCoding:
    """Return ``coding`` with the cost of all elements and of the tables."""
    cost = len(coding.tables) * _PER_ENTRY + _OVERHEAD
    if coding.masked:
        mask, old, new = _changed(old, new)
        cost += compress(0, mask, Effort.FAST).length
    values, predicted = values_of(coding.form, old, new)
    if not len(values):
        return replace(coding, cost=cost)
    sizes = expected_sizes(coding.form, coding.tables, predicted) >> 3
    groups = np.minimum(sizes - sizes.min(), 255).astype(np.uint8)
    cost += number_bytes(coding.form.kind, values, groups, delta=coding.form.delta)
    return replace(coding, cost=cost)


def _sample_coding(form: ArrayForm, old: Array | None, new: Array, share: float) -> ArrayCoding:
    values, predicted = values_of(form, old, new)
    found = exponents(form.kind, predicted) if form.by_exponent else np.zeros(len(values), np.uint8)
    groups = np.minimum(found, 255).astype(np.uint8)
    cost = number_bytes(form.kind, values, groups, delta=form.delta) * share + _OVERHEAD
    return ArrayCoding(form, b"", cost)


def _masked(form: ArrayForm, old: Array, new: Array, count: int) -> Iterator[ArrayCoding]:
    """Yield the coding of elements that differ, if there are few enough."""
    mask, before, after = _changed(old, new)
    if not 0 < len(after) < _MASKED * len(new):
        return
    share = count / len(new)
    coding = _sample_coding(form, before, after, share)
    length = compress(0, mask, Effort.FAST).length
    yield replace(coding, cost=coding.cost + length * share, masked=True)


def _changed(old: Array, new: Array) -> tuple[bytes, Array, Array]:
    """Return a bit for each element that says whether it differs, and those that do."""
    differ = old != new
    return np.packbits(differ, bitorder="little").tobytes(), old[differ], new[differ]


def _with_tables(
    coding: ArrayCoding, old: Array | None, new: Array, shape: Sequence[int]
) -> ArrayCoding:
    """Return ``coding`` with its base, and the tables whose entries save more than they take."""
    form, kind = coding.form, coding.form.kind
    if coding.masked and old is not None:
        _, old, new = _changed(old, new)
        shape = ()
    over = np.empty(len(new), np.int32)
    for first in range(0, len(new), _AT_ONCE):
        here = slice(first, first + _AT_ONCE)
        values, predicted = values_of(form, None if old is None else old[here], new[here])
        over[here] = sizes_of(kind, values, delta=form.delta)
        if form.by_exponent:
            over[here] += exponents(kind, predicted).astype(np.int32) * STEPS
    mean = int(over.sum(dtype=np.int64)) // max(len(over), 1)
    over -= mean
    axes = list(islice(_axes(shape, over), MOST_FACTORS))
    entries = [entry for _, entry in axes]
    lowest, table = 0, np.zeros(0, np.int64)
    if form.by_exponent and old is not None and len(over) >= 64:
        # An odd stride, so that a sample is not of one column.
        stride = len(over) // _AT_ONCE | 1
        found = exponents(kind, scaled(kind, old[::stride].copy(), form.scale))
        lowest, table = _by_exponent(found, over[::stride])
    form = replace(
        form,
        base=(mean * 8 + STEPS // 2) // STEPS,
        factors=tuple(axis for axis, _ in axes),
        lowest=lowest,
        exponents=len(table),
    )
    tables = b"".join(entry.astype(np.int8).tobytes() for entry in (table, *entries))
    return replace(coding, form=form, tables=tables)


def _axes(shape: Sequence[int], over: Array) -> Iterator[tuple[Factor, Array]]:
    """Yield a table for each axis along which sizes vary by more than the table costs."""
    stride = over.size
    for size in shape:
        stride //= size
        count = over.size // size
        if not 2 <= size <= MOST_ENTRIES or count < 8:
            continue
        sums = over.reshape(-1, size, stride).sum(axis=(0, 2), dtype=np.int64)
        entries = _entries(sums, np.full(size, count))
        if _saved(entries, np.full(size, count)) > size * _PER_ENTRY:
            yield Factor(stride, size), entries


def _by_exponent(found: Array, over: Array) -> tuple[int, Array]:
    """Return a table of how sizes at each exponent differ from the usual, and its first one."""
    counts = np.bincount(found)
    # Exact, because floats below 2**53 are integers.
    sums = np.bincount(found, weights=over, minlength=len(counts)).astype(np.int64)
    entries = np.where(counts >= 16, _entries(sums, counts), 0)
    common = np.flatnonzero(entries)
    if not len(common) or _saved(entries, counts) < (common[-1] - common[0] + 1) * _PER_ENTRY:
        return 0, entries[:0]
    return int(common[0]), entries[common[0] : common[-1] + 1]


def _entries(sums: Array, counts: Array) -> Array:
    """Return means in eighths of a bit, drawn towards zero for small groups."""
    means = sums * 8 // (STEPS * (counts.astype(np.int64) + 4))
    return np.clip(means, -128, 127)


def _saved(entries: Array, counts: Array) -> float:
    """Return the bytes that better fitting sizes save: half the square of the misfit, in bits."""
    return float((entries**2 * counts).sum()) / 1024


def _scale(kind: NumberType, old: Array, new: Array) -> float:
    """Return the best factor for the old numbers (least squares), near 1; 1 for integers."""
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


@dataclass(frozen=True, slots=True)
class CodedSet:
    """A number set, and the bytes of its groups."""

    set: NumberSet
    bodies: tuple[bytes, ...]

    @property
    def length(self) -> int:
        """About the bytes in the patch: of the groups, and of what the index says of them."""
        return sum(map(len, self.bodies)) + 4 * len(self.bodies)


@dataclass(frozen=True, slots=True)
class _Collected:
    """An array to be coded: its numbers, and the expected size of each (eighths of a bit)."""

    form: ArrayForm
    values: Array
    sizes: Array


@dataclass
class ArrayEncoder:
    """Collects the arrays of a patch in the new file's order, and codes them set by set."""

    effort: Effort
    tables: bytearray = field(default_factory=bytearray)
    masks: bytearray = field(default_factory=bytearray)
    _arrays: list[_Collected] = field(default_factory=list)

    def add(self, coding: ArrayCoding, old: Array | None, new: Array) -> ArrayForm:
        """Take an array; return its form, without its set."""
        if coding.masked and old is not None:
            mask, old, new = _changed(old, new)
            self.masks += mask
        values, predicted = values_of(coding.form, old, new)
        sizes = expected_sizes(coding.form, coding.tables, predicted)
        self.tables += coding.tables
        self._arrays.append(_Collected(coding.form, values, sizes))
        return coding.form

    def coded(self) -> tuple[list[int], list[CodedSet]]:
        """Code the numbers of all arrays; return the set of each array, and the sets."""
        found, known = [], dict[tuple[int, ...], CodedSet]()
        for own in _OWN_AT_MOST if self.effort is Effort.MAX else (_OWN,):
            numbers = self._numbered(own)
            members: dict[int, list[int]] = {}
            for place, number in enumerate(numbers):
                members.setdefault(number, []).append(place)
            sets = list(map(tuple, members.values()))
            for places in sets:
                if places not in known:
                    known[places] = _coded_set([self._arrays[each] for each in places], self.effort)
            found.append((numbers, [known[each] for each in sets]))
        return min(found, key=lambda each: sum(of.length for of in each[1]))

    def _numbered(self, own: int) -> list[int]:
        """Return the set of each array: its own if it has at least ``own`` numbers of 4 bytes.

        Numbers of 2 bytes take fewer bits, so what describes a set is a larger part.
        """
        keys, totals = dict[object, int](), dict[object, int]()
        found = []
        for place, each in enumerate(self._arrays):
            least = 4 * own if each.values.itemsize == 2 else own
            alone = place if len(each.values) >= least else f"delta {each.form.delta}"
            key = (each.values.itemsize, each.form.step, alone)
            # A chunk of pcodec has 2**24 numbers at most; no array has more than half of them.
            totals[key] = totals.get(key, 0) + len(each.values)
            found.append(keys.setdefault((key, totals[key] // MOST), len(keys)))
        return found


def _coded_set(arrays: Sequence[_Collected], effort: Effort) -> CodedSet:
    values, sizes = arrays[0].values, arrays[0].sizes
    if len(arrays) > 1:
        values = np.concatenate([each.values for each in arrays])
        sizes = np.concatenate([each.sizes for each in arrays])
    widths: tuple[int, ...] = (3, 4, 8) if values.itemsize == 2 else (8,)
    if effort is Effort.MAX:
        widths = (4, 8, 16, 32, _ONE)
    elif effort is Effort.DEFAULT and len(values) < _FEW:
        widths = (*widths, 24, _ONE)
    return min((_grouped(values, sizes, each, effort) for each in widths), key=_length)


def _length(of: CodedSet) -> int:
    return of.length


def _grouped(values: Array, sizes: Array, width: int, effort: Effort) -> CodedSet:
    """Code numbers in groups of ``width`` eighths of a bit."""
    lowest = int(sizes.min()) // width
    cells = sizes // width - lowest
    # Piece by piece, because numpy counts and takes by integers of eight bytes.
    pieces = [cells[first : first + _AT_ONCE] for first in range(0, len(cells), _AT_ONCE)]
    counts = np.zeros(int(cells.max()) + 1, np.int64)
    for each in pieces:
        counts += np.bincount(each, minlength=len(counts))
    starts = _group_starts(counts)
    begins = np.zeros(len(counts), np.uint8)
    begins[starts] = 1
    group = np.cumsum(begins, dtype=np.uint8)
    found = np.concatenate([group.take(each) for each in pieces])
    coded = [_coded(values[found == each], effort) for each in range(len(starts) + 1)]
    return CodedSet(
        NumberSet(
            values.dtype.itemsize,
            tuple(width * (lowest + start) for start in starts),
            tuple(part for part, _ in coded),
        ),
        tuple(body for _, body in coded),
    )


def _group_starts(counts: Array) -> list[int]:
    """Return at which cells the second group and all further ones begin.

    ``counts`` are the numbers of each cell; each group has enough of them.
    """
    starts, gathered = list[int](), 0
    for cell, count in enumerate(counts.tolist()):
        if count and gathered >= _FEWEST and len(starts) < MOST_GROUPS - 1:
            starts.append(cell)
            gathered = 0
        gathered += count
    if starts and gathered < _FEWEST:
        starts.pop()
    return starts


PCODEC_HEADER = wrapped.FileCompressor().write_header()
"""What a file of pcodec's wrapped format begins with."""


def _coded(values: Array, effort: Effort) -> tuple[StreamPart, bytes]:
    """Code the numbers of one group."""
    values = np.ascontiguousarray(values)
    levels = (8, 12) if effort is Effort.MAX else (9,)
    bodies = [_pcodec(values, level) for level in levels]
    best = StreamPart(0, PCODEC, len(values), 0), min(bodies, key=len)
    plain = compress(0, values.view(np.uint8).data, effort) if values.itemsize == 1 else None
    if plain and plain.length < len(best[1]):
        best = replace(plain.part, size=len(values)), bytes(plain.stored)
    return replace(best[0], stored=len(best[1])), best[1]


def _pcodec(values: Array, level: int) -> bytes:
    zeros = low_zeros(values)
    pages = [min(PAGE, len(values) - first) for first in range(0, len(values), PAGE)]
    config = ChunkConfig(
        compression_level=level,
        mode_spec=ModeSpec.try_int_mult(1 << zeros) if zeros > 1 else ModeSpec.classic(),
        delta_spec=DeltaSpec.no_op(),
        paging_spec=PagingSpec.exact_page_sizes(pages),
        enable_8_bit=True,
    )
    chunk = wrapped.FileCompressor().chunk_compressor(values, config)
    return b"".join([chunk.write_meta(), *(chunk.write_page(each) for each in range(len(pages)))])
