"""Which old array a new one comes of: by content, by name, by likeness."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlpack.delta.logs import Array, log2
from mlpack.delta.spans import Span
from mlpack.runtime.patch.arrays import KINDS, Kind, folded, ordered

_PROBES = 512
"""Elements by which two arrays are compared."""

_MOST_ALIKE = 64
"""Old arrays of one form that a new one is compared with."""

_CLEARLY = 256
"""By how much (1/256 of a bit) another array must be closer than the one of the same name."""

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
        self._sized: dict[int, list[Span]] = defaultdict(list)
        for each in old_spans:
            self._sized[each.length].append(each)
        self._contents: dict[int, dict[bytes, Span]] = {}

    def pairs(self, span: Span) -> Iterator[Pair]:
        """One pair, or two."""
        named = self._named.get(span.name)
        if named and np.array_equal(_bytes(self._old, named), _bytes(self._new, span)):
            yield Pair(span, named, same=True)
            return
        equal = self._equal(span)
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

    def _equal(self, span: Span) -> Span | None:
        """An old array of these bytes."""
        if span.length not in self._contents:
            listed = self._sized.get(span.length, [])
            found = {self._digest(self._old, each): each for each in reversed(listed)}
            self._contents[span.length] = found
        held = self._contents[span.length]
        return held.get(self._digest(self._new, span)) if held else None

    @staticmethod
    def _digest(content: memoryview, span: Span) -> bytes:
        return hashlib.blake2b(_bytes(content, span), digest_size=16).digest()

    def _closest(self, span: Span, named: Span | None, alike: Sequence[Span]) -> Span:
        scores = [(self._distance(span, each), place) for place, each in enumerate(alike)]
        best, place = min(scores)
        if named in alike and best + _CLEARLY > self._distance(span, named):
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
