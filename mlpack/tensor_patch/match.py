"""Matches each new array with an old one: by content, by name, by similarity.

The time is bounded for any number of arrays: an array is compared with its namesake, and then with
at most :data:`_CANDIDATES` others, by a few hundred of its numbers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlpack.runtime.patch.arrays import KINDS, Array, NumberType, ordered
from mlpack.tensor_patch.spans import Span

_PROBES = 256
"""Numbers that are compared to estimate the distance of two arrays."""

_CANDIDATES = 256
"""Old arrays of the same kind and length that a new one is compared with."""

_EQUAL = 4
"""Old arrays with the same fingerprint that are compared in full."""

_RELATED = 7
"""Bits by which differences of related numbers are at least shorter than the numbers."""

_CLEARLY = 2
"""Bits by which differences from another array are shorter than those from the namesake, if
they are more than chance."""

MOST = 1 << 23
"""Numbers of one pair: larger arrays are divided."""

_SAMPLED = 64
"""Bytes of an array in its fingerprint."""

_KINDS: Mapping[str, NumberType] = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True, slots=True)
class ArrayPair:
    """A new array and the old one it is coded against; ``same`` if the bytes are equal."""

    new: Span
    old: Span | None
    same: bool = False

    @property
    def kind(self) -> NumberType:
        """The type of both arrays' numbers."""
        return kind_of(self.new)


def kind_of(span: Span) -> NumberType:
    """Return the number type of a span."""
    return _KINDS[span.kind.value]


def numbers(content: memoryview, span: Span) -> Array:
    """Return the bits of a span's numbers."""
    piece = content[span.offset : span.offset + span.length]
    return np.frombuffer(piece, kind_of(span).unsigned)


def match(
    old: memoryview, new: memoryview, old_spans: Sequence[Span], new_spans: Sequence[Span]
) -> list[ArrayPair]:
    """Return a pair for each new span, in the new file's order.

    An array that is longer or shorter than the old one is several spans: the parts that both have,
    which are paired, and what is before and after them, which is not.
    """
    matcher = _Matcher(old, new, old_spans)
    sure = [matcher.sure(span) for span in new_spans]
    taken = {pair.old.offset for pair in sure if pair and pair.old}
    search = _Search(old, new, old_spans, taken)
    pairs = list[ArrayPair]()
    for span, pair in zip(new_spans, sure, strict=True):
        pairs += [pair] if pair else matcher.resized(span) or [search.closest(span)]
    return [part for pair in pairs for part in _divided(pair)]


def _divided(pair: ArrayPair) -> Iterator[ArrayPair]:
    """Yield a pair in parts of whole rows that a number set can hold."""
    new, old, most = pair.new, pair.old, MOST * pair.new.kind.width
    if pair.same or new.length <= most:
        yield pair
        return
    row = new.length // new.shape[0] if new.shape else new.length
    step = most // row * row or most
    for first in range(0, new.length, step):
        last = min(first + step, new.length)
        before = _part(old, old.offset + first, old.offset + last) if old else None
        yield ArrayPair(_part(new, new.offset + first, new.offset + last), before)


class _Matcher:
    """Finds the arrays that need no search: of the same bytes, or related and of one name."""

    def __init__(self, old: memoryview, new: memoryview, old_spans: Sequence[Span]) -> None:
        self._old = old
        self._new = new
        self._old_spans = sorted(old_spans, key=lambda each: each.offset)
        self._starts = [each.offset for each in self._old_spans]
        self._named = {each.name: each for each in old_spans}
        self._by_fingerprint: dict[bytes, list[Span]] = defaultdict(list)
        for each in old_spans:
            self._by_fingerprint[_fingerprint(old, each)].append(each)

    def sure(self, span: Span) -> ArrayPair | None:
        """Return the pair with an equal array, or with a related one of this name and length."""
        named = self._named.get(span.name)
        alike = [named] if named and _form(named) == _form(span) else []
        likely = self._by_fingerprint.get(_fingerprint(self._new, span), [])[:_EQUAL]
        content = _bytes(self._new, span)
        for other in alike + likely:
            if np.array_equal(_bytes(self._old, other), content):
                return ArrayPair(span, other, same=True)
        return next((ArrayPair(span, each) for each in alike if self._related(span, each)), None)

    def resized(self, span: Span) -> list[ArrayPair]:
        """Return the pairs with related arrays of other lengths, if there are any.

        Numbers are aligned with those of the namesake by its start or its end, because rows are
        added at an end, and with any by the starts or the ends of the files, because guessed
        arrays may begin a little earlier in one of the files, or be divided there.
        """
        named = self._named.get(span.name)
        tries = list[tuple[int, list[Span]]]()
        if named and named.kind == span.kind and named.length != span.length:
            start = named.offset - span.offset
            tries = [(start, [named]), (start + named.length - span.length, [named])]
        for shift in sorted({0, len(self._old) - len(self._new)}):
            tries.append((shift, self._overlapping(span, shift)))
        found = [
            [pair for other in others for pair in self._aligned(span, other, shift)]
            for shift, others in tries
        ]
        best = max(found, key=lambda pairs: sum(pair.new.length for pair in pairs))
        return list(_filled(span, best)) if best else []

    def _overlapping(self, span: Span, shift: int) -> list[Span]:
        """Return the arrays of other lengths that are at a span's place in the old file."""
        first = bisect_right(self._starts, span.offset + shift) - 1
        last = bisect_left(self._starts, span.offset + span.length + shift)
        near = self._old_spans[max(first, 0) : last]
        return [each for each in near if each.kind == span.kind and each.length != span.length]

    def _aligned(self, span: Span, other: Span, shift: int) -> Iterator[ArrayPair]:
        """Yield the pair of what both arrays have, if the numbers there are related."""
        first = max(span.offset, other.offset - shift)
        last = min(span.offset + span.length, other.offset + other.length - shift)
        apart = (first - span.offset, first + shift - other.offset)
        if first < last and not any(each % span.kind.width for each in apart):
            part, before = _part(span, first, last), _part(other, first + shift, last + shift)
            if self._related(part, before):
                yield ArrayPair(part, before)

    def _related(self, span: Span, other: Span) -> bool:
        after, before = _probes(self._new, span), _probes(self._old, other)
        most = (kind_of(span).bits - _RELATED) * len(after)
        return bool(_distances(before[np.newaxis], after)[0] < most)


class _Search:
    """Finds the old array of the same kind and length that a new one is most similar to."""

    def __init__(
        self, old: memoryview, new: memoryview, old_spans: Sequence[Span], taken: set[int]
    ) -> None:
        self._old = old
        self._new = new
        self._groups: dict[tuple[str, int], list[Span]] = defaultdict(list)
        self._places: dict[tuple[str, int, str], int] = {}
        # First those that no new array is sure to be matched with.
        for each in sorted(old_spans, key=lambda span: span.offset in taken):
            group = self._groups[_form(each)]
            self._places[*_form(each), each.name] = len(group)
            group.append(each)
        self._probed: dict[tuple[str, int], Array] = {}
        self._searched: dict[tuple[str, int], int] = defaultdict(int)

    def closest(self, span: Span) -> ArrayPair:
        """Return the pair with the most similar array; with its namesake unless that is worse."""
        form, group = _form(span), self._groups.get(_form(span), [])
        if not group:
            return ArrayPair(span, None)
        if form not in self._probed:
            self._probed[form] = np.stack([_probes(self._old, each) for each in group])
        # Renamed arrays mostly stay in their order.
        rank = self._searched[form]
        self._searched[form] += 1
        first = max(0, min(rank - _CANDIDATES // 2, len(group) - _CANDIDATES))
        after = _probes(self._new, span)
        near = self._probed[form][first : first + _CANDIDATES]
        best = first + int(np.argmin(_distances(near, after)))
        named = self._places.get((*form, span.name), best)
        own, other = _distances(self._probed[form][[named, best]], after)
        return ArrayPair(span, group[named if other + _CLEARLY * len(after) > own else best])


def _form(span: Span) -> tuple[str, int]:
    return span.kind.value, span.length


def _bytes(content: memoryview, span: Span) -> Array:
    return np.frombuffer(content[span.offset : span.offset + span.length], np.uint8)


def _fingerprint(content: memoryview, span: Span) -> bytes:
    """Return length and some bytes of an array, which equal arrays have in common."""
    held = _bytes(content, span)
    places = np.arange(_SAMPLED) * len(held) // _SAMPLED
    return span.length.to_bytes(8, "little") + held[places].tobytes()


def _probes(content: memoryview, span: Span) -> Array:
    """Return some of an array's numbers as ordered integers."""
    count = span.length // span.kind.width
    probed = min(count, _PROBES)
    return ordered(kind_of(span), numbers(content, span)[np.arange(probed) * count // probed])


def _distances(before: Array, after: Array) -> Array:
    """Return the bits of the differences between ``after`` and each row of ``before``."""
    # The exponent of a float is the same on every processor, unlike a logarithm.
    lengths = np.frexp((after - before).astype(np.float64))[1]
    bits: Array = lengths.sum(axis=1, dtype=np.int64)
    return bits


def _part(span: Span, first: int, last: int) -> Span:
    """Return the bytes of a span from ``first`` to ``last``, places in the file."""
    rows, length = span.shape[1:], last - first
    row = span.length // span.shape[0] if span.shape and span.shape[0] else 0
    whole = row and length % row == 0
    shape = (length // row, *rows) if whole else (length // span.kind.width,)
    return Span(span.name, first, length, span.kind, shape)


def _filled(span: Span, pairs: Sequence[ArrayPair]) -> Iterator[ArrayPair]:
    """Yield pairs of parts of ``span``, and what is between them without an old array."""
    at = span.offset
    for pair in pairs:
        if at < pair.new.offset:
            yield ArrayPair(_part(span, at, pair.new.offset), None)
        yield pair
        at = pair.new.offset + pair.new.length
    if at < span.offset + span.length:
        yield ArrayPair(_part(span, at, span.offset + span.length), None)
