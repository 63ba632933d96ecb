"""Finding the Python inside an image, from the names in its layers."""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from mlpack.base.wheels import Interpreter
from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.filesystem import BrokenLayer
from mlpack.oci.image import Layer
from mlpack.oci.tree import OPAQUE, WHITEOUT
from mlpack.stores.base import Corrupt, Readable
from mlpack.stores.layers import Archive, members, open_tar

_PYTHON = re.compile(r"(?:[\w.+-]+/)*bin/python3\.(\d+)")
_GLIBC = re.compile(rb"GNU C Library [^\n]*version 2\.(\d+)")
_LIBC = re.compile(r"(?:usr/)?lib(?:64)?/(?:[\w-]+/)?libc(?:\.so\.6|-2\.\d+\.so)")
_MUSL = re.compile(r"(?:usr/)?lib/ld-musl-[\w-]+\.so\.1")
_LIBRARY = re.compile(r"(?:.*/)?[^/]+\.so(?:\.[^/]*)?")
OLDEST_PYTHON = (3, 11)
_MOST_LIBC = 16 * 1024 * 1024
_DIRECTORY = "opt/mlpack"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What engines set where an image does not say."""


class NoPython(MlpackError):
    """An image without a Python that wheels fit."""

    hint = (
        "start from an image with Python 3.11 or newer (docker.io/library/python has them), "
        'or set [base] from = "debian:bookworm"'
    )


class UnreadableLayer(MlpackError):
    """A layer of an image that cannot be looked into."""


@dataclass(frozen=True)
class Inspection:
    """What wheels and the entry point must know of an image."""

    interpreter: Interpreter
    libraries: frozenset[str]
    """File names of all shared libraries in it."""


def inspect(
    store: Readable, layers: Sequence[Layer], env: Mapping[str, str], where: str
) -> Inspection:
    """Find the first Python on the ``PATH`` of ``env`` in an image of ``layers``.

    Raises :class:`NoPython` naming ``where``, :class:`UnreadableLayer`, and
    :class:`~mlpack.stores.layers.TooMuch` for what unpacks to more than an image can be.
    """
    names: set[str] = set()
    glibc: int | None = None
    for layer in layers:
        with _archive(store, layer) as archive:
            for member in members(archive):
                name = posixpath.normpath(member.name).lstrip("/")
                _apply(names, name)
                if member.isfile() and _LIBC.fullmatch(name) and member.size <= _MOST_LIBC:
                    glibc = _glibc(archive, member) or glibc
    musl = any(_MUSL.fullmatch(name) for name in names)
    if glibc is None and not musl:
        raise NoPython(f"{where} holds no C library, so no Python that wheels fit")
    path = _first(names, env)
    if path is None:
        raise NoPython(f"{where} holds no Python (no python3.N in a directory of its PATH)")
    version = (3, int(path.rpartition(".")[2]))
    if version < OLDEST_PYTHON:
        raise NoPython(f"{where} holds Python 3.{version[1]} (/{path}), which is too old")
    # Beside what the image has of its own: mixing two numpys in one directory breaks both.
    found = Interpreter(path, version, None if musl else glibc, _DIRECTORY, on_path=False)
    return Inspection(found, frozenset(posixpath.basename(name) for name in names))


@contextmanager
def _archive(store: Readable, layer: Layer) -> Iterator[Archive]:
    """Read a layer's tar, verified and bounded; raise :class:`UnreadableLayer` where that fails."""
    if layer.descriptor.media_type in media.ZSTD_LAYERS:
        raise UnreadableLayer(
            f"layer {layer.digest.short} is zstd, which Docker 20.10 cannot unpack",
            hint="copy the image with gzip layers first: "
            "skopeo copy --dest-compress-format gzip FROM oci:DIR:TAG",
        )
    try:
        with open_tar(store, layer) as archive:
            yield archive
    except (Corrupt, BrokenLayer) as error:
        raise UnreadableLayer(str(error), hint=error.hint) from error


def _apply(names: set[str], name: str) -> None:
    """Take one member of a layer into the image's names: an addition, or a whiteout."""
    folder, base = posixpath.split(name)
    if name.endswith(OPAQUE):
        names -= {each for each in names if each.startswith(f"{folder}/")}
    elif base.startswith(WHITEOUT):
        gone = posixpath.join(folder, base.removeprefix(WHITEOUT))
        names -= {each for each in names if each == gone or each.startswith(f"{gone}/")}
    elif _PYTHON.fullmatch(name) or _LIBRARY.fullmatch(name):
        names.add(name)


def _first(names: set[str], env: Mapping[str, str]) -> str | None:
    for folder in env.get("PATH", _PATH).split(":"):
        found = [each for each in names if posixpath.dirname(each) == folder.strip("/")]
        numbered = [(int(match[1]), each) for each in found if (match := _PYTHON.fullmatch(each))]
        if numbered:
            return max(numbered)[1]
    return None


def _glibc(archive: tarfile.TarFile, member: tarfile.TarInfo) -> int | None:
    opened = archive.extractfile(member)
    found = _GLIBC.search(cast(BinaryIO, opened).read()) if opened else None
    return int(found[1]) if found else None
