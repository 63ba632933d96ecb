"""The arrays of a safetensors file (*Safetensors*, "Format").

Eight bytes of length, a JSON object of that length, then the numbers at the offsets it names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from mlpack.delta.spans.span import MAX_RANK, Damaged, Kind, Span, array

MAX_HEADER = 8 * 2**20
"""The format allows 100 MB; a model of ten thousand tensors needs one."""

_LENGTH = 8
_KINDS = {
    "F64": Kind.F64,
    "F32": Kind.F32,
    "F16": Kind.F16,
    "BF16": Kind.BF16,
    "I64": Kind.I64,
    "U64": Kind.I64,
    "I32": Kind.I32,
    "U32": Kind.I32,
    "I16": Kind.I16,
    "U16": Kind.I16,
    "C64": Kind.F32,
}
"""Of a number in the header; every other type (I8, U8, BOOL, F8_E4M3, F4...) is one of bytes."""


def is_one(view: memoryview) -> bool:
    """Whether a file begins as safetensors do, which have no magic."""
    begins = len(view) > _LENGTH and view[_LENGTH] == ord("{")
    return begins and int.from_bytes(view[:_LENGTH], "little") <= len(view) - _LENGTH


def find(view: memoryview) -> Iterator[Span]:
    """The arrays the header names. Raises :class:`Damaged` where one is not within the file."""
    length = int.from_bytes(view[:_LENGTH], "little")
    start = _LENGTH + length
    if length > MAX_HEADER or start > len(view):
        raise Damaged(f"a header of {length} bytes")
    for name, said in _header(view[_LENGTH:start].tobytes()).items():
        if name != "__metadata__":
            yield from _tensor(name, said, start, len(view))


def _header(text: bytes) -> dict[str, object]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"a header that is no JSON: {error}") from None
    if not isinstance(said, dict):
        raise Damaged("a header that is no object")
    return said


def _tensor(name: str, said: object, start: int, size: int) -> Iterator[Span]:
    match said:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]}:
            begin, end, *dims = _counts([begin, end, *shape[: MAX_RANK + 1]])
            if not begin <= end <= size - start:
                raise Damaged(f"{name!r} ends after the file")
            kind = _KINDS.get(dtype, Kind.I8)
            dims += [2] if dtype == "C64" else []  # complex, as pairs
            yield from array(name, start + begin, end - begin, kind, tuple(dims))
        case _:
            raise Damaged(f"{name!r} is no tensor")


def _counts(values: list[object]) -> list[int]:
    counts = [value for value in values if type(value) is int and value >= 0]
    if len(counts) < len(values):
        raise Damaged("a number that counts nothing")
    return counts
