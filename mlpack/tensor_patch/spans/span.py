"""A span: an array of numbers inside a file, by its place, its number type and its shape.

Spans are hints for making a patch small. A wrong kind or shape costs bytes, never correctness:
whatever reads spans treats their bytes losslessly.
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
MAX_PATH = 4096


class Damaged(ValueError):
    """The content is not of the format it was read as. Caught before it leaves this package."""


class Kind(StrEnum):
    """How wide a number is and how its bits order; whether an integer is signed is left out."""

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
        return int(self.value.lstrip("bfi")) // 8


@dataclass(frozen=True, slots=True)
class Span:
    """``length`` bytes at ``offset`` that are little-endian numbers of ``kind``.

    ``name`` is the tensor's name in the file, or derived from its place; no two spans of a file
    share one. The product of ``shape`` is the count of numbers; if the file states no shape that
    fits, it is ``(count,)``.
    """

    name: str
    offset: int
    length: int
    kind: Kind
    shape: tuple[int, ...]


External: TypeAlias = dict[str, list[Span]]
"""Arrays in other files than the one that describes them, by relative path."""


def inner_path(text: str) -> str | None:
    """Return a path below the model's folder without ``.`` and ``//``; ``None`` for others."""
    steps = [step for step in text.split("/") if step not in ("", ".")]
    refused = text.startswith("/") or len(text) > MAX_PATH or ".." in steps
    if refused or not steps or any(sign in text for sign in "\\:\0"):
        return None
    return "/".join(steps)


def array_span(
    name: str, offset: int, length: int, kind: Kind, shape: tuple[int, ...] | None = None
) -> Iterator[Span]:
    """Yield the span of an array as its file describes it, or nothing if no number fits there."""
    count, rest = divmod(length, kind.width)
    if length > 0 and not rest:
        yield Span(name[-MAX_NAME:], offset, length, kind, _fitting(shape, count))


def _fitting(shape: tuple[int, ...] | None, count: int) -> tuple[int, ...]:
    if shape is None or len(shape) > MAX_RANK or min(shape, default=0) < 0:
        return (count,)
    return shape if prod(shape) == count else (count,)


def normalized(found: Iterable[Span], size: int) -> tuple[Span, ...]:
    """Return the spans in a file of ``size`` bytes sorted, disjoint, inside it, with unique names.

    Of spans that overlap the first stays, and of two at one offset the longer: tied weights are
    one array with two names. Raises :class:`Damaged` for more than :data:`MAX_SPANS`.
    """
    spans = list[Span]()
    for span in found:
        if len(spans) == MAX_SPANS:
            raise Damaged(f"more than {MAX_SPANS} arrays")
        if 0 <= span.offset <= size - span.length:
            spans.append(span)
    spans.sort(key=lambda each: (each.offset, -each.length, each.name))
    return tuple(_with_unique_names(_disjoint(spans)))


def _disjoint(spans: Iterable[Span]) -> Iterator[Span]:
    end = 0
    for span in spans:
        if span.offset >= end:
            end = span.offset + span.length
            yield span


def _with_unique_names(spans: Iterable[Span]) -> Iterator[Span]:
    """Add a number to names that an earlier span has."""
    taken, last = set[str](), dict[str, int]()
    for span in spans:
        name = span.name
        while name in taken:
            last[span.name] = last.get(span.name, 1) + 1
            name = f"{span.name}#{last[span.name]}"
        taken.add(name)
        yield span if name == span.name else replace(span, name=name)
