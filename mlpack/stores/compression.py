"""Reading compressed content by its first bytes, as engines do: media types are often wrong.

gzip, zstandard, xz and bzip2, each of any number of frames or members; anything else is content
as it is. Nothing is kept: memory is bounded by the largest window that is accepted.
"""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
import zlib
from collections.abc import Callable
from typing import BinaryIO, Protocol, cast

from mlpack.oci.unpacking import MAGIC_BYTES, compression_of

_MAX_WINDOW = 2**27
"""The window of zstd's level 22; a frame may ask for gigabytes. In bytes."""

_MAX_MEMORY = 2**28
"""What a decoder of xz may take, in bytes: twice the dictionary of its highest level."""

_PIECE = 64 * 1024


class Inflated(Protocol):
    """Bytes, read in order."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        ...


class Peekable(Inflated, Protocol):
    """Bytes of which the next can be looked at."""

    def peek(self, size: int, /) -> bytes:
        """Return some of the next bytes without advancing."""
        ...


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /, max_length: int = -1) -> bytes: ...


def unreadable() -> tuple[type[Exception], ...]:
    """Return the errors of content that is damaged."""
    found: tuple[type[Exception], ...] = (
        tarfile.TarError,
        gzip.BadGzipFile,
        zlib.error,
        EOFError,
        ValueError,
        RecursionError,  # headers that extend headers that extend headers
    )
    zstandard, lzma = sys.modules.get("zstandard"), sys.modules.get("lzma")
    found += (zstandard.ZstdError,) if zstandard else ()
    return (*found, lzma.LZMAError) if lzma else found


def inflated(content: Peekable) -> Inflated:
    """Return what ``content`` holds, decompressed; reading may raise :func:`unreadable`."""
    kind = compression_of(content.peek(MAGIC_BYTES)[:MAGIC_BYTES])
    if kind == "gzip":
        return gzip.GzipFile(fileobj=cast(io.BufferedReader, content))
    if kind in ("zstd", "zstd-skippable"):
        return _zstandard(content)
    if kind == "xz":
        import lzma

        return _Streams(content, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _MAX_MEMORY))
    if kind == "bzip2":
        import bz2

        return _Streams(content, bz2.BZ2Decompressor)
    return content


def _zstandard(content: Inflated) -> Inflated:
    import zstandard

    inflater = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    return inflater.stream_reader(cast(BinaryIO, content), read_across_frames=True)


class _Streams:
    """The content of xz or bzip2 streams, one after the other, with zeros after each (xz, 2.2)."""

    def __init__(self, content: Inflated, decoder: Callable[[], _Decoder]) -> None:
        self._content = content
        self._new = decoder
        self._decoder = decoder()

    def read(self, size: int, /) -> bytes:
        """Return the next bytes; raise ``EOFError`` if a stream is cut off."""
        given = b""
        while size:
            if self._decoder.eof:
                given = self._next_stream()
                if not given:
                    return b""
            elif self._decoder.needs_input:
                given = self._content.read(_PIECE)
                if not given:
                    raise EOFError("the compressed content is cut off")
            try:
                found = self._decoder.decompress(given, max_length=size)
            except OSError as error:  # bzip2 has no error of its own
                raise tarfile.ReadError(str(error)) from error
            if found:
                return found
            given = b""
        return b""

    def _next_stream(self) -> bytes:
        """Begin the stream after this one; return its first bytes, none if there is none."""
        given = self._decoder.unused_data.lstrip(b"\0")
        while not given:
            piece = self._content.read(_PIECE)
            if not piece:
                return b""
            given = piece.lstrip(b"\0")
        self._decoder = self._new()
        return given
