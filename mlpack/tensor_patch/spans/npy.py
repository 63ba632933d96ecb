"""The array of an .npy file (*NEP 1*, numpy.lib.format). An .npz is a zip of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from mlpack.tensor_patch.spans.span import MAX_RANK, Damaged, Kind, Span, array_span

_CODE = re.compile(r"([<>|=]?)([?a-zA-Z])(\d{0,9})(?:\[[^\]]{0,20}\])?")
_NUMBERS: dict[str, tuple[Kind, tuple[int, ...]]] = {
    "f2": (Kind.F16, ()),
    "f4": (Kind.F32, ()),
    "f8": (Kind.F64, ()),
    "c8": (Kind.F32, (2,)),
    "c16": (Kind.F64, (2,)),
    "?": (Kind.I8, ()),
    "b1": (Kind.I8, ()),
    **{f"{sign}{width}": (kind, ()) for sign in "iu" for width, kind in (
        (1, Kind.I8), (2, Kind.I16), (4, Kind.I32), (8, Kind.I64)
    )},
    "m8": (Kind.I64, ()),
    "M8": (Kind.I64, ()),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Element:
    """One element of an array: numbers of ``kind``, ``tail`` of them."""

    kind: Kind
    tail: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """The bytes of one element."""
        return self.kind.width * prod(self.tail)


def element(code: str) -> Element | None:
    """Return the element of a type code like ``<f4``; ``None`` for text, objects and records.

    A big-endian number is a row of bytes, because all kinds are little-endian.
    """
    found = _CODE.fullmatch(code)
    if not found or found[2] + found[3] not in _NUMBERS:
        return None
    kind, tail = _NUMBERS[found[2] + found[3]]
    if found[1] == ">" and kind.width > 1:
        return Element(Kind.I8, (*tail, kind.width))
    return Element(kind, tail)


MAGIC = b"\x93NUMPY"
MAX_HEADER = 65_536
"""numpy itself reads 10,000 bytes unless it is told to trust the file."""

_LENGTH_BYTES = {1: 2, 2: 4, 3: 4}
"""How many bytes hold the header's length, by version."""
_FIRST = 6
"""Bytes after the magic that every file has: version and header length."""
_MAX_DIM = 10**19


NAME = "array"


def detect(view: memoryview) -> int:
    """Recognise the magic."""
    return len(MAGIC) if view[: len(MAGIC)] == MAGIC else 0


def find(view: memoryview) -> Iterator[Span]:
    """Yield the array of the file, if it is one of numbers.

    In Fortran order the first axis is the fastest, so the shape is reversed: spans have the shape
    of the bytes. Raises :class:`Damaged` if the file is cut or its shape cannot be.
    """
    text, begin = _header(view)
    match _literal(text):
        case {"descr": descr, "fortran_order": bool(fortran), "shape": list(dims)}:
            shape = _dims(dims)
        case _:
            return
    one = _element(descr)
    if one is None:
        return
    length = prod(shape) * one.width
    if length > len(view) - begin:
        raise Damaged(f"{length} bytes of numbers in {len(view) - begin}")
    axes = shape[::-1] if fortran else shape
    yield from array_span(NAME, begin, length, one.kind, axes + one.tail)


def _header(view: memoryview) -> tuple[str, int]:
    at = len(MAGIC)
    size = _LENGTH_BYTES.get(view[at], 0) if len(view) - at >= _FIRST else 0
    begin = at + 2 + size
    length = int.from_bytes(view[at + 2 : begin], "little")
    if not size or length > min(MAX_HEADER, len(view) - begin):
        raise Damaged("a header that ends after the file")
    return view[begin : begin + length].tobytes().decode("latin-1"), begin + length


def _literal(text: str) -> object:
    """Read a Python literal of strings, tuples, integers and truth values as JSON, or ``None``.

    ``ast.literal_eval``, which numpy uses, can exhaust the C stack; the JSON reader cannot.
    """
    text = text.translate(str.maketrans("'()", '"[]'))
    text = re.sub(r",\s*(?=[\]}])", "", text)
    text = re.sub(r"(?<=\d)L\b", "", text)  # a long integer of Python 2
    text = re.sub(r":\s*(?:True|False)\b", lambda found: found[0].lower(), text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _dims(dims: list[object]) -> tuple[int, ...]:
    found = tuple(each for each in dims if type(each) is int and 0 <= each < _MAX_DIM)
    if len(dims) > MAX_RANK or len(found) < len(dims):
        raise Damaged("a shape that no array has")
    return found


def _element(descr: object) -> Element | None:
    """Return what an element is; a record counts if all its fields are of one kind."""
    match descr:
        case str(code):
            return element(code)
        case list(fields):
            found = [_field(each) for each in fields]
            kinds = {each.kind for each in found if each}
            if len(kinds) == 1 and all(found):
                return Element(kinds.pop(), (sum(prod(each.tail) for each in found if each),))
    return None


def _field(field: object) -> Element | None:
    match field:
        case [_, str(code)]:
            return element(code)
        case [_, str(code), list(dims)] if one := element(code):
            return Element(one.kind, (*one.tail, *_dims(dims)))
    return None
