"""Tar headers, written by ourselves so that no release of Python changes a layer's name.

POSIX ustar (IEEE Std 1003.1, *pax*), and a pax extended header only where a
name, a link or a size does not fit. ``tarfile`` wrote other bytes in Python 3.7
than in 3.9, and each diff id is a hash of these.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlpack.errors import MlpackError
from mlpack.oci.tree import Entry

BLOCK = 512
END = b"\0" * (2 * BLOCK)
"""Two empty blocks end an archive; they are not padded to a record of 20."""

_TYPES = {
    "file": b"0",
    "hardlink": b"1",
    "symlink": b"2",
    "directory": b"5",
    "whiteout": b"0",
    "opaque": b"0",
    "character": b"3",
    "block": b"4",
    "fifo": b"6",
}
_MAX_OCTAL_SIZE = 8**11 - 1
_MAX_OCTAL_ID = 8**7 - 1
_NAME, _PREFIX = 100, 155


def header(entry: Entry) -> bytes:
    """The one, or with an extended header three, blocks before an entry's content.

    Owners are numbers without names, and the modification time is 0: a layer's name
    is a hash of these bytes, and nothing of the machine may reach it.
    """
    name = entry.name + ("/" if entry.kind == "directory" else "")
    raw, link = _encoded(name), _encoded(entry.target)
    records = {f"SCHILY.xattr.{key}": value for key, value in entry.xattrs}
    split = _split(raw)
    if split is None or not name.isascii():
        records["path"] = raw
        split = (raw[-_NAME:] if name.isascii() else b"pax", b"")
    if len(link) > _NAME or not entry.target.isascii():
        records["linkpath"], link = link, b""
    numbers = {"uid": entry.uid, "gid": entry.gid, "size": entry.size}
    for key, limit in (("uid", _MAX_OCTAL_ID), ("gid", _MAX_OCTAL_ID), ("size", _MAX_OCTAL_SIZE)):
        if numbers[key] > limit:
            records[key], numbers[key] = str(numbers[key]).encode(), 0
    fields = _Fields(split, _TYPES[entry.kind], entry.mode, link=link, device=entry.device)
    uid, gid, size = numbers.values()
    main = _block(replace(fields, uid=uid, gid=gid, size=size))
    return _extended(records) + main if records else main


def _encoded(text: str) -> bytes:
    # Linux names are bytes: those that are no UTF-8 go through unchanged.
    return text.encode("utf-8", "surrogateescape")


def padding(size: int) -> bytes:
    """The zeros between the end of a content of ``size`` bytes and the next block."""
    return b"\0" * (-size % BLOCK)


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Name and prefix fields of a ustar header, or ``None`` where the name fits neither."""
    if len(name) <= _NAME:
        return name, b""
    for place, byte in enumerate(name[: _PREFIX + 1]):
        if byte == ord("/") and 0 < len(name) - place - 1 <= _NAME:
            return name[place + 1 :], name[:place]
    return None


@dataclass(frozen=True, slots=True)
class _Fields:
    """What one block says; numbers that fit their fields."""

    names: tuple[bytes, bytes]
    kind: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)


def _block(said: _Fields) -> bytes:
    name, prefix = said.names
    fields = (
        name.ljust(100, b"\0"),
        b"%07o\0" % said.mode,
        b"%07o\0" % said.uid,
        b"%07o\0" % said.gid,
        b"%011o\0" % said.size,
        b"00000000000\0",  # mtime
        b" " * 8,  # checksum, summed as spaces
        said.kind,
        said.link.ljust(100, b"\0"),
        b"ustar\x0000",
        b"\0" * 64,  # user and group name
        b"%07o\0" % said.device[0],
        b"%07o\0" % said.device[1],
        prefix.ljust(155, b"\0"),
        b"\0" * 12,
    )
    block = b"".join(fields)
    if len(block) != BLOCK:
        raise MlpackError(f"a tar header of {len(block)} bytes for {name!r}")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _extended(records: dict[str, bytes]) -> bytes:
    body = b"".join(_record(key, records[key]) for key in sorted(records))
    head = _block(_Fields((b"pax", b""), b"x", 0o644, size=len(body)))
    return head + body + padding(len(body))


def _record(key: str, value: bytes) -> bytes:
    """One pax record; its length counts its own digits."""
    rest = b" " + _encoded(key) + b"=" + value + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest
