"""Which old array a new one comes of: by content, by name, by likeness."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlpack.delta.logs import STEPS, Array, log2
from mlpack.delta.spans import Span
from mlpack.runtime.patch.arrays import KINDS, Kind, folded, ordered

_PROBES = 512
"""Elements by which two arrays are compared."""

_MOST_ALIKE = 64
"""Old arrays of one form that a new one is compared with."""

_APART = 6
"""Bits by which differences of related numbers are shorter than the numbers, at least."""

_MARKS = 64
"""Bytes by which arrays that may be equal are found."""

_KINDS: Mapping[str, Kind] = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True, slots=True)
class Pair:
    """A new array and the old one it comes of; ``same`` where the bytes are equal."""

    new: Span
    old: Span | None
    same: bool = False

    @property
    def kind(self) -> Kind:
        """The type of both arrays' numbers."""
        return kind_of(self.new)


def kind_of(span: Span) -> Kind:
    """The codec's kind of a span."""
    return _KINDS[span.kind.value]


def numbers(content: memoryview, span: Span) -> Array:
    """The bits of a span's numbers."""
    piece = content[span.offset : span.offset + span.length]
    return np.frombuffer(piece, kind_of(span).unsigned)


def _bytes(content: memoryview, span: Span) -> Array:
    return np.frombuffer(content[span.offset : span.offset + span.length], np.uint8)


def _mark(content: memoryview, span: Span) -> bytes:
    """What arrays of the same bytes have in common: their length and some of the bytes."""
    held = _bytes(content, span)
    places = np.arange(_MARKS) * len(held) // _MARKS
    return span.length.to_bytes(8, "little") + held[places].tobytes()


def match(
    old: memoryview, new: memoryview, old_spans: Sequence[Span], new_spans: Sequence[Span]
) -> list[Pair]:
    """A pair for each new span, in the new file's order.

    An array whose first dimension grew or shrank is two spans: one as long as the
    shorter, which is paired, and the rest, which is not.
    """
    finder = _Finder(old, new, old_spans)
    return [pair for span in new_spans for pair in finder.pairs(span)]


class _Finder:
    def __init__(self, old: memoryview, new: memoryview, old_spans: Sequence[Span]) -> None:
        self._old = old
        self._new = new
        self._named = {each.name: each for each in old_spans}
        self._alike: dict[tuple[str, int], list[Span]] = defaultdict(list)
        for each in old_spans:
            self._alike[each.kind.value, each.length].append(each)
        self._marked: dict[bytes, list[Span]] = defaultdict(list)
        for each in old_spans:
            self._marked[_mark(old, each)].append(each)

    def pairs(self, span: Span) -> Iterator[Pair]:
        """One pair, or two."""
        named = self._named.get(span.name)
        equal = self._equal(span, named)
        if equal:
            yield Pair(span, equal, same=True)
            return
        alike = self._alike.get((span.kind.value, span.length), [])
        if alike:
            yield Pair(span, self._closest(span, named, alike[:_MOST_ALIKE]))
        elif named and _grown(named, span):
            yield from self._cut(named, span)
        else:
            yield Pair(span, None)

    def _equal(self, span: Span, named: Span | None) -> Span | None:
        """An old array of these bytes, best one of this name."""
        content = _bytes(self._new, span)
        likely = self._marked.get(_mark(self._new, span), [])
        for other in [each for each in (named,) if each in likely] + likely[:_MOST_ALIKE]:
            if np.array_equal(_bytes(self._old, other), content):
                return other
        return None

    def _closest(self, span: Span, named: Span | None, alike: Sequence[Span]) -> Span:
        usual = self._distance(span, named) if named and named in alike else None
        if named and usual is not None and usual < STEPS * (kind_of(span).bits - _APART):
            return named
        best, place = min((self._distance(span, each), place) for place, each in enumerate(alike))
        if named and usual is not None and best + STEPS > usual:
            return named
        return alike[place]

    def _distance(self, span: Span, other: Span) -> int:
        """The usual size of the difference between two arrays of one kind, in 1/256 of a bit."""
        kind = kind_of(span)
        count = span.length // kind.size
        probes = min(count, _PROBES)
        places = np.arange(probes) * count // probes
        after, before = numbers(self._new, span)[places], numbers(self._old, other)[places]
        residuals = folded(kind, ordered(kind, after) - ordered(kind, before))
        return int(log2(residuals * 0.5 + 0.3).sum()) // len(places)

    def _cut(self, old: Span, new: Span) -> Iterator[Pair]:
        length = min(old.length, new.length)
        size = kind_of(new).size
        head = Span(new.name, new.offset, length, new.kind, (length // size,))
        yield Pair(head, Span(old.name, old.offset, length, old.kind, (length // size,)))
        if new.length > length:
            left = new.length - length
            yield Pair(Span(new.name, new.offset + length, left, new.kind, (left // size,)), None)


def _grown(old: Span, new: Span) -> bool:
    """Whether two arrays differ in their first dimension only."""
    return old.kind == new.kind and len(old.shape) > 0 and old.shape[1:] == new.shape[1:]
