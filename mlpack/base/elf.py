"""Shrinks shared objects: removes what only a debugger or a linker reads.

``strip`` cannot replace it: its output depends on the version of binutils, it knows one
architecture at a time, and a layer's name is a hash of these bytes. A loader reads program
headers and what they cover, nothing else (System V ABI, *Program Loading*), so the rest can go:
section headers, symbol tables except the dynamic one, debug information.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"\x7fELF"

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_DYNAMIC = struct.Struct("<qQ")
_EXECUTABLE, _SHARED = 2, 3
_LOAD, _DYNAMIC_SEGMENT = 1, 2
_NO_BITS = 8
_NEEDED, _STRING_TABLE = 1, 5
_SECTION_FIELDS = ((40, 8), (58, 6))
"""Offset and length of ``e_shoff``, and of ``e_shentsize`` to ``e_shstrndx``."""

_MOST_SEGMENTS = 0xFFFF
_SLACK = 64
"""Bytes of alignment a file may end with after its last section."""


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size


@dataclass(frozen=True, slots=True)
class _Elf:
    table: tuple[int, int]
    """Where the program headers start and end."""

    segments: tuple[_Segment, ...]
    named_end: int
    """End of the last byte in any segment or section."""


def shrink(data: bytes) -> bytes:
    """Return ``data`` without the bytes no segment covers.

    A file that is not a plain 64-bit little-endian executable or shared object, is truncated, or
    has something after its last section (a payload that it reads from itself) is not changed.
    """
    elf = _read(data)
    if elf is None or len(data) - elf.named_end > _SLACK:
        return data
    covered = [(0, _HEADER.size), elf.table, *((s.offset, s.end) for s in elf.segments if s.size)]
    kept = bytearray(max(end for _, end in covered))
    for start, end in covered:
        kept[start:end] = data[start:end]
    for start, length in _SECTION_FIELDS:
        kept[start : start + length] = bytes(length)
    return bytes(kept)


def needs(data: bytes) -> tuple[str, ...]:
    """Return the libraries a loader needs before it runs ``data`` (``DT_NEEDED``), in order."""
    elf = _read(data)
    if elf is None:
        return ()
    entries = list(_dynamic(data, elf))
    tables = [_offset_of(value, elf) for tag, value in entries if tag == _STRING_TABLE]
    if not tables or tables[0] is None:
        return ()
    start = tables[0]
    found = (_text(data, start + value) for tag, value in entries if tag == _NEEDED)
    return tuple(name for name in found if name)


def _read(data: bytes) -> _Elf | None:
    """Return the parts of ``data``, or ``None`` if this module does not understand it."""
    # Class 2 is 64-bit, data 1 little-endian.
    if len(data) < _HEADER.size or data[:6] != MAGIC + b"\x02\x01":
        return None
    fields = _HEADER.unpack_from(data)
    kind, table, sections = fields[1], fields[5], fields[6]
    header_size, entry_size, count, section_size, section_count = fields[8:13]
    if kind not in (_EXECUTABLE, _SHARED):
        return None
    if (header_size, entry_size) != (_HEADER.size, _SEGMENT.size) or count in (0, _MOST_SEGMENTS):
        return None
    table_end = table + count * entry_size
    if table_end > len(data):
        return None
    segments = tuple(_segments(data, table, count))
    if any(each.end > len(data) for each in segments if each.size):
        return None
    end = _sections_end(data, sections, section_count, section_size)
    if end is None:
        return None
    named = max(end, table_end, *(each.end for each in segments))
    return _Elf((table, table_end), segments, named)


def _segments(data: bytes, table: int, count: int) -> Iterator[_Segment]:
    for number in range(count):
        kind, _, offset, address, _, size, _, _ = _SEGMENT.unpack_from(
            data, table + number * _SEGMENT.size
        )
        yield _Segment(kind, offset, address, size)


def _sections_end(data: bytes, table: int, count: int, size: int) -> int | None:
    """Return where section headers and sections end; ``None`` if the headers are truncated."""
    if not count:
        return 0
    ends = [table + count * size]
    if size != _SECTION.size or ends[0] > len(data):
        return None
    for number in range(count):
        _, kind, _, _, offset, length, *_ = _SECTION.unpack_from(data, table + number * size)
        if kind != _NO_BITS:
            ends.append(offset + length)
    return max(ends)


def _dynamic(data: bytes, elf: _Elf) -> Iterator[tuple[int, int]]:
    for segment in elf.segments:
        if segment.kind == _DYNAMIC_SEGMENT:
            whole = segment.size // _DYNAMIC.size * _DYNAMIC.size
            yield from _DYNAMIC.iter_unpack(data[segment.offset : segment.offset + whole])


def _offset_of(address: int, elf: _Elf) -> int | None:
    for each in elf.segments:
        if each.kind == _LOAD and each.address <= address < each.address + each.size:
            return each.offset + address - each.address
    return None


def _text(data: bytes, start: int) -> str:
    end = data.find(b"\0", start)
    return data[start:end].decode("ascii", "replace") if end >= 0 else ""
