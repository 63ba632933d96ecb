"""The arrays of a safetensors file (*Safetensors*, "Format").

Eight bytes of length, a JSON object of that length, then the numbers at the offsets it names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from mlpack.tensor_patch.spans.span import MAX_RANK, Damaged, Kind, Span, array_span

MAX_HEADER = 8 * 2**20
"""The format allows 100 MB; a model of ten thousand tensors needs one."""

_LENGTH = 8
_KINDS = {
    **{kind.name: kind for kind in Kind},
    "C64": Kind.F32,
    "U64": Kind.I64,
    "U32": Kind.I32,
    "U16": Kind.I16,
}
"""Other types (I8, U8, BOOL, F8_E4M3, F4...) are bytes."""


def detect(view: memoryview) -> int:
    """Recognise a length inside the file before an object; there is no magic."""
    begins = len(view) > _LENGTH and view[_LENGTH] == ord("{")
    fits = begins and int.from_bytes(view[:_LENGTH], "little") <= len(view) - _LENGTH
    return _LENGTH + 1 if fits else 0


def find(view: memoryview) -> Iterator[Span]:
    """Yield the arrays of the header. Raises :class:`Damaged` if one is not inside the file."""
    length = int.from_bytes(view[:_LENGTH], "little")
    start = _LENGTH + length
    if length > MAX_HEADER or start > len(view):
        raise Damaged(f"a header of {length} bytes")
    for name, entry in _header(view[_LENGTH:start].tobytes()).items():
        if name != "__metadata__":
            yield from _tensor(name, entry, start, len(view))


def _header(text: bytes) -> dict[str, object]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"the header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise Damaged("the header is not an object")
    return header


def _tensor(name: str, entry: object, start: int, size: int) -> Iterator[Span]:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]}:
            begin, end, *dims = _counts([begin, end, *shape[: MAX_RANK + 1]])
            if not begin <= end <= size - start:
                raise Damaged(f"{name!r} ends after the file")
            kind = _KINDS.get(dtype, Kind.I8)
            dims += [2] if dtype == "C64" else []  # complex, as pairs
            yield from array_span(name, start + begin, end - begin, kind, tuple(dims))
        case _:
            raise Damaged(f"{name!r} is not a tensor")


def _counts(values: list[object]) -> list[int]:
    counts = [value for value in values if type(value) is int and value >= 0]
    if len(counts) < len(values):
        raise Damaged("an offset or a dimension that is not a count")
    return counts
