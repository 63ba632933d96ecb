"""The datasets of an HDF5 file (*HDF5 File Format Specification* 3.0): .h5 and what is in .keras.

Datasets in one piece or in chunks are read if nothing compresses them. Groups of many links that
are in a fractal heap are not followed: the objects of such a file are found by their signature.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import prod

from mlpack.tensor_patch.spans.binary import Binary
from mlpack.tensor_patch.spans.span import MAX_NAME, MAX_RANK, Damaged, Kind, Span, array_span

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_OBJECT, _NODE = b"OHDR", b"TREE"

# Types of messages in an object's header.
_DATASPACE, _DATATYPE, _LINK, _LAYOUT, _FILTERS, _CONTINUATION, _SYMBOLS = 1, 3, 6, 8, 11, 16, 17
_SHARED = 2
"""A message with this flag is elsewhere."""

_INTEGERS = {1: Kind.I8, 2: Kind.I16, 4: Kind.I32, 8: Kind.I64}
_FLOATS = {2: Kind.F16, 4: Kind.F32, 8: Kind.F64}


def detect(view: memoryview) -> int:
    """Recognise the signature."""
    return len(SIGNATURE) if view[: len(SIGNATURE)] == SIGNATURE else 0


def find(view: memoryview) -> list[Span]:
    """Return the datasets by their paths. Raises :class:`Damaged`."""
    return list(_Hdf5(view).spans())


class _Hdf5(Binary):
    def spans(self) -> Iterator[Span]:
        objects = [each.start() for each in re.finditer(_OBJECT, self.view)]
        stack = [(f"object {place}", at) for place, at in enumerate(objects)][::-1]
        stack.append(("", self._root()))
        seen = set[int]()
        while stack:
            path, at = stack.pop()
            if at in seen:
                continue
            seen.add(at)
            try:
                messages = list(self._messages(at))
                links = list(self._links(messages))
                spans = list(self._dataset(path, dict(messages)))
            except Damaged:
                continue  # numbers that look like an object
            yield from spans
            stack += [(f"{path}/{name}".strip("/"), to) for name, to in links[::-1]]

    def _root(self) -> int:
        version = self.number(8, 1)
        old = version < 2
        if version > 3 or self.number(13 if old else 9, 2) != 0x0808:
            raise Damaged("offsets that are not of eight bytes")
        return self.number(64 + 4 * version if old else 36, 8)

    def _messages(self, at: int) -> Iterator[tuple[int, int]]:
        """Yield type and place of the messages in an object's header."""
        if self.view[at : at + 4] == _OBJECT:
            flags = self.number(at + 5, 1)
            first = at + 6 + (16 if flags & 32 else 0) + (4 if flags & 16 else 0)
            width = 1 << (flags & 3)
            blocks = [(first + width, self.number(first, width))]
            # Type, flags and start of a message; blocks that continue it have a signature.
            form = (1, 3, 6 if flags & 4 else 4, 4)
        elif self.number(at, 1) == 1:
            blocks, form = [(at + 16, self.number(at + 8, 4))], (2, 4, 8, 0)
        else:
            raise Damaged(f"no object at byte {at}")
        width, flag, start, signature = form
        for begin, size in blocks:
            place, end = begin, begin + size
            while place + start <= end:
                kind, length = self.number(place, width), self.number(place + width, 2)
                if kind == _CONTINUATION:
                    to, more = self.numbers(place + start, 8, 2)
                    blocks.append((to + signature, more - 2 * signature))
                elif not self.number(place + flag, 1) & _SHARED:
                    yield kind, place + start
                place += start + length

    def _links(self, messages: list[tuple[int, int]]) -> Iterator[tuple[str, int]]:
        for kind, at in messages:
            if kind == _SYMBOLS:
                tree, heap = self.numbers(at, 8, 2)
                names = self.number(heap + 24, 8)
                for _, node in self._tree(tree, 8):
                    for entry in range(node + 8, node + 8 + 40 * self.number(node + 6, 2), 40):
                        begin, to = self.numbers(entry, 8, 2)
                        yield self.text(names + begin, MAX_NAME).split("\0")[0], to
            elif kind == _LINK:
                flags = self.number(at + 1, 1)
                place = at + 2 + (8 if flags & 4 else 0) + (1 if flags & 16 else 0)
                width = 1 << (flags & 3)
                length = self.number(place, width)
                if not flags & 8:  # a hard link
                    to = self.number(place + width + length, 8)
                    yield self.text(place + width, length), to

    def _tree(self, root: int, key: int) -> Iterator[tuple[int, int]]:
        """Yield the place of the key and the child of each leaf of a B-tree (version 1)."""
        stack = [(root, 1 << 8)]
        while stack:
            at, above = stack.pop()
            level, count = self.number(at + 5, 1), self.number(at + 6, 2)
            if self.view[at : at + 4] != _NODE or level >= above:
                raise Damaged(f"no node at byte {at}")
            for place in range(at + 24, at + 24 + count * (key + 8), key + 8):
                child = self.number(place + key, 8)
                if level:
                    stack.append((child, level))
                else:
                    yield place, child

    def _dataset(self, path: str, messages: dict[int, int]) -> Iterator[Span]:
        if not {_DATASPACE, _DATATYPE, _LAYOUT} <= messages.keys() or _FILTERS in messages:
            return
        element = self._element(messages[_DATATYPE])
        at = messages[_DATASPACE]
        version, rank = self.numbers(at, 1, 2)
        if element is None or rank > MAX_RANK:
            return
        kind, tail = element
        shape = self.numbers(at + (8 if version == 1 else 4), 8, rank) + tail
        at = messages[_LAYOUT]
        version, layout = self.numbers(at, 1, 2)
        if version == 3 and layout == 0:
            yield from array_span(path, at + 4, self.number(at + 2, 2), kind, shape)
        elif version in (3, 4) and layout == 1:
            start, length = self.numbers(at + 2, 8, 2)
            yield from array_span(path, start, length, kind, shape)
        elif version == 3 and layout == 2 and self.number(at + 2, 1) == rank + 1:
            chunk = self.numbers(at + 11, 4, rank) + tail
            for key, start in self._tree(self.number(at + 3, 8), 16 + 8 * rank):
                place = ",".join(map(str, self.numbers(key + 8, 8, rank)))
                yield from array_span(
                    f"{path}[{place}]", start, prod(chunk) * kind.width, kind, chunk
                )

    def _element(self, at: int) -> tuple[Kind, tuple[int, ...]] | None:
        """Return what an element is; big-endian ones are rows of bytes."""
        sort, width = self.number(at, 1) & 15, self.number(at + 4, 4)
        kind = {0: _INTEGERS, 1: _FLOATS}.get(sort, {}).get(width)
        if kind is Kind.F16 and self.number(at + 13, 1) == 8:  # bits of the exponent
            kind = Kind.BF16
        if kind and self.number(at + 1, 1) & 1:
            return Kind.I8, (width,)
        return (kind, ()) if kind else None
