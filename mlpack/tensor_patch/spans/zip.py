"""The stored members of a zip archive and where their bytes are (*APPNOTE.TXT*).

``zipfile`` reads the directory at the end. A member counts only if the local header before its
bytes agrees with the directory; an archive that can be read in two ways is damaged.
"""

from __future__ import annotations

import struct
import zipfile
from typing import NamedTuple

from mlpack.tensor_patch.spans.binary import ViewFile
from mlpack.tensor_patch.spans.span import MAX_NAME, Damaged

MAGIC = b"PK\x03\x04"
MAX_MEMBERS = 100_000
MAX_DIRECTORY = 64 * 2**20
"""Bytes of the directory that are read: 600 for each of the most members."""

_LOCAL = struct.Struct("<4s2xHH8x2L2H")
"""Local header (4.3.7): magic, flags, method, compressed size, size, name size, extra size."""
_END = struct.Struct("<4s6xH8xH")
"""End of the directory (4.3.16): magic, number of members, size of the comment."""
_IN_EXTRA = 2**32 - 1
"""In a field of four bytes: the size is in an extra field (4.5.3)."""
_IN_LONG_END = 2**16 - 1
"""Number of members that only the zip64 end of the directory has (4.4.1.4)."""
_ENCRYPTED, _SIZES_FOLLOW, _UTF8 = 1, 8, 0x800


def detect(view: memoryview) -> int:
    """Recognise the first member."""
    return len(MAGIC) if view[: len(MAGIC)] == MAGIC else 0


class Member(NamedTuple):
    """A stored member and where its bytes are."""

    name: str
    start: int
    end: int


def members(view: memoryview) -> list[Member]:
    """Return the members that are neither compressed nor encrypted, in the order of their bytes.

    No two may share bytes, or a small archive could hold a very large one. Raises
    :class:`Damaged`.
    """
    infos, directory = _directory(view)
    found, last = list[Member](), 0
    for info in sorted(infos, key=lambda each: each.header_offset):
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _ENCRYPTED:
            continue
        if info.header_offset < last:
            raise Damaged(f"two members overlap at byte {info.header_offset}")
        found.append(_member(view, info, directory))
        last = found[-1].end
    return found


def _directory(view: memoryview) -> tuple[list[zipfile.ZipInfo], int]:
    """Return the directory's entries and where the directory starts."""
    try:
        archive = zipfile.ZipFile(_File(view))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise Damaged(f"not a readable zip: {error}") from None
    infos, comment = archive.infolist(), len(archive.comment)
    # zipfile accepts bytes after the comment, and any number of members.
    magic, count, size = _END.unpack_from(view, len(view) - _END.size - comment)
    if (magic, size) != (b"PK\x05\x06", comment) or count not in (len(infos), _IN_LONG_END):
        raise Damaged("the end of the zip disagrees with its directory")
    return infos, archive.start_dir


def _member(view: memoryview, info: zipfile.ZipInfo, directory: int) -> Member:
    name = info.header_offset + _LOCAL.size
    if not _LOCAL.size <= name <= directory:
        raise Damaged(f"a local header at byte {info.header_offset}")
    header = _LOCAL.unpack_from(view, info.header_offset)
    magic, flags, method, *sizes, name_size, extra_size = header
    extra = name + name_size
    start = extra + extra_size
    end = start + info.file_size
    # A writer that could not seek wrote the sizes after the member.
    elsewhere = {0, _IN_EXTRA} if flags & _SIZES_FOLLOW else {_IN_EXTRA}
    encoding = "utf-8" if info.flag_bits & _UTF8 else "cp437"
    agree = (
        (magic, method) == (MAGIC, zipfile.ZIP_STORED)
        and info.compress_size == info.file_size
        and set(sizes) <= {info.file_size} | elsewhere
        and view[name:extra].tobytes().decode(encoding, "replace") == info.orig_filename
    )
    if not agree or end > directory:
        raise Damaged(f"the headers of the member at byte {info.header_offset} disagree")
    return Member(info.orig_filename[-MAX_NAME:], start, end)


class _File(ViewFile):
    """Refuses directories that are too large."""

    def read(self, count: int | None = None) -> bytes:
        content = super().read(count)
        if len(content) > MAX_DIRECTORY:
            raise Damaged(f"a directory of {len(content)} bytes")
        content = bytes(content)
        if content.count(b"PK\x01\x02") > MAX_MEMBERS:
            raise Damaged(f"more than {MAX_MEMBERS} members")
        return content
