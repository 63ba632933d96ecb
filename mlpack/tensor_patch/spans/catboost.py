"""The numbers of a CatBoost model (``.cbm``; model.fbs and features.fbs of CatBoost)."""

from __future__ import annotations

from collections.abc import Iterator

from mlpack.tensor_patch.spans.binary import Flatbuffer
from mlpack.tensor_patch.spans.span import Kind, Span, array_span

MAGIC = b"CBM1"
_START = 8
"""The flatbuffer follows magic and size."""

_MODEL_TREES = 1
_FLOAT_FEATURES, _BORDERS = 5, 3
_ARRAYS = {
    "splits": (1, Kind.I32, ()),
    "sizes": (2, Kind.I32, ()),
    "starts": (3, Kind.I32, ()),
    "leaves": (8, Kind.F64, ()),
    "weights": (9, Kind.F64, ()),
    "steps": (10, Kind.I16, (2,)),
    "node leaves": (11, Kind.I32, ()),
    "bins": (17, Kind.I16, (2,)),
}
"""Vectors of ``TModelTrees``: place of the field, and the numbers in an element."""


def detect(view: memoryview) -> int:
    """Recognise the magic."""
    return len(MAGIC) if view[: len(MAGIC)] == MAGIC else 0


def find(view: memoryview) -> Iterator[Span]:
    """Yield the arrays of all trees, and the borders of each feature. Raises :class:`Damaged`."""
    with view[_START:] as inner:
        file = Flatbuffer(inner)
        trees = file.table(file.root(), _MODEL_TREES)
        if not trees:
            return
        found = [
            (name, *file.vector(trees, field, kind.width * (tail or (1,))[0]), kind, tail)
            for name, (field, kind, tail) in _ARRAYS.items()
        ]
        for place, feature in enumerate(file.tables(trees, _FLOAT_FEATURES)):
            found.append((f"borders.{place}", *file.vector(feature, _BORDERS, 4), Kind.F32, ()))
    for name, start, count, kind, tail in found:
        length = count * kind.width * (tail or (1,))[0]
        yield from array_span(name, _START + start, length, kind, (count, *tail))
