"""Little-endian integers in a file, read where offsets lead, and the tables of flatbuffers."""

from __future__ import annotations

from typing import cast

from mlpack.tensor_patch.spans.span import MAX_NAME, Damaged

MAX_READS = 1_000_000
"""Of one file. A tensor takes about twenty; loops and tables that many offsets lead to end."""
MAX_COPY = 1 << 20
MAX_LINE = 4096


class Binary:
    """A file read by offsets. Every read is inside the file, and their number is limited."""

    def __init__(self, view: memoryview, reads: int | None = None) -> None:
        self.view = view
        self._left = MAX_READS if reads is None else reads

    def number(self, at: int, width: int, *, signed: bool = False) -> int:
        """Read the integer of ``width`` bytes at ``at``; raise :class:`Damaged`."""
        self._left -= 1
        if self._left < 0 or not 0 <= at <= len(self.view) - width:
            raise Damaged(f"an offset to byte {at}")
        return int.from_bytes(self.view[at : at + width], "little", signed=signed)

    def numbers(self, at: int, width: int, count: int) -> tuple[int, ...]:
        """Read ``count`` adjacent integers."""
        return tuple(self.number(at + width * each, width) for each in range(count))

    def text(self, at: int, length: int) -> str:
        """Decode ``length`` bytes, of a long string the first."""
        piece = self.view[at : at + min(length, MAX_NAME)]
        return piece.tobytes().decode("utf-8", "replace")


class ViewFile:
    """A view as a file for the standard library's readers. Large pieces are not copied."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move; raise ``OSError`` before the first byte."""
        at = offset + (0, self._at, len(self._view))[whence]
        if at < 0:
            raise OSError(f"byte {at} of a file")
        self._at = at
        return at

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._at

    def read(self, count: int | None = None) -> bytes:
        """Return the next bytes: :data:`MAX_COPY` at most, or a view of more."""
        end = len(self._view) if count is None else self._at + count
        piece = self._view[self._at : max(end, self._at)]
        self._at += len(piece)
        return piece.tobytes() if len(piece) <= MAX_COPY else cast(bytes, piece)

    def readline(self) -> bytes:
        """Return the rest of a line, of a long one its first bytes."""
        piece = self._view[self._at : self._at + MAX_LINE].tobytes()
        line = piece[: piece.find(b"\n") + 1 or len(piece)]
        self._at += len(line)
        return line


class Flatbuffer(Binary):
    """A file read as a flatbuffer (*FlatBuffers*, "Internals"). A place is a byte; 0 is none."""

    def root(self) -> int:
        """Return the place of the first table."""
        return self._forward(0)

    def field(self, table: int, index: int) -> int:
        """Return the place of a table's field, or 0 if the table omits it."""
        # The vtable is the only thing that may precede the offset to it.
        vtable = table - self.number(table, 4, signed=True)
        entry = 4 + 2 * index
        if entry + 2 > self.number(vtable, 2):
            return 0
        offset = self.number(vtable + entry, 2)
        return table + offset if offset else 0

    def scalar(self, table: int, index: int, width: int) -> int:
        """Read a field that is an unsigned integer; 0 if the table omits it."""
        at = self.field(table, index)
        return self.number(at, width) if at else 0

    def table(self, table: int, index: int) -> int:
        """Return the place of a table that is a field, or 0."""
        at = self.field(table, index)
        return self._forward(at) if at else 0

    def vector(self, table: int, index: int, width: int) -> tuple[int, int]:
        """Return where the elements of a field that is a vector start, and their number."""
        at = self.table(table, index)
        if not at:
            return 0, 0
        count = self.number(at, 4)
        if at + 4 + count * width > len(self.view):
            raise Damaged(f"a vector of {count} at byte {at}")
        return at + 4, count

    def tables(self, table: int, index: int) -> list[int]:
        """Return the places of the tables in a vector of tables."""
        start, count = self.vector(table, index, 4)
        return [self._forward(start + 4 * each) for each in range(count)]

    def string(self, table: int, index: int) -> str:
        """Return a field that is a string, or its first bytes."""
        return self.text(*self.vector(table, index, 1))

    def _forward(self, at: int) -> int:
        offset = self.number(at, 4)
        if not offset:
            raise Damaged(f"the offset at byte {at} is zero")
        return at + offset
