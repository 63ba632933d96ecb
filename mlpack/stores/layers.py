"""Reading a layer of somebody else's image: a stream that is verified, and bounded.

Nothing is unpacked to disk. The blob's digest, the tar's diff id and every length are
checked on the way, so what was read may be used once the block has ended without an
error, and not before.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from mlpack.errors import MlpackError
from mlpack.oci.filesystem import BrokenLayer
from mlpack.oci.image import Layer
from mlpack.stores.base import CHUNK, Corrupt, Readable, verified

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_UNREADABLE = (
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    ValueError,
    RecursionError,  # headers that extend headers that extend headers
)
_MAX_HEADER = 8 * 1024 * 1024
"""One header with all its extensions; Linux paths and attributes need 132 KB at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of an image is read before it is called hostile."""

    members: int = 2_000_000
    """Files of one layer; a large distribution with all of CUDA has 300,000."""

    bytes: int = 256 * 1024**3
    """Uncompressed bytes of one layer."""

    ratio: int = 200
    """Uncompressed bytes per byte of the blob, looked at above :attr:`trusted`."""

    trusted: int = 1024**3
    """Uncompressed bytes up to which any ratio is taken: an empty disk image is no bomb."""


LIMITS = Limits()


class TooMuch(MlpackError):
    """A layer that is larger than any image in use, or a bomb."""

    hint = "mlpack reads no such image; if you trust it, look into it with: skopeo inspect"


class Archive(tarfile.TarFile):
    """A tar that is read once, from front to back."""

    members: list[tarfile.TarInfo]
    """What ``tarfile`` remembers for random access; emptied as we go."""


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


@contextmanager
def open_tar(store: Readable, layer: Layer, limits: Limits = LIMITS) -> Iterator[Archive]:
    """Open a layer's tar, to be read from front to back.

    When the block ends the rest is read too, and all of it must be what the layer's
    digests say. Raises :class:`~mlpack.stores.base.Corrupt`, :class:`TooMuch`.
    """
    with store.open(layer.descriptor) as blob, _readable(layer):
        checked = io.BufferedReader(_Checked(verified(blob, layer.descriptor)), CHUNK)
        stream = _Stream(_inflated(checked), layer, limits)
        # Not tarfile's own stream mode: that reads a header of any size into memory.
        yield Archive(
            fileobj=cast(BinaryIO, stream), errorlevel=2, encoding="utf-8", errors="surrogateescape"
        )
        stream.finish()
        while checked.read(CHUNK):
            pass  # what follows the compressed stream is part of the blob's digest too


def members(archive: Archive, limits: Limits = LIMITS) -> Iterator[tarfile.TarInfo]:
    """The archive's members in order, forgotten as soon as the next is asked for."""
    count = 0
    while (member := archive.next()) is not None:
        count += 1
        if count > limits.members:
            raise TooMuch(f"a layer holds more than {limits.members} files")
        archive.members.clear()
        yield member


@contextmanager
def _readable(layer: Layer) -> Iterator[None]:
    try:
        yield
    except MlpackError:
        raise
    except _UNREADABLE as error:
        raise Corrupt(f"layer {layer.digest} is no readable tar ({error})") from error


def _inflated(blob: io.BufferedReader[_Checked]) -> _Reader:
    """What is in the blob, told by its first bytes as engines do; media types are often wrong."""
    first = blob.peek(len(_ZSTD))[: len(_ZSTD)]
    if first.startswith(_GZIP):
        return gzip.GzipFile(fileobj=blob)
    return _zstandard(blob) if first == _ZSTD else blob


def _zstandard(blob: io.BufferedReader[_Checked]) -> _Reader:
    import zstandard

    # 128 MiB is the window of level 22; a frame may ask for gigabytes.
    inflater = zstandard.ZstdDecompressor(max_window_size=2**27)
    return _Zstandard(inflater.stream_reader(blob, read_across_frames=True))


class _Zstandard:
    def __init__(self, reader: _Reader) -> None:
        import zstandard

        self._reader = reader
        self._error = zstandard.ZstdError

    def read(self, size: int, /) -> bytes:
        try:
            return self._reader.read(size)
        except self._error as error:
            raise EOFError(str(error)) from error


class _Checked(io.RawIOBase):
    """The verified chunks of a blob as something to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        room = memoryview(buffer)
        if not self._held:
            self._held = memoryview(next(self._chunks, b""))
        taken = min(len(room), len(self._held))
        room[:taken] = self._held[:taken]
        self._held = self._held[taken:]
        return taken


class _Stream(io.RawIOBase):
    """The bytes of a tar as ``tarfile`` asks for them: forward only, counted and hashed."""

    def __init__(self, source: _Reader, layer: Layer, limits: Limits) -> None:
        self._source = source
        self._layer = layer
        self._hash = hashlib.sha256()
        self._at = 0
        self._last = b""
        bomb = max(limits.trusted, layer.size * limits.ratio)
        self._limit = min(limits.bytes, bomb)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, place: int, whence: int = io.SEEK_SET, /) -> int:
        if whence != io.SEEK_SET or place < self._at:
            raise tarfile.ReadError("a tar that has to be read backwards")
        while self._at < place and self.read(min(CHUNK, place - self._at)):
            pass
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise TooMuch(f"layer {self._layer.digest} has a header of {size} bytes")
        parts = []
        while size and (part := self._source.read(size)):
            parts.append(part)
            self._count(part)
            size -= len(part)
        self._last = b"".join(parts)
        return self._last

    def finish(self) -> None:
        """Read the rest; tarfile takes a broken header for the end, so the end must be zeros."""
        while self._last and not self._last.strip(b"\0"):
            self.read(CHUNK)
        if self._last:
            raise BrokenLayer(f"layer {self._layer.digest} has a broken tar header")
        if self._hash.hexdigest() != self._layer.diff_id.hex:
            raise Corrupt(
                f"layer {self._layer.digest} holds another tar than {self._layer.diff_id}",
                hint="the image's config and its layers do not belong together",
            )

    def _count(self, part: bytes) -> None:
        self._at += len(part)
        self._hash.update(part)
        if self._at > self._limit:
            raise TooMuch(
                f"layer {self._layer.digest} of {self._layer.size} bytes unpacks to more than "
                f"{self._limit}"
            )


def content_of(archive: Archive, member: tarfile.TarInfo) -> Iterator[bytes]:
    """A file's bytes in chunks; tarfile raises where there are fewer than announced."""
    found = archive.extractfile(member)
    if found is None:
        raise BrokenLayer(f"{member.name!r} has no content")
    while chunk := found.read(CHUNK):
        yield chunk
