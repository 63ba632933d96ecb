"""Regions of numbers in bytes of an unknown format, by the statistics of their bytes.

Numbers of one type repeat a pattern: the byte with sign and exponent has few values, those below
it have nearly all. A sample of each window of the file shows at which of every two, four or eight
bytes it is. A guess is a hint like every span: a wrong one costs bytes, never correctness.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby, pairwise, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpack.tensor_patch.spans.span import Kind, Span

_Array = NDArray[Any]

LEAST = 8192
"""Bytes of the smallest region: any place of it holds a whole window."""

_WINDOW = LEAST // 2
_PIECES, _PIECE = 4, 128
"""Pieces of each window that are examined, and their bytes."""

_BATCH = 1024
"""Windows that are examined at once."""

_GAP = 2
"""Windows of something else inside a region: names and sizes of arrays between the arrays."""

_BEYOND = 1 << 16
"""Bytes before and after the windows that surely have numbers, where more are looked for."""

_BLOCK = 64
"""Numbers that are examined at once at the ends of a region."""


_TOPS = {
    Kind.F64: (0x7F, 0x3B, 0x41),
    Kind.F32: (0x7F, 0x2C, 0x45),
    Kind.BF16: (0x7F, 0x2C, 0x45),
    Kind.F16: (0x7F, 0x04, 0x4B),
    Kind.I16: (0xFF, 0xE0, 0x1F),
}
"""Usual values of the most significant byte: a mask, the first and the last, which may be after
255. Floats are mostly not extremely large or small."""

_LABELS = [(kind, top) for kind in _TOPS for top in range(kind.width)]
"""What a window may hold: numbers of a kind whose most significant byte is at ``top`` modulo the
kind's width. An earlier one wins."""


def guess(content: memoryview) -> tuple[Span, ...]:
    """Return the regions of floats and 16-bit integers in bytes of any kind, sorted, disjoint.

    Numbers are little-endian and may begin at any byte. About 8,000 bytes are the smallest region.
    Names are ``f32 0``, ``f32 1``...: a later version of a file mostly has regions in the same
    order. The same bytes give the same regions on every processor.
    """
    held = np.frombuffer(content, np.uint8)
    fits = [_fits(held[at : at + _BATCH * _WINDOW]) for at in _starts(len(held))]
    if not fits:
        return ()
    strong, weak = (np.concatenate(each) for each in zip(*fits, strict=True))
    runs = _runs(strong, weak)
    spans, ranks, end = list[Span](), dict.fromkeys(Kind, 0), 0
    for each, following in zip_longest(runs, runs[1:]):
        limit = following.first * _WINDOW if following else len(held)
        kind, start, stop = _exact(held, each, end, limit)
        if stop - start >= LEAST:
            count = (stop - start) // kind.width
            spans.append(Span(f"{kind} {ranks[kind]}", start, stop - start, kind, (count,)))
            ranks[kind] += 1
            end = stop
    return tuple(spans)


def _starts(size: int) -> range:
    return range(0, size - _WINDOW + 1, _BATCH * _WINDOW)


@dataclass(frozen=True, slots=True)
class _Run:
    """Windows of one label, from ``first`` up to ``last``."""

    label: int
    first: int
    last: int


def _fits(held: _Array) -> tuple[_Array, _Array]:
    """Return for each window which labels it surely has, and which it may have."""
    count = len(held) // _WINDOW
    pieces = held[: count * _WINDOW].reshape(count, _PIECES, -1)[:, :, :_PIECE]
    sample = np.ascontiguousarray(pieces).reshape(count, -1, 8)
    strong, weak = np.zeros((2, count, len(_LABELS)), bool)
    zeros = _counts(sample == 0)
    usual = {kind: _counts(_usual(kind, sample)) for kind in _TOPS}
    for place, (kind, top) in enumerate(_LABELS):
        width = kind.width
        planes = usual[kind].reshape(count, -1, width).sum(1)
        pruned = zeros.reshape(count, -1, width).sum(1).min(1)  # at most so many are zero
        whole = sample.shape[1] * 8 // width
        own = planes[:, top] - (pruned if kind is Kind.I16 else 0)
        weak[:, place] = 2 * (own + pruned) >= whole
        strong[:, place] = (10 * own >= 9 * (whole - pruned)) & (8 * own > whole)
        if width > 2:
            # Text, pixels and bytes of quantised weights are alike at all places.
            strong[:, place] &= 2 * planes[:, top - width // 2] < planes[:, top]
        else:
            likely = np.flatnonzero(strong[:, place])
            strong[likely, place] = _distinct(kind, sample[likely].reshape(-1, whole, 2), top)
    return strong, weak


def _usual(kind: Kind, tops: _Array) -> _Array:
    mask, first, last = _TOPS[kind]
    found: _Array = (tops & np.uint8(mask)) - np.uint8(first) <= (last - first) % 256
    return found


def _counts(flags: _Array) -> _Array:
    """Return how many are true in each window at each of eight places."""
    lanes = flags.view(np.uint64).sum((1, 2))  # eight counters of a byte each: 64 at most
    counts: _Array = lanes.view(np.uint8).reshape(-1, 8).astype(np.int32)
    return counts


def _distinct(kind: Kind, pairs: _Array, place: int) -> _Array:
    """Return where the bytes of 16-bit numbers are as unevenly distributed as those of ``kind``."""
    count = len(pairs)
    groups = np.arange(2 * count).reshape(count, 1, 2) * 256
    seen = np.bincount((pairs + groups).ravel(), minlength=512 * count).reshape(count, 2, 256)
    # Pruned weights are zero; the others are as usual.
    seen[:, :, 0] -= seen[:, :, 0].min(1, keepdims=True)
    equal = (seen * (seen - 1)).sum(2)  # pairs of equal bytes
    even = seen.sum(2)[:, 0] ** 2 // 256
    top, low = equal[:, place], equal[:, 1 - place]
    # Half of bfloat16's top bytes are of two octaves; those of half floats have a fraction, too.
    if kind is Kind.BF16:
        found = (top >= 18 * even) & (low < 12 * even)
    elif kind is Kind.F16:
        found = (2 * top >= 5 * even) & (low < 2 * even)
    else:
        found = (top >= 4 * low) & (low < 12 * even)
    return np.asarray(found)


def _runs(strong: _Array, weak: _Array) -> list[_Run]:
    """Return the runs of windows of one label, over gaps that may have it or are short."""
    labels = np.where(strong.any(1), strong.argmax(1), -1)
    edges = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    found = [_Run(int(labels[first]), first, last) for first, last in pairwise(edges)]
    found = [each for each in found if each.label >= 0]
    runs = found[:1]
    for each, following in zip_longest(found[1:], found[2:]):
        last = runs[-1]
        if last.label == each.label and _bridged(weak[last.last : each.first, last.label]):
            runs[-1] = replace(last, last=each.last)
        elif not (following and following.label == last.label and each.last - each.first <= _GAP):
            runs.append(each)
    return runs


def _bridged(gap: _Array) -> bool:
    return all(fits or len(list(group)) <= _GAP for fits, group in groupby(gap.tolist()))


def _exact(held: _Array, run: _Run, least: int, most: int) -> tuple[Kind, int, int]:
    """Return kind, start and end of the numbers of a run, which go on into the next windows."""
    kind, top = _LABELS[run.label]
    width = kind.width
    phase = (top + 1) % width
    start = -(-(run.first * _WINDOW - phase) // width) * width + phase
    stop = (run.last * _WINDOW - phase) // width * width + phase
    after = held[stop : min(most, stop + _BEYOND)]
    stop += width * _going_on(kind, after[: len(after) // width * width].reshape(-1, width))
    before = held[max(least, start - _BEYOND) : start]
    before = before[len(before) % width :].reshape(-1, width)
    return kind, start - width * _going_on(kind, before[::-1]), stop


def _going_on(kind: Kind, elements: _Array) -> int:
    """Return how many of the first elements are usual numbers, nearly without exception."""
    fits = _usual(kind, elements[:, -1]) | ~elements.any(1)
    blocks = len(fits) // _BLOCK
    shape = (blocks, _BLOCK)
    good = fits[: blocks * _BLOCK].reshape(shape).mean(1) >= 0.8
    if kind is not Kind.I16:  # small integers are alike in both bytes, and so is text
        inside = _usual(kind, elements[: blocks * _BLOCK, kind.width // 2 - 1])
        good &= inside.reshape(shape).mean(1) < 0.9
    whole = _BLOCK * _first_false(good)
    return whole + _first_false(fits[whole : whole + _BLOCK])


def _first_false(flags: _Array) -> int:
    return int(np.append(flags, False).argmin())
