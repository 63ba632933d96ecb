"""The patch file: a header with the old and the new file, an index, and compressed bytes.

docs/reference/patch-format.md has the format. The header bounds everything, and nothing it
declares takes memory before its bytes have been read.
"""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

MAGIC = b"MLPD"
VERSION = 2
"""The version that is written."""

VERSIONS = (1, 2)
"""The versions that are read."""

MAX_WINDOW = 2**27
"""The largest window of a zstandard decompressor, in bytes; larger ones are refused."""

_MOST_AT_ONCE = 1 << 22
"""Bytes read from a decompressor at once: zstandard allocates as many as are requested."""

_MAX_PARTS = 4096
_MAX_RANGES = 65536

OLD_DIGEST = 8
"""Bytes of the old file's sha256 in a header of version 2: they tell which file is wrong."""

COLUMNS = 128
"""In the byte of the index's coder: the operations make a file of columns (columns.py)."""

RAW, ZSTD, ZSTD_OLD, LZMA_TEXT, LZMA_SYMBOLS, BZIP2, PCODEC = range(7)
"""How a part is compressed; ``ZSTD_OLD`` has ranges of the old file as its dictionary, and
``PCODEC`` is for numbers only."""


class BadPatch(Exception):
    """A patch that is damaged or malicious, or was made for another file."""


@dataclass(frozen=True, slots=True)
class StreamPart:
    """``size`` bytes of a stream, compressed to ``stored`` bytes."""

    stream: int
    coder: int
    size: int
    stored: int
    ranges: tuple[tuple[int, int], ...] = ()
    """Offsets and lengths in the old file whose bytes, joined, are the dictionary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The version, the old and the new file (sizes in bytes), and where the rest begins."""

    version: int
    old_size: int
    new_size: int
    old_sha256: str
    """In hexadecimal; of version 2 only its beginning, and nothing if the old file is empty."""

    new_sha256: str
    length: int
    """Bytes of the header itself."""

    def is_for(self, sha256: str) -> bool:
        """Whether the old file may be the one with this sha256 (hexadecimal)."""
        return sha256.startswith(self.old_sha256)


class Varints:
    """Reads numbers of seven bits a byte, the lowest first (LEB128), from a buffer."""

    def __init__(self, content: memoryview, at: int = 0) -> None:
        self._content = content
        self.at = at

    @property
    def left(self) -> int:
        """Bytes that have not been read."""
        return len(self._content) - self.at

    def bytes(self, count: int) -> memoryview:
        """Return the next ``count`` bytes."""
        taken = self._content[self.at : self.at + count]
        if len(taken) != count:
            raise BadPatch("the patch ends in the middle of a number")
        self.at += count
        return taken

    def unsigned(self) -> int:
        """Return the next number, below 2**63."""
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
        """Return the next number whose sign is its lowest bit."""
        value = self.unsigned()
        return -(value >> 1) - 1 if value & 1 else value >> 1

    def count(self, most: int, of: str) -> int:
        """Return the next number, which counts things; raise if it is above ``most``."""
        value = self.unsigned()
        if value > most:
            raise BadPatch(f"the patch has {value} {of}, the maximum is {most}")
        return value

    def parts(self, old_size: int) -> tuple[StreamPart, ...]:
        """Return the parts of byte streams that follow."""
        return tuple(self._part(old_size) for _ in range(self.count(_MAX_PARTS, "parts")))

    def _part(self, old_size: int) -> StreamPart:
        stream, coder = self.bytes(2)
        size, stored = self.unsigned(), self.unsigned()
        ranges = tuple(self._ranges(old_size)) if coder == ZSTD_OLD else ()
        return StreamPart(stream, coder, size, stored, ranges)

    def _ranges(self, old_size: int) -> Iterator[tuple[int, int]]:
        total = end = 0
        for _ in range(self.count(_MAX_RANGES, "ranges in a dictionary")):
            offset = end + self.signed()
            length = self.unsigned()
            end = offset + length
            total += length
            if offset < 0 or end > old_size or total > MAX_WINDOW:
                raise BadPatch("a dictionary is not inside the old file")
            yield offset, length


def read_header(patch: memoryview) -> Header:
    """Read the header of ``patch``, of any version; raise :class:`BadPatch`."""
    if bytes(patch[:4]) != MAGIC:
        raise BadPatch("this is not a patch: it does not begin with MLPD")
    if len(patch) < 6:
        raise BadPatch("the patch ends in its header")
    version = patch[4]
    if version not in VERSIONS:
        raise BadPatch(f"the patch is of version {version}; this reads versions 1 and 2")
    # In version 1, a byte about its symbols follows; format1.py reads it.
    numbers = Varints(patch, 6 if version == 1 else 5)
    old_size, new_size = numbers.unsigned(), numbers.unsigned()
    if version == 1:
        old, new = bytes(numbers.bytes(32)), bytes(numbers.bytes(32))
    else:
        new = bytes(numbers.bytes(32))
        old = bytes(numbers.bytes(OLD_DIGEST if old_size else 0))
    return Header(
        version=version,
        old_size=old_size,
        new_size=new_size,
        old_sha256=old.hex(),
        new_sha256=new.hex(),
        length=numbers.at,
    )


def stored_parts(
    parts: Sequence[StreamPart], patch: memoryview, at: int
) -> dict[int, list[tuple[StreamPart, memoryview]]]:
    """Return the parts of each stream with their compressed bytes, which begin at ``at``."""
    found = dict[int, list[tuple[StreamPart, memoryview]]]()
    for part in parts:
        found.setdefault(part.stream, []).append((part, patch[at : at + part.stored]))
        at += part.stored
    return found


def lzma_filters(coder: int, size: int) -> list[dict[str, int]]:
    """Return LZMA's filters for a part of ``size`` bytes: the default for text, else no context."""
    window = min(max(1 << (size - 1).bit_length() if size else 0, 4096), 2**26)
    context = {"lc": 3, "pb": 2} if coder == LZMA_TEXT else {"lc": 0, "pb": 0}
    return [{"id": lzma.FILTER_LZMA1, "preset": 9, "dict_size": window, "lp": 0, **context}]


class StreamReader:
    """Reads the parts of one stream as one sequence of bytes."""

    def __init__(self, parts: Sequence[tuple[StreamPart, memoryview]], old: memoryview) -> None:
        self._parts = iter(parts)
        self._old = old
        self._left = 0
        self._read: _Read = _raw(memoryview(b""))

    def read(self, count: int) -> memoryview:
        """Return exactly ``count`` bytes; raise :class:`BadPatch` if there are fewer."""
        taken: list[memoryview] = []
        while count:
            while not self._left:
                self._open()
            piece = self._read(min(count, self._left, _MOST_AT_ONCE))
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
            self._read = _raw(stored)
        elif part.coder in (ZSTD, ZSTD_OLD):
            pieces = [self._old[at : at + length] for at, length in part.ranges]
            self._read = _zstandard(stored, b"".join(pieces))
        elif part.coder in (LZMA_TEXT, LZMA_SYMBOLS):
            filters = lzma_filters(part.coder, part.size)
            self._read = _inflated(
                lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=filters), stored
            )
        elif part.coder == BZIP2:
            self._read = _inflated(bz2.BZ2Decompressor(), stored)
        else:
            raise BadPatch(f"a part of the patch has an unknown coder ({part.coder})")


_Read = Callable[[int], memoryview]
"""Returns at most so many bytes of a part; none at the end."""


def _raw(stored: memoryview) -> _Read:
    at = 0

    def read(count: int) -> memoryview:
        nonlocal at
        taken = stored[at : at + count]
        at += len(taken)
        return taken

    return read


def _zstandard(stored: memoryview, dictionary: bytes) -> _Read:
    # Not at the top: not every patch needs it.
    import zstandard

    held = None
    if dictionary:
        held = zstandard.ZstdCompressionDict(dictionary, zstandard.DICT_TYPE_RAWCONTENT)
    reader = zstandard.ZstdDecompressor(held, max_window_size=MAX_WINDOW).stream_reader(stored)

    def read(count: int) -> memoryview:
        try:
            return memoryview(reader.read(count))
        except zstandard.ZstdError as error:
            raise BadPatch(f"a part of the patch does not unpack ({error})") from error

    return read


def _inflated(inflater: lzma.LZMADecompressor | bz2.BZ2Decompressor, stored: memoryview) -> _Read:
    left = stored

    def read(count: int) -> memoryview:
        nonlocal left
        if inflater.eof:
            return memoryview(b"")
        given, left = left, memoryview(b"")
        try:
            return memoryview(inflater.decompress(given, count))
        except (OSError, lzma.LZMAError, ValueError) as error:
            raise BadPatch(f"a part of the patch does not unpack ({error})") from error

    return read
