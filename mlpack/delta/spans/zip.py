"""The stored members of a zip and where their bytes lie (*APPNOTE.TXT*, .ZIP File Format).

What the directory at the end says of a member is believed where the header before the member
agrees; where one does not, the file is damaged, or made to be read in two ways.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from mlpack.delta.spans.span import MAX_NAME, Damaged

MAGIC = b"PK\x03\x04"
MAX_MEMBERS = 100_000

_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_MAX_COMMENT = 2**16 - 1
_LONG = 2**32 - 1
"""In a field of four bytes: the number is in an extra field of eight."""
_ENCRYPTED, _SIZES_BEHIND = 1, 8
_ZIP64 = 1


class Member(NamedTuple):
    """A member that is stored as it is, and where its bytes are."""

    name: str
    start: int
    end: int


class _Central(NamedTuple):
    """A member in the directory (4.3.12)."""

    magic: bytes
    made_by: int
    needed: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    packed: int
    size: int
    name_size: int
    extra_size: int
    comment_size: int
    disk: int
    internal: int
    external: int
    header: int


class _Said(NamedTuple):
    """What the directory says of a stored member."""

    name: bytes
    size: int
    packed: int
    header: int


class _Local(NamedTuple):
    """The header before a member (4.3.7)."""

    magic: bytes
    needed: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    packed: int
    size: int
    name_size: int
    extra_size: int


def members(view: memoryview) -> list[Member]:
    """The members that are neither compressed nor encrypted, in the order of their bytes.

    No two may share bytes, or a small zip could hold a very large one. Raises :class:`Damaged`.
    """
    found, last = list[Member](), 0
    said, directory = _said(view)
    for each in sorted(said, key=lambda one: one.header):
        member = _member(view, each, directory)
        if each.header < last:
            raise Damaged(f"two members in one place, at byte {each.header}")
        found.append(member)
        last = member.end
    return found


def _said(view: memoryview) -> tuple[list[_Said], int]:
    """What the directory says of the stored members, and where it begins."""
    count, first, end = _directory(view)
    if count > MAX_MEMBERS:
        raise Damaged(f"{count} members")
    found, at = list[_Said](), first
    for _ in range(count):
        entry = _Central._make(_read(_CENTRAL, view, at))
        name = at + _CENTRAL.size
        extra = name + entry.name_size
        comment = extra + entry.extra_size
        at = comment + entry.comment_size
        if entry.magic != b"PK\x01\x02" or at > end:
            raise Damaged("a directory that ends before its members")
        if entry.method == 0 and not entry.flags & _ENCRYPTED:
            numbers = [entry.size, entry.packed, entry.header]
            whole = _whole(numbers, view[extra:comment].tobytes())
            found.append(_Said(view[name:extra].tobytes(), *whole))
    return found, first


def _directory(view: memoryview) -> tuple[int, int, int]:
    """How many members there are, and where the directory begins and ends (4.3.16)."""
    tail = max(0, len(view) - _END.size - _MAX_COMMENT)
    at = tail + view[tail:].tobytes().rfind(b"PK\x05\x06")
    if at < tail:
        raise Damaged("a zip without an end")
    _, _, _, _, count, size, start, comment = _read(_END, view, at)
    if at + _END.size + comment != len(view):
        raise Damaged("a zip that goes on behind its end")
    locator = at - _LOCATOR.size
    if locator >= 0 and view[locator : locator + 4].tobytes() == b"PK\x06\x07":
        _, _, at, _ = _read(_LOCATOR, view, locator)
        magic, *_, count, size, start = _read(_END64, view, at)
        if magic != b"PK\x06\x06":
            raise Damaged("a long zip without its end")
    if start + size > at:
        raise Damaged("a directory behind its end")
    return count, start, start + size


def _member(view: memoryview, said: _Said, directory: int) -> Member:
    local = _Local._make(_read(_LOCAL, view, said.header))
    name = said.header + _LOCAL.size
    extra = name + local.name_size
    start = extra + local.extra_size
    sizes = _whole([local.size, local.packed], view[extra:start].tobytes())
    # A writer that could not go back wrote the sizes behind the member.
    unsaid = {0, _LONG} if local.flags & _SIZES_BEHIND else set()
    agree = (
        (local.magic, local.method) == (MAGIC, 0)
        and view[name:extra] == said.name
        and set(sizes) <= {said.size} | unsaid
        and said.packed == said.size
    )
    end = start + said.size
    if not agree or end > directory:
        raise Damaged(f"a member whose headers disagree, at byte {said.header}")
    return Member(said.name[-MAX_NAME:].decode("utf-8", "replace"), start, end)


def _whole(numbers: list[int], extra: bytes) -> list[int]:
    """Numbers that do not fit four bytes are in an extra field, in this order (4.5.3)."""
    longer = _extra64(extra)
    return [next(longer, _LONG) if number == _LONG else number for number in numbers]


def _extra64(extra: bytes) -> Iterator[int]:
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        at += 4
        if kind == _ZIP64:
            body = extra[at : at + size]
            yield from struct.unpack_from(f"<{len(body) // 8}Q", body)
        at += size


def _read(layout: struct.Struct, view: memoryview, at: int) -> tuple[Any, ...]:
    if not 0 <= at <= len(view) - layout.size:
        raise Damaged(f"a zip's header at byte {at}")
    return layout.unpack_from(view, at)
