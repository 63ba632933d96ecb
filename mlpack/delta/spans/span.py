"""A span: an array of numbers inside a file, by its place, its width and its shape.

Whatever a span says is a hint for making a patch small. A wrong kind or shape costs
bytes, never correctness: what reads spans treats their bytes losslessly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from math import prod
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import mmap

Buffer: TypeAlias = "bytes | bytearray | memoryview | mmap.mmap"
"""A file's content. It may be a map of a large file, so it is sliced and never copied whole."""

MAX_SPANS = 1_000_000
MAX_NAME = 256
MAX_RANK = 32


class Damaged(ValueError):
    """The content is not of the format it was read as. Caught before it leaves this package."""


class Kind(StrEnum):
    """How wide a number is and how its bits order; whether an integer has a sign is left out."""

    F16 = "f16"
    BF16 = "bf16"
    F32 = "f32"
    F64 = "f64"
    I8 = "i8"
    I16 = "i16"
    I32 = "i32"
    I64 = "i64"

    @property
    def width(self) -> int:
        """The bytes of one number."""
        return _WIDTH[self]


_WIDTH = {
    Kind.F16: 2,
    Kind.BF16: 2,
    Kind.F32: 4,
    Kind.F64: 8,
    Kind.I8: 1,
    Kind.I16: 2,
    Kind.I32: 4,
    Kind.I64: 8,
}


@dataclass(frozen=True, slots=True)
class Span:
    """``length`` bytes at ``offset`` that are little-endian numbers of ``kind``.

    ``name`` is the tensor's in the file, or made of where it stands; no two spans of a
    file share one. The product of ``shape`` is the count of numbers; where the file does
    not say a shape that fits, it is ``(count,)``.
    """

    name: str
    offset: int
    length: int
    kind: Kind
    shape: tuple[int, ...]


def array(
    name: str, offset: int, length: int, kind: Kind, shape: tuple[int, ...] | None = None
) -> Iterator[Span]:
    """The span of an array as its file describes it: one, or none where no number can lie there."""
    count, rest = divmod(length, kind.width)
    if length > 0 and not rest:
        yield Span(name[-MAX_NAME:], offset, length, kind, _fitting(shape, count))


def _fitting(shape: tuple[int, ...] | None, count: int) -> tuple[int, ...]:
    if shape is None or len(shape) > MAX_RANK or min(shape, default=0) < 0:
        return (count,)
    return shape if prod(shape) == count else (count,)


def settled(found: Iterable[Span], size: int) -> tuple[Span, ...]:
    """What was found in a file of ``size`` bytes: sorted, disjoint, within it, named apart.

    Of spans that overlap the first stays, and of two at one offset the longer: tied weights are
    one array with two names.
    """
    spans = list[Span]()
    for span in found:
        if len(spans) == MAX_SPANS:
            raise Damaged(f"more than {MAX_SPANS} arrays")
        if 0 <= span.offset <= size - span.length:
            spans.append(span)
    spans.sort(key=lambda each: (each.offset, -each.length, each.name))
    return tuple(_named_apart(_disjoint(spans)))


def _disjoint(spans: Iterable[Span]) -> Iterator[Span]:
    end = 0
    for span in spans:
        if span.offset >= end:
            end = span.offset + span.length
            yield span


def _named_apart(spans: Iterable[Span]) -> Iterator[Span]:
    """Later spans of a name that was taken get a number after it."""
    taken, last = set[str](), dict[str, int]()
    for span in spans:
        name = span.name
        while name in taken:
            last[span.name] = last.get(span.name, 1) + 1
            name = f"{span.name}#{last[span.name]}"
        taken.add(name)
        yield span if name == span.name else replace(span, name=name)
