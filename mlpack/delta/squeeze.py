"""Compressing one stream of a patch: whatever is smallest and unpacks in time on a device."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Iterator, Sequence

import numpy as np
import zstandard

from mlpack.delta.logs import coded_bytes
from mlpack.runtime.patch import container
from mlpack.runtime.patch.container import Part

QUICK = 1 << 24
"""Bytes of a model up to which slow coders are allowed: LZMA unpacks about 15 MB/s."""

_SAMPLE = 1 << 18
_SMALL = 1 << 16


def squeeze(stream: int, content: bytes | bytearray | memoryview, *, slow: bool) -> Pack:
    """The smallest form of ``content``; ``slow`` allows coders that unpack slowly."""
    found = Pack(stream, content)
    for coder, stored in _tried(content, slow):
        found = min(found, Pack(stream, content, coder, stored), key=lambda each: each.length)
    return found


def squeeze_onto(
    stream: int,
    content: bytes | bytearray | memoryview,
    old: memoryview,
    ranges: Sequence[tuple[int, int]],
    *,
    levels: Sequence[int],
) -> Pack:
    """``content`` by zstandard, with ``ranges`` (offset, length) of ``old`` as the dictionary."""
    joined = b"".join(old[at : at + length] for at, length in ranges)
    held = zstandard.ZstdCompressionDict(joined, zstandard.DICT_TYPE_RAWCONTENT)
    # The window has to reach from the end of the content to the start of the dictionary.
    window = (len(content) + len(joined) + 1).bit_length()
    made = []
    for level in levels:
        chosen = zstandard.ZstdCompressionParameters.from_level(
            level,
            source_size=len(content),
            dict_size=len(joined),
            window_log=min(max(window, 10), container.MAX_WINDOW.bit_length() - 1),
            write_content_size=True,
            write_dict_id=False,
        )
        packer = zstandard.ZstdCompressor(dict_data=held, compression_params=chosen)
        made.append(packer.compress(content))
    return Pack(stream, content, container.ZSTD_OLD, min(made, key=len), tuple(ranges))


class Pack:
    """A part of a patch with its bytes."""

    def __init__(
        self,
        stream: int,
        content: bytes | bytearray | memoryview,
        coder: int = container.RAW,
        stored: bytes | bytearray | memoryview | None = None,
        ranges: tuple[tuple[int, int], ...] = (),
    ) -> None:
        self.stored = content if stored is None else stored
        self.part = Part(stream, coder, len(content), len(self.stored), ranges)

    @property
    def length(self) -> int:
        """Bytes in the patch, with about what its entry in the header takes."""
        return self.part.stored + 6 * len(self.part.ranges)


def _tried(
    content: bytes | bytearray | memoryview, slow: bool
) -> Iterator[tuple[int, bytes | bytearray | memoryview]]:
    level = _quick_level(content)
    if not level and len(content) > _SMALL:
        return
    quick = _zstandard(content, level or 3)
    yield container.ZSTD, quick
    if not slow:
        return
    yield _lzma(container.LZMA_SYMBOLS, content)
    # Where bytes only are uneven, nothing finds more than that; what repeats is worth a search.
    uneven = coded_bytes(np.frombuffer(content, np.uint8), np.zeros(256))
    if len(content) > _SMALL and len(quick) > 0.97 * uneven:
        return
    yield _lzma(container.LZMA_TEXT, content)
    yield container.BZIP2, bz2.compress(content)
    for level in (19, 22):
        yield container.ZSTD, _zstandard(content, level)


def _lzma(coder: int, content: bytes | bytearray | memoryview) -> tuple[int, bytes]:
    filters = container.lzma_filters(coder, len(content))
    return coder, lzma.compress(content, lzma.FORMAT_RAW, filters=filters)


def _quick_level(content: bytes | bytearray | memoryview) -> int:
    """A level for a stream, by its middle, or 0: what only has uneven bytes needs no search."""
    start = max(len(content) - _SAMPLE, 0) // 2
    middle = memoryview(content)[start : start + _SAMPLE]
    sizes = {level: len(_zstandard(middle, level)) for level in (1, 3, 9)}
    if min(sizes.values()) > 0.995 * len(middle):
        return 0
    return min(level for level in sizes if sizes[level] <= 1.005 * min(sizes.values()))


def _zstandard(content: bytes | bytearray | memoryview, level: int) -> bytes:
    chosen = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=len(content), write_content_size=True
    )
    return zstandard.ZstdCompressor(compression_params=chosen).compress(content)
