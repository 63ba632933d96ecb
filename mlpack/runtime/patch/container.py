"""What a patch file holds: which file it makes of which, and streams of bytes, each compressed.

The format is on one page, docs/patch-format.md. Everything here is bounded by what
the header declares, and nothing it declares takes memory before the bytes are there.
"""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

MAGIC = b"MLPD"
VERSION = 1
MAX_WINDOW = 2**27
"""Bytes that a zstandard decompressor may keep; a frame that wants more is refused."""

_MOST_AT_ONCE = 1 << 22
"""Bytes asked of a decompressor in one go: zstandard takes memory for all that is asked for."""

_MAX_PARTS = 4096
_MAX_RANGES = 65536

RAW, ZSTD, ZSTD_OLD, LZMA_TEXT, LZMA_SYMBOLS, BZIP2 = range(6)
"""How a part is stored; ``ZSTD_OLD`` has ranges of the old file as its dictionary."""

PROGRAM, TABLES, LOW, ESCAPES, MASK, ADD, LITERAL = range(7)
"""What streams are for (docs/patch-format.md)."""

SYMBOLS = 16
"""The first of the symbol streams, one for each class of elements."""

MAX_CLASSES = 8


class BadPatch(Exception):
    """A patch that is damaged or hostile, or was made for another file."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes of a stream as they are stored; ``size`` is what they unpack to."""

    stream: int
    coder: int
    size: int
    stored: int
    ranges: tuple[tuple[int, int], ...] = ()
    """Offsets and lengths in the old file whose bytes, joined, are the dictionary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The file a patch is for, the file it makes (sizes in bytes), and its parts."""

    old_size: int
    new_size: int
    old_sha256: str
    new_sha256: str
    classes: int
    parts: tuple[Part, ...]
    length: int
    """Bytes of the header itself; the parts follow in their order."""


class Varints:
    """Numbers of seven bits a byte, the lowest first (LEB128), off a buffer."""

    def __init__(self, content: memoryview, at: int = 0) -> None:
        self._content = content
        self.at = at

    def bytes(self, count: int) -> memoryview:
        """The next ``count`` bytes."""
        taken = self._content[self.at : self.at + count]
        if len(taken) != count:
            raise BadPatch("the patch ends in the middle of a number")
        self.at += count
        return taken

    def unsigned(self) -> int:
        """The next number, below 2**63."""
        value = shift = 0
        while True:
            byte = self.bytes(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 56:
                raise BadPatch("a number in the patch is too large")
        return value

    def signed(self) -> int:
        """The next number whose sign is its lowest bit."""
        value = self.unsigned()
        return -(value >> 1) - 1 if value & 1 else value >> 1


def read_header(patch: memoryview) -> Header:
    """The header of ``patch``; raise :class:`BadPatch`."""
    if bytes(patch[:4]) != MAGIC:
        raise BadPatch("this is no patch: it does not begin with MLPD")
    if len(patch) < 6:
        raise BadPatch("the patch ends in its header")
    if patch[4] != VERSION:
        raise BadPatch(f"the patch is of version {patch[4]}; this reads version {VERSION}")
    if patch[5] > 3:
        raise BadPatch(f"the patch has 2**{patch[5]} classes of elements, 8 is the most")
    numbers = Varints(patch, 6)
    old_size, new_size = numbers.unsigned(), numbers.unsigned()
    old_sha256, new_sha256 = bytes(numbers.bytes(32)).hex(), bytes(numbers.bytes(32)).hex()
    count = numbers.unsigned()
    if count > _MAX_PARTS:
        raise BadPatch(f"the patch has {count} parts, {_MAX_PARTS} is the most")
    parts = tuple(_part(numbers, old_size) for _ in range(count))
    if numbers.at + sum(each.stored for each in parts) != len(patch):
        raise BadPatch("the patch is truncated, or something follows it")
    return Header(
        old_size=old_size,
        new_size=new_size,
        old_sha256=old_sha256,
        new_sha256=new_sha256,
        classes=1 << patch[5],
        parts=parts,
        length=numbers.at,
    )


def _part(numbers: Varints, old_size: int) -> Part:
    stream, coder = numbers.bytes(2)
    size, stored = numbers.unsigned(), numbers.unsigned()
    ranges = tuple(_ranges(numbers, old_size)) if coder == ZSTD_OLD else ()
    return Part(stream, coder, size, stored, ranges)


def _ranges(numbers: Varints, old_size: int) -> Iterator[tuple[int, int]]:
    count, total, end = numbers.unsigned(), 0, 0
    if count > _MAX_RANGES:
        raise BadPatch(f"a dictionary of {count} ranges, {_MAX_RANGES} is the most")
    for _ in range(count):
        offset = end + numbers.signed()
        length = numbers.unsigned()
        end = offset + length
        total += length
        if offset < 0 or end > old_size or total > MAX_WINDOW:
            raise BadPatch("a dictionary that is not in the old file")
        yield offset, length


def lzma_filters(coder: int, size: int) -> list[dict[str, int]]:
    """LZMA for a part that unpacks to ``size`` bytes: as usual for text, without context else."""
    window = min(max(1 << (size - 1).bit_length() if size else 0, 4096), 2**26)
    context = {"lc": 3, "pb": 2} if coder == LZMA_TEXT else {"lc": 0, "pb": 0}
    return [{"id": lzma.FILTER_LZMA1, "preset": 9, "dict_size": window, "lp": 0, **context}]


class Stream:
    """The bytes of all parts of one stream, one after the other, read forward."""

    def __init__(self, parts: Sequence[tuple[Part, memoryview]], old: memoryview) -> None:
        self._parts = iter(parts)
        self._old = old
        self._left = 0
        self._reader: _Reader = _Raw(memoryview(b""))

    def read(self, count: int) -> memoryview:
        """Exactly ``count`` bytes; raise :class:`BadPatch` where there are fewer."""
        taken: list[memoryview] = []
        while count:
            while not self._left:
                self._open()
            piece = self._reader.read(min(count, self._left, _MOST_AT_ONCE))
            if not piece:
                raise BadPatch("a part of the patch unpacks to less than it declares")
            taken.append(piece)
            self._left -= len(piece)
            count -= len(piece)
        if len(taken) == 1:
            return taken[0]
        return memoryview(b"".join(taken))

    def _open(self) -> None:
        found = next(self._parts, None)
        if found is None:
            raise BadPatch("a stream of the patch ends too early")
        part, stored = found
        self._left = part.size
        if part.coder == RAW:
            self._reader = _Raw(stored)
        elif part.coder in (ZSTD, ZSTD_OLD):
            pieces = [self._old[at : at + length] for at, length in part.ranges]
            self._reader = _Zstandard(stored, b"".join(pieces))
        elif part.coder in (LZMA_TEXT, LZMA_SYMBOLS):
            filters = lzma_filters(part.coder, part.size)
            self._reader = _Inflated(
                lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=filters), stored
            )
        elif part.coder == BZIP2:
            self._reader = _Inflated(bz2.BZ2Decompressor(), stored)
        else:
            raise BadPatch(f"a part of the patch is stored in an unknown way ({part.coder})")


class _Reader(Protocol):
    def read(self, count: int, /) -> memoryview:
        """At most ``count`` bytes; none at the end."""
        ...


class _Raw:
    def __init__(self, stored: memoryview) -> None:
        self._stored = stored
        self._at = 0

    def read(self, count: int, /) -> memoryview:
        taken = self._stored[self._at : self._at + count]
        self._at += len(taken)
        return taken


class _Zstandard:
    def __init__(self, stored: memoryview, dictionary: bytes) -> None:
        # Not at the top: a patch may be without it.
        import zstandard

        held = None
        if dictionary:
            held = zstandard.ZstdCompressionDict(dictionary, zstandard.DICT_TYPE_RAWCONTENT)
        inflater = zstandard.ZstdDecompressor(held, max_window_size=MAX_WINDOW)
        self._reader = inflater.stream_reader(stored)
        self._error = zstandard.ZstdError

    def read(self, count: int, /) -> memoryview:
        try:
            return memoryview(self._reader.read(count))
        except self._error as error:
            raise BadPatch(f"a part of the patch does not unpack ({error})") from error


class _Inflater(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes | memoryview, max_length: int = -1) -> bytes: ...


class _Inflated:
    def __init__(self, inflater: _Inflater, stored: memoryview) -> None:
        self._inflater = inflater
        self._stored = stored

    def read(self, count: int, /) -> memoryview:
        if self._inflater.eof:
            return memoryview(b"")
        given, self._stored = self._stored, memoryview(b"")
        try:
            return memoryview(self._inflater.decompress(given, count))
        except (OSError, lzma.LZMAError, ValueError) as error:
            raise BadPatch(f"a part of the patch does not unpack ({error})") from error
