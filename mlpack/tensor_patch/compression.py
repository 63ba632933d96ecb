"""Compresses the bytes of a patch, as small as the effort allows, and writes the patch file."""

from __future__ import annotations

import bz2
import hashlib
import lzma
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import zstandard

from mlpack.kinds import Effort
from mlpack.runtime.patch import container
from mlpack.runtime.patch.arrays import KINDS, ArrayForm
from mlpack.runtime.patch.container import StreamPart
from mlpack.runtime.patch.program import DELTA, EXPONENTS, FACTORS, SCALED, STEPPED, UNIT, Operation

if TYPE_CHECKING:
    from mlpack.tensor_patch.array_coding import CodedSet

Buffer = bytes | bytearray | memoryview

SMALL = 1 << 20
"""Bytes that the default effort compresses with the slowest coders: about half a second."""

QUICK = 5 << 19
"""Bytes up to which it takes one coder that makes about two megabytes in a second."""

_MEDIUM = 1 << 24
_SAMPLE = 1 << 17
_INDEXED = 1 << 21
_HELPS = 0.995


class PackedPart:
    """A compressed part of a stream, with its bytes."""

    def __init__(
        self,
        stream: int,
        content: Buffer,
        coder: int = container.RAW,
        stored: Buffer | None = None,
        ranges: tuple[tuple[int, int], ...] = (),
    ) -> None:
        self.stored = content if stored is None else stored
        self.part = StreamPart(stream, coder, len(content), len(self.stored), ranges)

    @property
    def length(self) -> int:
        """Bytes in the patch, including the ranges in the index."""
        return self.part.stored + 6 * len(self.part.ranges)


def compress(stream: int, content: Buffer, effort: Effort) -> PackedPart:
    """Compress ``content`` as small as the effort allows."""
    found = PackedPart(stream, content)
    for coder, stored in _attempts(content, effort):
        found = min(found, PackedPart(stream, content, coder, stored), key=lambda each: each.length)
    return found


def level_for(size: int, effort: Effort) -> int:
    """Return zstandard's level for ``size`` bytes: 19 makes 3 MB/s, 12 30 MB/s, 5 120 MB/s."""
    if effort is Effort.MAX or (effort is Effort.DEFAULT and size <= SMALL):
        return 19
    if effort is Effort.DEFAULT and size <= _MEDIUM:
        return 12
    return 5 if effort is Effort.DEFAULT else 3


def compress_with_dictionary(
    stream: int,
    content: Buffer,
    old: memoryview,
    ranges: Sequence[tuple[int, int]],
    *,
    level: int,
) -> PackedPart:
    """Compress by zstandard, with ``ranges`` (offset, length) of ``old`` as the dictionary."""
    joined = b"".join(old[at : at + length] for at, length in ranges)
    held = zstandard.ZstdCompressionDict(joined, zstandard.DICT_TYPE_RAWCONTENT)
    # The window must reach from the end of the content to the start of the dictionary.
    window = (len(content) + len(joined) + 1).bit_length()
    # Lower levels do not index all of a large dictionary.
    chosen = zstandard.ZstdCompressionParameters.from_level(
        max(level, 9) if len(joined) > _INDEXED else level,
        source_size=len(content),
        dict_size=len(joined),
        window_log=min(max(window, 10), container.MAX_WINDOW.bit_length() - 1),
        write_content_size=True,
        write_dict_id=False,
    )
    packer = zstandard.ZstdCompressor(dict_data=held, compression_params=chosen)
    stored = packer.compress(content)
    return PackedPart(stream, content, container.ZSTD_OLD, stored, tuple(ranges))


def compressible(content: Buffer) -> bool:
    """Whether pieces of ``content`` become smaller by zstandard."""
    pieces, view = 8, memoryview(content)
    size = _SAMPLE // pieces
    if len(view) > _SAMPLE:
        starts = [(len(view) - size) * each // (pieces - 1) for each in range(pieces)]
        return any(len(_zstandard(view[at : at + size], 3)) < _HELPS * size for at in starts)
    return len(_zstandard(view, 3)) < len(view)


def _attempts(content: Buffer, effort: Effort) -> Iterator[tuple[int, Buffer]]:
    if len(content) > _SAMPLE and effort is not Effort.MAX and not compressible(content):
        return
    if effort is Effort.DEFAULT and SMALL < len(content) <= QUICK:
        yield _lzma(container.LZMA_TEXT, content)
        return
    yield container.ZSTD, _zstandard(content, level_for(len(content), effort))
    if effort is Effort.FAST or (effort is Effort.DEFAULT and len(content) > SMALL):
        return
    yield _lzma(container.LZMA_SYMBOLS, content)
    yield _lzma(container.LZMA_TEXT, content)
    if effort is Effort.MAX:
        yield container.BZIP2, bz2.compress(content)
        yield container.ZSTD, _zstandard(content, 22)


def _lzma(coder: int, content: Buffer) -> tuple[int, bytes]:
    filters = container.lzma_filters(coder, len(content))
    return coder, lzma.compress(content, lzma.FORMAT_RAW, filters=filters)


def _zstandard(content: Buffer, level: int) -> bytes:
    chosen = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=len(content), write_content_size=True
    )
    return zstandard.ZstdCompressor(compression_params=chosen).compress(content)


def patch_file(
    old: memoryview,
    new: memoryview,
    index: Buffer,
    bodies: Sequence[Buffer],
    columns: int = 0,
) -> bytes:
    """Return the patch from ``old`` to ``new`` whose index is :func:`write_index`'s.

    If ``columns``, the operations make as many bytes, which are ``new`` in columns.
    """
    header = bytearray(container.MAGIC)
    header += bytes([container.VERSION]) + unsigned(len(old)) + unsigned(len(new))
    header += hashlib.sha256(new).digest()
    if len(old):
        header += hashlib.sha256(old).digest()[: container.OLD_DIGEST]
    packed = compress(0, index, Effort.DEFAULT)
    flags = container.COLUMNS if columns else 0
    header += bytes([packed.part.coder | flags]) + (unsigned(columns) if columns else b"")
    header += unsigned(len(index)) + unsigned(packed.part.stored)
    return b"".join([header, packed.stored, *bodies])


def write_index(
    parts: Sequence[PackedPart],
    sets: Sequence[CodedSet],
    pcodec: bytes,
    operations: Sequence[Operation[ArrayForm]],
) -> bytes:
    """Return parts, sets, and the operations in columns: codes, lengths, forms, sources."""
    content = bytearray(unsigned(len(parts)))
    for each in parts:
        content += _part(each.part)
    content += unsigned(len(sets))
    for coded in sets:
        content += _set(coded)
    if sets:
        content += unsigned(len(pcodec)) + pcodec
    content += unsigned(len(operations))
    content += bytes(each.code for each in operations)
    content += b"".join(unsigned(each.length) for each in operations)
    content += b"".join(_form(each.form) for each in operations if each.form)
    content += b"".join(_sources(operations))
    return bytes(content)


def _part(part: StreamPart) -> bytes:
    entry = bytes([part.stream, part.coder]) + unsigned(part.size) + unsigned(part.stored)
    if part.coder != container.ZSTD_OLD:
        return entry
    entry += unsigned(len(part.ranges))
    end = 0
    for offset, length in part.ranges:
        entry += signed(offset - end) + unsigned(length)
        end = offset + length
    return entry


def _set(coded: CodedSet) -> bytes:
    of = coded.set
    written = unsigned(of.size.bit_length() - 1) + unsigned(len(of.bounds))
    for place, bound in enumerate(of.bounds):
        written += unsigned(bound - of.bounds[place - 1] - 1) if place else signed(bound)
    for part in of.groups:
        written += bytes([part.coder]) + unsigned(part.size) + unsigned(part.stored)
    return written


def _sources(operations: Sequence[Operation[ArrayForm]]) -> Iterator[bytes]:
    """Yield where each reads the old file, relative to the end of the one before."""
    end = 0
    for each in operations:
        if each.has_source:
            yield signed(each.source - end)
            end = each.source + each.length


def _form(form: ArrayForm) -> bytes:
    flags = KINDS.index(form.kind) | DELTA * form.delta | SCALED * (form.scale != 1.0)
    flags |= STEPPED * (form.step is not None)
    flags |= EXPONENTS * bool(form.exponents) | FACTORS * bool(form.factors)
    written = bytes([flags]) + unsigned(form.set)
    if form.step is not None:
        written += signed(form.step)
    written += signed(form.base)
    if form.scale != 1.0:
        written += signed(round((form.scale - 1) * UNIT))
    if form.exponents:
        written += unsigned(form.lowest) + unsigned(form.exponents)
    if form.factors:
        written += unsigned(len(form.factors))
        written += b"".join(unsigned(each.stride) + unsigned(each.size) for each in form.factors)
    return written


def unsigned(value: int) -> bytes:
    """Encode a number with seven bits a byte, the lowest first."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def signed(value: int) -> bytes:
    """Encode a number with its sign as the lowest bit."""
    return unsigned(value << 1 if value >= 0 else ((-value - 1) << 1) | 1)
