"""The arrays of a TensorFlow Lite model (schema.fbs).

Buffers have bytes and no type; the tensor that uses one has its type, shape and name.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlpack.tensor_patch.spans.binary import Flatbuffer
from mlpack.tensor_patch.spans.span import MAX_RANK, Kind, Span, array_span

IDENTIFIER = b"TFL3"
"""At byte 4."""

# Places of fields in their tables of schema.fbs.
_MODEL_GRAPHS, _MODEL_BUFFERS = 2, 4
_GRAPH_TENSORS = 0
_SHAPE, _TYPE, _BUFFER, _NAME = 0, 1, 2, 3
_DATA, _OFFSET, _SIZE = 0, 1, 2

_KINDS = {
    0: Kind.F32,
    1: Kind.F16,
    2: Kind.I32,
    4: Kind.I64,
    7: Kind.I16,
    8: Kind.F32,
    10: Kind.F64,
    11: Kind.F64,
    12: Kind.I64,
    15: Kind.I32,
    16: Kind.I16,
    18: Kind.BF16,
}
"""Of ``TensorType``; the others are bytes, or have four bits."""
_COMPLEX = {8, 11}
"""Pairs of floats."""
_NO_NUMBERS = {5, 13, 14}
"""Strings, resources, variants."""


def detect(view: memoryview) -> int:
    """Recognise the identifier."""
    return len(IDENTIFIER) if view[4:8] == IDENTIFIER else 0


def find(view: memoryview) -> Iterator[Span]:
    """Yield each graph's arrays. Raises :class:`Damaged` if an offset leaves the file."""
    file = Flatbuffer(view)
    model = file.root()
    places = [_place(file, buffer) for buffer in file.tables(model, _MODEL_BUFFERS)]
    for graph in file.tables(model, _MODEL_GRAPHS):
        for tensor in file.tables(graph, _GRAPH_TENSORS):
            buffer, kind = file.scalar(tensor, _BUFFER, 4), file.scalar(tensor, _TYPE, 1)
            if buffer < len(places) and kind not in _NO_NUMBERS and places[buffer][1]:
                start, rank = file.vector(tensor, _SHAPE, 4)
                # One axis too many is enough to ignore the shape.
                shape = file.numbers(start, 4, min(rank, MAX_RANK + 1))
                shape += (2,) if kind in _COMPLEX else ()
                name = file.string(tensor, _NAME)
                yield from array_span(name, *places[buffer], _KINDS.get(kind, Kind.I8), shape)


def _place(file: Flatbuffer, buffer: int) -> tuple[int, int]:
    """Return start and length of a buffer: in the flatbuffer, or after it in models over 2 GB.

    There an offset of 1 means a buffer without bytes.
    """
    start, length = file.vector(buffer, _DATA, 1)
    if length:
        return start, length
    offset = file.scalar(buffer, _OFFSET, 8)
    return (offset, file.scalar(buffer, _SIZE, 8)) if offset > 1 else (0, 0)
