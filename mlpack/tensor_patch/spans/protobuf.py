"""The fields of a protobuf message and where they are (*Protocol Buffers*, "Encoding").

A field longer than its message is refused, and so are groups, which no model uses. Nothing is
copied and no message is built; fields that are not needed are skipped.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice
from typing import NamedTuple

from mlpack.tensor_patch.spans.span import Damaged

VARINT, FIXED64, LEN, FIXED32 = 0, 1, 2, 5

MAX_FIELDS = 1_000_000
"""In one file; a run of numbers counts once. Real models have some ten thousand."""

_MAX_NUMBER = 2**29
_VARINT_BYTES = 10
_ELEMENT = {VARINT: rb"[\x80-\xff]{0,9}+[\x00-\x7f]", FIXED64: rb".{8}", FIXED32: rb".{4}"}


class Field(NamedTuple):
    """The payload of one field, or a run of fields of one number with their tags.

    Each repeated number that is not packed has its own tag, and a tree ensemble has millions. So
    adjacent fields of one number are one ``Field``, unless they have a length.
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
        """Yield the fields of the message between ``start`` and ``end``, in order."""
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

    def message(self, start: int, end: int) -> Message:
        """Return the fields of the message between ``start`` and ``end``."""
        kept = defaultdict[int, list[Field]](list)
        for field in self.fields(start, end):
            kept[field.number].append(field)
        return Message(self, kept)

    def text(self, start: int, end: int) -> str:
        """Decode a field; bytes that are not UTF-8 are replaced."""
        return self._view[start:end].tobytes().decode("utf-8", "replace")

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """Return the number that starts at ``at``, and where it ends."""
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
    """The fields of a message by number."""

    def __init__(self, wire: Wire, fields: Mapping[int, list[Field]]) -> None:
        self._wire = wire
        self._fields = fields

    def has(self, number: int) -> bool:
        """Whether there is a field of this number, which must be a message."""
        if any(field.wire != LEN for field in self._fields[number]):
            raise Damaged(f"field {number} is not a message")
        return bool(self._fields[number])

    def fields(self, *numbers: int) -> Iterator[Field]:
        """Yield the fields of these numbers."""
        for number in numbers:
            yield from self._fields[number]

    def parts(self, *numbers: int) -> Iterator[tuple[int, int]]:
        """Yield start and end of fields with a length: messages, strings, bytes."""
        for field in self.fields(*numbers):
            if field.wire == LEN:
                yield field.start, field.end

    def text(self, number: int, limit: int) -> str:
        """Return the first ``limit`` bytes of a string; empty if there is none."""
        for start, end in self.parts(number):
            return self._wire.text(start, min(end, start + limit))
        return ""

    def numbers(self, number: int, limit: int) -> tuple[int, ...]:
        """Return the first ``limit`` numbers, packed or not."""
        return tuple(islice(self._varints(number), limit))

    def number(self, number: int) -> int:
        """Return the first number of a field; 0 if there is none."""
        return next(self._varints(number), 0)

    def _varints(self, number: int) -> Iterator[int]:
        for _, wire, at, end in self._fields[number]:
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
    """Match a run of fields with one tag of one byte; longer tags would need too many patterns."""
    # Possessive, so the matcher keeps no positions to go back to.
    element = re.escape(bytes([tag])) + _ELEMENT[wire]
    return re.compile(b"(?:" + element + b")++", re.DOTALL)
