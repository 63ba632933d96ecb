"""The fields of a protobuf message and where they lie (*Protocol Buffers*, "Encoding").

A field longer than its message is refused, and so are groups, which no model uses. Nothing is
copied and no message is built: what is not asked for is stepped over.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import cache
from itertools import islice
from typing import NamedTuple

from mlpack.delta.spans.span import Damaged

VARINT, FIXED64, LEN, FIXED32 = 0, 1, 2, 5

MAX_FIELDS = 1_000_000
"""In one file; a run of numbers counts once. Real models have some ten thousand."""

_MAX_NUMBER = 2**29
_VARINT_BYTES = 10
_ELEMENT = {VARINT: rb"[\x80-\xff]{0,9}+[\x00-\x7f]", FIXED64: rb".{8}", FIXED32: rb".{4}"}


class Field(NamedTuple):
    """The payload of one field, or a whole run of fields of one number with their tags.

    Where numbers repeat without being packed, each has its own tag, and a tree ensemble has
    millions. So neighbours of the same number come as one, unless they have a length.
    """

    number: int
    wire: int
    start: int
    end: int


class Wire:
    """A file read as protobuf."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._left = MAX_FIELDS

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """The fields of the message that lies between ``start`` and ``end``, in order."""
        at = start
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise Damaged(f"more than {MAX_FIELDS} fields")
            tag, after = self.varint(at, end)
            number, wire = tag >> 3, tag & 7
            if not 0 < number < _MAX_NUMBER:
                raise Damaged(f"field {number} at byte {at}")
            if wire == LEN:
                length, begin = self.varint(after, end)
                stop = begin + length
            else:
                begin, stop = at, self._run(at, after, end, wire)
            if stop > end:
                raise _cut(at)
            yield Field(number, wire, begin, stop)
            at = stop

    def message(self, start: int, end: int, numbers: Collection[int]) -> Message:
        """The fields of these numbers in the message between ``start`` and ``end``."""
        asked: dict[int, list[Field]] = {number: [] for number in numbers}
        for field in self.fields(start, end):
            if field.number in asked:
                asked[field.number].append(field)
        return Message(self, asked)

    def text(self, start: int, end: int) -> str:
        """A field as text, whatever its bytes are."""
        return self._view[start:end].tobytes().decode("utf-8", "replace")

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """The number that begins at ``at``, and where it ends."""
        view, value = self._view, 0
        for place in range(min(_VARINT_BYTES, end - at)):
            byte = view[at + place]
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, at + place + 1
        raise _cut(at)

    def _run(self, start: int, after: int, end: int, wire: int) -> int:
        if wire not in _ELEMENT:
            raise Damaged(f"wire type {wire} at byte {start}")
        if after - start == 1:
            found = _run_of(self._view[start], wire).match(self._view, start, end)
        else:
            found = _ONE[wire].match(self._view, after, end)
        if not found:
            raise _cut(start)
        return found.end()


class Message:
    """What was asked for of one message."""

    def __init__(self, wire: Wire, asked: dict[int, list[Field]]) -> None:
        self._wire = wire
        self._asked = asked

    def fields(self, *numbers: int) -> Iterator[Field]:
        """The fields of these numbers."""
        for number in numbers:
            yield from self._asked[number]

    def parts(self, *numbers: int) -> Iterator[tuple[int, int]]:
        """Start and end of what has a length: messages, texts, bytes."""
        for field in self.fields(*numbers):
            if field.wire == LEN:
                yield field.start, field.end

    def text(self, number: int, limit: int) -> str:
        """The first ``limit`` bytes of a text, or none."""
        for start, end in self.parts(number):
            return self._wire.text(start, min(end, start + limit))
        return ""

    def numbers(self, number: int, limit: int) -> tuple[int, ...]:
        """The first ``limit`` numbers, packed or not."""
        return tuple(islice(self._varints(number), limit))

    def _varints(self, number: int) -> Iterator[int]:
        for _, wire, at, end in self._asked[number]:
            while at < end and wire in (LEN, VARINT):
                if wire == VARINT:
                    _, at = self._wire.varint(at, end)
                value, at = self._wire.varint(at, end)
                yield value


def _cut(at: int) -> Damaged:
    return Damaged(f"a field at byte {at} ends after its message")


_ONE = {wire: re.compile(element, re.DOTALL) for wire, element in _ELEMENT.items()}


@cache
def _run_of(tag: int, wire: int) -> re.Pattern[bytes]:
    """Neighbours of one tag of one byte. Longer tags are too many to keep a pattern of each."""
    # Possessive: what was passed is never looked at again, nor remembered to be.
    element = re.escape(bytes([tag])) + _ELEMENT[wire]
    return re.compile(b"(?:" + element + b")++", re.DOTALL)
