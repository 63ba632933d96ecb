"""The arrays of a TensorFlow Lite model (schema.fbs).

Buffers have bytes and no type; the tensor that uses one says its type, shape and name.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlpack.delta.spans.flatbuffer import Flatbuffer
from mlpack.delta.spans.span import MAX_NAME, MAX_RANK, Kind, Span, array

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
"""``TensorType``; the others are of bytes, or of four bits."""
_COMPLEX = {8, 11}
"""As pairs of floats."""
_NO_NUMBERS = {5, 13, 14}
"""Texts, resources, variants."""


def find(view: memoryview) -> Iterator[Span]:
    """The arrays of each graph's tensors. Raises :class:`Damaged` where an offset leads out."""
    file = Flatbuffer(view)
    model = file.root()
    places = [_place(file, buffer) for buffer in file.tables(model, _MODEL_BUFFERS)]
    for graph in file.tables(model, _MODEL_GRAPHS):
        for tensor in file.tables(graph, _GRAPH_TENSORS):
            buffer, kind = file.scalar(tensor, _BUFFER, 4), file.scalar(tensor, _TYPE, 1)
            if buffer < len(places) and kind not in _NO_NUMBERS and places[buffer][1]:
                start, length = places[buffer]
                name = file.text(tensor, _NAME, MAX_NAME)
                known = _KINDS.get(kind, Kind.I8)
                tail = (2,) if kind in _COMPLEX else ()
                yield from array(name, start, length, known, (*_shape(file, tensor), *tail))


def _place(file: Flatbuffer, buffer: int) -> tuple[int, int]:
    """Start and length of a buffer: within the flatbuffer, or behind it in models over 2 GB.

    There an offset of 1 stands for a buffer that has no bytes.
    """
    start, length = file.vector(buffer, _DATA, 1)
    if length:
        return start, length
    offset = file.scalar(buffer, _OFFSET, 8)
    return (offset, file.scalar(buffer, _SIZE, 8)) if offset > 1 else (0, 0)


def _shape(file: Flatbuffer, tensor: int) -> tuple[int, ...]:
    start, rank = file.vector(tensor, _SHAPE, 4)
    # One axis too many is as good as a thousand: the shape is left out.
    axes = range(min(rank, MAX_RANK + 1))
    return tuple(file.number(start + 4 * each, 4, signed=True) for each in axes)
