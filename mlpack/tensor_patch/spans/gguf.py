"""The tensors of a GGUF file (*GGUF*, ggml's gguf.md); quantised ones as rows of their blocks."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from mlpack.tensor_patch.spans.binary import Binary
from mlpack.tensor_patch.spans.span import MAX_RANK, Damaged, Kind, Span, array_span

MAGIC = b"GGUF"
MAX_READS = 8_000_000
"""A vocabulary has a few hundred thousand texts."""

_VERSIONS = (2, 3)
_ALIGNMENT = 32
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value in the header, by type."""
_STRING, _ARRAY = 8, 9
_MAX_DEPTH = 4

_KINDS = {
    0: Kind.F32,
    1: Kind.F16,
    24: Kind.I8,
    25: Kind.I16,
    26: Kind.I32,
    27: Kind.I64,
    28: Kind.F64,
    30: Kind.BF16,
}
_BLOCKS = {
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 36),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    29: (256, 56),
    34: (256, 54),
    35: (256, 66),
    39: (32, 17),
}
"""Of quantised types: numbers and bytes of a block."""


def detect(view: memoryview) -> int:
    """Recognise the magic."""
    return len(MAGIC) if view[: len(MAGIC)] == MAGIC else 0


def find(view: memoryview) -> list[Span]:
    """Return the tensors. Raises :class:`Damaged`."""
    return list(_Header(view).tensors())


class _Header(Binary):
    def __init__(self, view: memoryview) -> None:
        super().__init__(view, MAX_READS)
        self._at = len(MAGIC)

    def tensors(self) -> Iterator[Span]:
        if self._next(4) not in _VERSIONS:
            raise Damaged("an unknown version of GGUF")
        tensors, values = self._next(8), self._next(8)
        alignment = _ALIGNMENT
        for _ in range(values):
            key, code = self._string(), self._next(4)
            if key == "general.alignment":
                alignment = max(self.number(self._at, 4), 1)
            self._skip(code, 1, 0)
        entries = [self._entry() for _ in range(tensors)]
        start = -(-self._at // alignment) * alignment
        for name, dims, code, offset in entries:
            count = prod(dims)
            if code in _KINDS:
                kind = _KINDS[code]
                yield from array_span(name, start + offset, count * kind.width, kind, dims)
            elif code in _BLOCKS:
                numbers, width = _BLOCKS[code]
                rows = (count // numbers, width)
                yield from array_span(name, start + offset, prod(rows), Kind.I8, rows)

    def _entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name, rank = self._string(), self._next(4)
        if rank > MAX_RANK:
            raise Damaged(f"a tensor of {rank} axes")
        dims = tuple(self._next(8) for _ in range(rank))
        return name, dims[::-1], self._next(4), self._next(8)  # the fastest axis is the first

    def _next(self, width: int) -> int:
        self._at += width
        return self.number(self._at - width, width)

    def _string(self) -> str:
        length = self._next(8)
        self._at += length
        return self.text(self._at - length, length)

    def _skip(self, code: int, count: int, depth: int) -> None:
        if code in _WIDTHS:
            self._at += count * _WIDTHS[code]
        elif code == _STRING:
            for _ in range(count):
                self._string()
        elif code == _ARRAY and depth < _MAX_DEPTH:
            for _ in range(count):
                self._skip(self._next(4), self._next(8), depth + 1)
        else:
            raise Damaged(f"a value of type {code}")
