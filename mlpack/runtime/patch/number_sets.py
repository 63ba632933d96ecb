"""The numbers of a patch's arrays, by set and group, and the pages in which pcodec has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import Array
from .container import PCODEC, BadPatch, StreamPart, StreamReader

PAGE = 1 << 16
"""Numbers in a page, except in the last of a group."""

_META = 1 << 18
"""More bytes than pcodec writes before the pages of a group."""

_OVER = 1 << 17
"""More bytes than an incompressible page takes above its numbers."""


@dataclass(frozen=True, slots=True)
class NumberSet:
    """Groups of signed integers of ``size`` bytes.

    A part's ``size`` is its count of numbers. ``bounds`` are where the second group and all
    further ones begin, in eighths of a bit.
    """

    size: int
    bounds: tuple[int, ...]
    groups: tuple[StreamPart, ...]


_NONE: Array = np.empty(0, np.int8)


class NumberReader:
    """Reads the numbers of one group as one sequence."""

    def __init__(self, part: StreamPart, stored: memoryview, size: int, header: bytes) -> None:
        self._dtype = np.dtype(f"<i{size}")
        self._left = part.size
        self._page = _NONE
        if part.coder == PCODEC:
            self._next = _Pages(stored, self._dtype, header).read
        else:
            bytes_of = StreamPart(0, part.coder, part.size * size, part.stored)
            self._reader = StreamReader([(bytes_of, stored)], memoryview(b""))
            self._next = self._plain

    def read(self, count: int) -> Array:
        """Return exactly ``count`` numbers; raise :class:`BadPatch` if there are fewer."""
        pieces = list[Array]()
        while count:
            page = self._page if len(self._page) else self._next_page()
            pieces.append(page[:count])
            # A view would keep a page that has been read, of every group until the end.
            self._page = page[count:] if count < len(page) else _NONE
            count -= len(pieces[-1])
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty(0, self._dtype)

    def _next_page(self) -> Array:
        size = min(self._left, PAGE)
        if not size:
            raise BadPatch("a group of numbers ends too early")
        page = self._next(size)
        self._left -= size
        if not self._left:
            del self._next
        return page

    def _plain(self, count: int) -> Array:
        return np.frombuffer(self._reader.read(count * self._dtype.itemsize), self._dtype)


class _Pages:
    """Pages of pcodec's wrapped format: what describes all of them, then one after the other."""

    def __init__(self, stored: memoryview, dtype: np.dtype[Any], header: bytes) -> None:
        self._stored = stored
        self._dtype = dtype
        self._header = header
        self._decompressor: Any = None

    def read(self, count: int) -> Array:
        # Not at the top: not every patch has arrays.
        from pcodec import wrapped

        page = np.empty(count, self._dtype)
        try:
            if self._decompressor is None:
                file, _ = wrapped.FileDecompressor.new(self._header)
                name = f"i{8 * self._dtype.itemsize}"
                found = file.chunk_decompressor(bytes(self._stored[:_META]), name)
                self._decompressor, used = found
                self._stored = self._stored[used:]
            given = bytes(self._stored[: count * self._dtype.itemsize + _OVER])
            progress, used = self._decompressor.read_page_into(given, count, page)
        except (RuntimeError, TypeError, ValueError) as error:
            raise BadPatch(f"numbers of the patch do not unpack ({error})") from error
        if progress.n_processed != count:
            raise BadPatch("a page of the patch has fewer numbers than it declares")
        self._stored = self._stored[used:]
        return page


class SetReader:
    """Reads the numbers of one set."""

    def __init__(self, of: NumberSet, stored: Sequence[memoryview], header: bytes) -> None:
        self.bounds = np.array(of.bounds, np.int16)
        self._dtype = np.dtype(f"<i{of.size}")
        self._groups = [
            NumberReader(part, piece, of.size, header)
            for part, piece in zip(of.groups, stored, strict=True)
        ]

    def read(self, group: int, count: int) -> Array:
        """Return the next ``count`` numbers of one group."""
        return self._groups[group].read(count)

    def sorted(self, groups: Array) -> Array:
        """Return a number for each element, from the group (uint8) of each."""
        counts = np.bincount(groups, minlength=len(self._groups))
        used = np.flatnonzero(counts)
        if len(used) == 1:
            return self.read(int(used[0]), len(groups))
        made, order, at = np.empty(len(groups), self._dtype), np.argsort(groups, kind="stable"), 0
        for each in used.tolist():
            count = int(counts[each])
            made[order[at : at + count]] = self.read(each, count)
            at += count
        return made
