"""The array of an .npy file (*NEP 1*, numpy.lib.format), and those of an .npz that are stored."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from math import prod

from mlpack.delta.spans.dtype import Element, element
from mlpack.delta.spans.span import MAX_RANK, Damaged, Span, array
from mlpack.delta.spans.zip import Member

MAGIC = b"\x93NUMPY"
MAX_HEADER = 65_536
"""numpy itself reads 10,000 bytes without being told to trust the file."""

_SIZES = {1: 2, 2: 4, 3: 4}
"""How many bytes say the header's length, by version."""

# The header is a literal of Python. What numpy and other writers make of it is plainer, and
# Python's own reader of literals can be brought down by deep ones.
_ORDER = re.compile(r"'fortran_order'\s*:\s*(True|False)")
_SHAPE = re.compile(r"'shape'\s*:\s*\(([\dL\s,]*)\)")
_SIMPLE = re.compile(r"'descr'\s*:\s*'([^']{1,40})'")
_RECORD = re.compile(r"'descr'\s*:\s*\[(.*)\]\s*,\s*'fortran_order'", re.DOTALL)
_FIELD = re.compile(
    r"\(\s*'[^'\\]*'\s*,\s*'([^'\\]{1,40})'\s*(?:,\s*\(([\d\s,]{0,400})\)\s*)?\)\s*,?\s*"
)
_MAX_DIGITS = 19
_LEAST = 6
"""Bytes after the magic that every file has: the version and the header's length."""


def find(view: memoryview, start: int, end: int, name: str) -> Iterator[Span]:
    """The array of the file between ``start`` and ``end``, if it is one of numbers.

    In Fortran's order the first axis is the fastest, so the shape is turned around: it is that
    of the bytes. Raises :class:`Damaged` where the file is cut or says no shape.
    """
    header, begin = _header(view, start, end)
    order, dims = _ORDER.search(header), _SHAPE.search(header)
    if not order or not dims:
        raise Damaged("a header without a shape")
    shape = _dims(dims[1])
    one = _element(header)
    if one is None:
        return
    length = prod(shape) * one.width
    if length > end - begin:
        raise Damaged(f"{length} bytes of numbers in {end - begin}")
    if order[1] == "True":
        shape = shape[::-1]
    yield from array(name, begin, length, one.kind, shape + one.tail)


def find_members(view: memoryview, members: Iterable[Member]) -> Iterator[Span]:
    """The arrays of a zip's stored members (numpy.lib.npyio, ``savez``), by their names."""
    for name, start, end in members:
        if name.endswith(".npy") and view[start : start + len(MAGIC)] == MAGIC:
            yield from find(view, start, end, name.removesuffix(".npy"))


def _header(view: memoryview, start: int, end: int) -> tuple[str, int]:
    at = start + len(MAGIC)
    size = _SIZES.get(view[at], 0) if end - at >= _LEAST else 0
    begin = at + 2 + size
    length = int.from_bytes(view[at + 2 : begin], "little")
    if not size or length > min(MAX_HEADER, end - begin):
        raise Damaged("a header that ends after the file")
    return view[begin : begin + length].tobytes().decode("latin-1"), begin + length


def _dims(text: str) -> tuple[int, ...]:
    dims = re.findall(r"\d+", text)
    if len(dims) > MAX_RANK or any(len(each) > _MAX_DIGITS for each in dims):
        raise Damaged("a shape that no array has")
    return tuple(int(each) for each in dims)


def _element(header: str) -> Element | None:
    """Of records, if all their fields are of one kind."""
    if simple := _SIMPLE.search(header):
        return element(simple[1])
    record = _RECORD.search(header)
    return _record(record[1].strip()) if record else None


def _record(text: str) -> Element | None:
    at, count, kinds = 0, 0, set()
    while at < len(text):
        field = _FIELD.match(text, at)
        one = element(field[1]) if field else None
        if not field or not one:
            return None
        at = field.end()
        kinds.add(one.kind)
        count += prod((*one.tail, *_dims(field[2] or "")))
    return Element(kinds.pop(), (count,)) if len(kinds) == 1 else None
