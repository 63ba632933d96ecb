"""Reading a .deb without dpkg (deb(5)): an ``ar`` archive with a tar of the files inside.

No maintainer script runs, so packages of any architecture can be opened.
"""

from __future__ import annotations

import io
import lzma
import posixpath
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from mlpack.base.packages import parse_fields
from mlpack.errors import MlpackError

_AR = b"!<arch>\n"
_AR_HEADER = 60
_FORMATS: dict[str, Literal["r:", "r:gz", "r:xz", "r:bz2"]] = {
    "": "r:",
    ".gz": "r:gz",
    ".xz": "r:xz",
    ".bz2": "r:bz2",
}


class NotADeb(MlpackError):
    """A file that is not a Debian package, or one of a form mlpack cannot read."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file or link of a package; directories are left out, layers make their own."""

    path: str
    kind: Literal["file", "symlink", "hardlink"]
    mode: int
    content: bytes = b""
    target: str = ""


def members(path: Path) -> Iterator[Member]:
    """The files and links of the package at ``path``, in its order."""
    with _open(path, "data.tar") as archive:
        for info in archive:
            found = _member(archive, info)
            if found is not None:
                yield found


def control(path: Path) -> dict[str, str]:
    """What the package says of itself: ``Package``, ``Version``, ``Source`` and so on."""
    with _open(path, "control.tar") as archive:
        for info in archive:
            found = _member(archive, info)
            if found is not None and found.path == "control":
                return parse_fields(found.content.decode("utf-8", "replace"))
    raise NotADeb(f"{path.name} holds no control file")


@contextmanager
def _open(path: Path, wanted: str) -> Iterator[tarfile.TarFile]:
    with path.open("rb") as content:
        name, data = _part(content, path, wanted)
    suffix = name.removeprefix(wanted)
    if suffix not in _FORMATS:
        raise NotADeb(f"{path.name}: {name} is compressed in a way mlpack does not read")
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode=_FORMATS[suffix]) as archive:
            yield archive
    except (tarfile.TarError, EOFError, lzma.LZMAError, OSError) as error:
        raise NotADeb(f"{path.name} is damaged ({error})") from error


def _part(content: BinaryIO, path: Path, wanted: str) -> tuple[str, bytes]:
    """The name and bytes of the archive's member that starts with ``wanted``."""
    if content.read(len(_AR)) != _AR:
        raise NotADeb(f"{path.name} is not a Debian package")
    while len(header := content.read(_AR_HEADER)) == _AR_HEADER:
        name = header[:16].decode("ascii", "replace").strip().rstrip("/")
        try:
            size = int(header[48:58])
        except ValueError as error:
            raise NotADeb(f"{path.name} is damaged ({error})") from error
        if name.startswith(wanted):
            return name, content.read(size)
        content.seek(size + size % 2, io.SEEK_CUR)
    raise NotADeb(f"{path.name} holds no {wanted}")


def _member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Member | None:
    path = posixpath.normpath(info.name).lstrip("/")
    if info.isdir():
        return None
    if info.issym():
        return Member(path, "symlink", 0o777, target=info.linkname)
    if info.islnk():
        target = posixpath.normpath(info.linkname).lstrip("/")
        return Member(path, "hardlink", info.mode, target=target)
    opened = archive.extractfile(info)
    if opened is None:
        raise NotADeb(f"{info.name!r} is neither a file nor a link")
    return Member(path, "file", info.mode, opened.read())
