"""The files of a tar that others wrote, by name and in any order; nothing is unpacked.

A tar that is compressed as a whole is written, inflated, to a temporary file without a name.
"""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from mlpack.errors import MlpackError
from mlpack.oci.unpacking import MAGIC_BYTES, compression_of
from mlpack.stores.compression import inflated, unreadable
from mlpack.stores.files import NotAFile, naming, open_file
from mlpack.stores.store import CHUNK, NotFound
from mlpack.stores.trees import LIMITS, LayerLimits, LayerTar, LayerTooLarge

_MAX_READ = 8 * 1024 * 1024
"""One header with all its extensions, or one piece of a file."""

_MAX_LINKS = 40


class NotAnArchive(NotFound):
    """A file that is not an archive of images, or lacks a part of one."""

    hint = "make one with: docker save IMAGE -o FILE"


class TarFiles:
    """The regular files of the tar at ``path``; the last of those that have one name.

    Names have neither a leading ``./`` nor ``/``. Links lead to files of the same tar. May be read
    by several threads.
    """

    def __init__(self, path: Path, limits: LayerLimits = LIMITS) -> None:
        self._path = path
        self._aside: int | None = None
        self._members: dict[str, tarfile.TarInfo] = {}
        try:
            with open_file(path) as content:
                packed = compression_of(content.peek(MAGIC_BYTES)[:MAGIC_BYTES]) != "none"
                if packed:
                    self._aside = self._inflate(content, limits)
            with self._opened() as archive:
                self._scan(archive, limits)
        except NotAFile as error:
            raise NotAnArchive(str(error)) from None
        except MlpackError:
            raise
        except unreadable() as error:
            raise NotAnArchive(f"{path} is not a tar ({error})") from error

    def __contains__(self, name: str) -> bool:
        return self._resolved(name) is not None

    def size(self, name: str) -> int | None:
        """Return the bytes of ``name``; ``None`` if there is no such file."""
        found = self._resolved(name)
        return None if found is None else found.size

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open the file ``name``; raise :class:`NotAnArchive` if there is none."""
        found = self._resolved(name)
        if found is None:
            raise NotAnArchive(f"{self._path} has no file {name!r}", hint="save it again")
        with self._opened() as archive:
            yield cast(BinaryIO, archive.extractfile(found))

    def read(self, name: str, limit: int) -> bytes:
        """Return the bytes of ``name``, at most ``limit``."""
        with self.open(name) as content:
            found = content.read(limit + 1)
        if len(found) > limit:
            raise NotAnArchive(f"{self._path}: {name!r} is larger than {limit} bytes")
        return found

    def _resolved(self, name: str) -> tarfile.TarInfo | None:
        """Return the member ``name``, or what it links to."""
        clean = _clean(name)
        for _ in range(_MAX_LINKS):
            found = self._members.get(clean or "")
            if found is None or not (found.issym() or found.islnk()):
                return found
            folder = posixpath.dirname(clean or "") if found.issym() else ""
            clean = _clean(posixpath.normpath(posixpath.join(folder, found.linkname)))
        return None

    def _scan(self, archive: LayerTar, limits: LayerLimits) -> None:
        count = 0
        while (member := archive.next()) is not None:
            archive.members.clear()
            count += 1
            if count > limits.members:
                raise LayerTooLarge(f"{self._path} holds more than {limits.members} files")
            name = _clean(member.name)
            if name and (member.isreg() or member.issym() or member.islnk()):
                self._members[name] = member

    @contextmanager
    def _opened(self) -> Iterator[LayerTar]:
        """Open the tar, with a position of its own."""
        if self._aside is not None:
            yield _tar(self._aside)
            return
        with open_file(self._path) as content:
            yield _tar(content.fileno())

    def _inflate(self, content: io.BufferedReader, limits: LayerLimits) -> int:
        """Return a descriptor of the inflated tar, which is closed with this object."""
        packed = os.fstat(content.fileno()).st_size
        limit, size = limits.unpacked(packed), 0
        found = inflated(content)
        with naming(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as out:
            while chunk := found.read(CHUNK):
                size += len(chunk)
                if size > limit:
                    raise LayerTooLarge(
                        f"{self._path} of {packed} bytes unpacks to more than {limit}"
                    )
                out.write(chunk)
            out.flush()
            descriptor = os.dup(out.fileno())
        weakref.finalize(self, os.close, descriptor)
        return descriptor


def _tar(descriptor: int) -> LayerTar:
    content = cast(BinaryIO, _Positioned(descriptor))
    return LayerTar(fileobj=content, errorlevel=2, encoding="utf-8", errors="surrogateescape")


def _clean(name: str) -> str | None:
    """Return the name of a member; ``None`` for one that leads out of the tar."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if ".." in parts else "/".join(parts)


class _Positioned(io.RawIOBase):
    """Reads an open file from a position of its own, so that threads can share the file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, place: int, whence: int = io.SEEK_SET, /) -> int:
        if whence != io.SEEK_SET or place < 0:
            raise tarfile.ReadError("a tar with a negative length")
        self._at = place
        return place

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= _MAX_READ:
            raise tarfile.ReadError(f"a tar with a header of {size} bytes")
        parts = []
        while size and (part := os.pread(self._descriptor, size, self._at)):
            parts.append(part)
            self._at += len(part)
            size -= len(part)
        return b"".join(parts)
