"""Tables and vectors of a flatbuffer (*FlatBuffers*, "Internals"), each step within the file.

Offsets of tables and vectors only go forward, so nothing can be in a circle, but many may name
one table; so reads are counted.
"""

from __future__ import annotations

from mlpack.delta.spans.span import Damaged

MAX_READS = 1_000_000
"""Of one file. A tensor takes some twenty."""


class Flatbuffer:
    """A file read as a flatbuffer. Places are bytes from its start; 0 is none."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._left = MAX_READS

    def number(self, at: int, width: int, *, signed: bool = False) -> int:
        """The little-endian integer of ``width`` bytes at ``at``."""
        self._left -= 1
        if self._left < 0 or not 0 <= at <= len(self._view) - width:
            raise Damaged(f"an offset to byte {at}")
        return int.from_bytes(self._view[at : at + width], "little", signed=signed)

    def root(self) -> int:
        """The place of the first table."""
        return self._forward(0)

    def field(self, table: int, index: int) -> int:
        """The place of a table's field, or 0 where the table leaves it out."""
        # The table of fields is the only thing that may lie before what names it.
        vtable = table - self.number(table, 4, signed=True)
        entry = 4 + 2 * index
        if entry + 2 > self.number(vtable, 2):
            return 0
        offset = self.number(vtable + entry, 2)
        return table + offset if offset else 0

    def scalar(self, table: int, index: int, width: int) -> int:
        """A field that is an unsigned integer, 0 where it is left out."""
        at = self.field(table, index)
        return self.number(at, width) if at else 0

    def table(self, table: int, index: int) -> int:
        """The place of a table that is a field, or 0."""
        at = self.field(table, index)
        return self._forward(at) if at else 0

    def vector(self, table: int, index: int, width: int) -> tuple[int, int]:
        """Where the elements of a field that is a vector begin, and how many there are."""
        at = self.table(table, index)
        if not at:
            return 0, 0
        count = self.number(at, 4)
        if at + 4 + count * width > len(self._view):
            raise Damaged(f"a vector of {count} at byte {at}")
        return at + 4, count

    def tables(self, table: int, index: int) -> list[int]:
        """The places of the tables in a vector of them."""
        start, count = self.vector(table, index, 4)
        return [self._forward(start + 4 * each) for each in range(count)]

    def text(self, table: int, index: int, limit: int) -> str:
        """A text, or its first ``limit`` bytes."""
        start, count = self.vector(table, index, 1)
        piece = self._view[start : start + min(count, limit)]
        return piece.tobytes().decode("utf-8", "replace")

    def _forward(self, at: int) -> int:
        offset = self.number(at, 4)
        if not offset:
            raise Damaged(f"an offset at byte {at} that goes nowhere")
        return at + offset
