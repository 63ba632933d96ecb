"""A base made from an image of any tool: its layers come first, as they are.

Wheels have to fit the Python in the image, which is found by the names in its layers.
"""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from mlpack.base.wheels import Interpreter
from mlpack.errors import MlpackError
from mlpack.kinds import PLACES
from mlpack.oci import descriptor as media
from mlpack.oci.conversion import oci_type
from mlpack.oci.descriptor import WHITEOUT, Descriptor, Platform, Reference
from mlpack.oci.filesystem import BrokenLayer
from mlpack.oci.image import Image, ImageConfig, Layer, build_image
from mlpack.oci.layer import OPAQUE, Gzip
from mlpack.oci.reference import on_hub
from mlpack.oci.unpacking import LayerFacts
from mlpack.plan.engines import EngineRule
from mlpack.plan.refusals import require_taken
from mlpack.project.references import find_image, in_registry
from mlpack.stores.store import Corrupt, Readable, StagingStore, verified
from mlpack.stores.trees import LayerTar, layer_compression, members, open_tar

if TYPE_CHECKING:
    from mlpack.registry.repository import Registries

_LEVEL = 10
"""libdeflate's level for an operating system: 4 % smaller than zlib's best."""


class WrongPlatform(MlpackError):
    """A source image that does not exist for one of the base's platforms."""


@dataclass(frozen=True)
class SourceImage:
    """The image a base starts from, for one platform."""

    text: str
    store: Readable
    image: Image
    plain_layers: bool
    """Whether its layers are uncompressed because ``docker save`` wrote them."""


def pin(text: str, held: str, registries: Registries | None) -> str:
    """Return ``text`` by digest if it is in a registry; empty otherwise.

    ``held`` is what it was pinned to before, and is returned if it is not empty.
    """
    if not in_registry(text):
        return ""
    if held:
        return held
    found = find_image(None, text, registries=registries)
    return str(Reference.parse(text).pinned(found.target.digest))


def open_source(
    text: str, root: Path, platform: Platform, registries: Registries | None = None
) -> SourceImage:
    """Find ``text``: an image on disk, its path relative to ``root``, or one in a registry, of
    which only documents are read here.
    """
    kind, _, path = text.partition(":")
    if in_registry(text):
        found = find_image(None, text, platform, registries=registries)
    elif kind in PLACES and path:
        found = find_image(None, f"{kind}:{root / path}", platform)
    else:
        raise MlpackError(
            f"[base] from = {text!r} cannot be a base{_meant(text)}",
            hint='write "debian:bookworm", "oci:PATH[:TAG]", "oci-archive:PATH", '
            '"docker-archive:PATH" or "REGISTRY/REPOSITORY:TAG"',
        )
    has = found.image.platform
    if (has.os, has.architecture) != (platform.os, platform.architecture):
        raise WrongPlatform(
            f"{text} is an image for {has}, but [base] platforms has {platform}",
            hint=f'set [base] platforms = ["{has}"], or start from an image that has both',
        )
    return SourceImage(text, found.store, found.image, kind == "docker-archive")


def _meant(text: str) -> str:
    """Name the image of Docker Hub that Docker would read in a name without a registry."""
    hub = on_hub(text)
    return hub and f'; for the image of Docker Hub write "{hub}"'


def copy_layers(source: SourceImage, store: StagingStore) -> tuple[Layer, ...]:
    """Copy the layers of ``source`` into ``store``; their digests do not change.

    Only the plain tars of a ``docker save`` are compressed: devices have that image under other
    digests anyway, and would fetch uncompressed layers.
    """
    return tuple(_copy(source, layer, store) for layer in source.image.layers)


def _copy(source: SourceImage, layer: Layer, store: StagingStore) -> Layer:
    plain = layer.descriptor.media_type in media.TAR_LAYERS
    if plain and source.plain_layers:
        return _compress(source.store, layer, store)
    kind = oci_type(layer.descriptor.media_type)
    target = Descriptor(kind, layer.descriptor.digest, layer.descriptor.size)
    if not store.exists(target):
        with source.store.open(layer.descriptor) as content:
            store.put(target, content)
    return Layer(target, layer.diff_id)


def _compress(source: Readable, layer: Layer, store: StagingStore) -> Layer:
    with (
        store.stage() as out,
        source.open(layer.descriptor) as content,
        closing(Gzip(out, _LEVEL)) as gzip,
    ):
        for chunk in verified(content, layer.descriptor):
            gzip.write(chunk)
        gzip.finish()
        target = Descriptor(media.LAYER_GZIP, out.digest, out.size)
        out.commit(target)
    return Layer(target, layer.diff_id)


_PYTHON = re.compile(r"(?:[\w.+-]+/)*bin/python3\.(\d+)")
_GLIBC = re.compile(rb"GNU C Library [^\n]*version 2\.(\d+)")
_LIBC = re.compile(r"(?:usr/)?lib(?:64)?/(?:[\w-]+/)?libc(?:\.so\.6|-2\.\d+\.so)")
_MUSL = re.compile(r"(?:usr/)?lib/ld-musl-[\w-]+\.so\.1")
_LIBRARY = re.compile(r"(?:.*/)?[^/]+\.so(?:\.[^/]*)?")
OLDEST_PYTHON = (3, 11)
_MOST_LIBC = 16 * 1024 * 1024
_DIRECTORY = "opt/mlpack"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The PATH that engines set if an image has none."""


class NoPython(MlpackError):
    """An image without a Python that has wheels."""

    hint = (
        "start from an image with Python 3.11 or newer (docker.io/library/python has them), "
        'or set [base] from = "debian:bookworm"'
    )


class UnreadableSource(MlpackError):
    """A layer of the source image that cannot be read."""


@dataclass(frozen=True)
class Inspection:
    """What wheels and the entry point depend on in an image."""

    interpreter: Interpreter
    libraries: frozenset[str]
    """File names of all shared libraries in it."""


def check_taken(engine: EngineRule, store: Readable, layers: Sequence[Layer], where: str) -> None:
    """Raise :class:`~mlpack.plan.refusals.NotTaken` if devices' engine refuses one of ``layers``.

    Their compression is told by their first bytes; what they hold is not read.
    """
    facts = [LayerFacts(compression=layer_compression(store, layer)) for layer in layers]
    image = build_image(ImageConfig(platform=Platform("linux", "")), layers)
    way = "copy the image with gzip layers first: "
    way += "skopeo copy --dest-compress-format gzip FROM oci:DIR:TAG"
    require_taken(where, engine.refusals(image, facts=facts), way=way)


def inspect(
    store: Readable, layers: Sequence[Layer], env: Mapping[str, str], where: str
) -> Inspection:
    """Find the first Python on the ``PATH`` of ``env`` in an image of ``layers``.

    Raises :class:`NoPython` naming ``where``, :class:`UnreadableSource`, and
    :class:`~mlpack.stores.trees.LayerTooLarge` for what unpacks to more than an image can be.
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
        raise NoPython(f"{where} has no C library, so no Python that has wheels")
    path = _first(names, env)
    if path is None:
        raise NoPython(f"{where} has no Python (no python3.N in a directory of its PATH)")
    version = (3, int(path.rpartition(".")[2]))
    if version < OLDEST_PYTHON:
        raise NoPython(f"{where} has Python 3.{version[1]} (/{path}), which is too old")
    # Apart from the image's own packages: two numpys in one directory break both.
    found = Interpreter(path, version, None if musl else glibc, _DIRECTORY, on_path=False)
    return Inspection(found, frozenset(posixpath.basename(name) for name in names))


@contextmanager
def _archive(store: Readable, layer: Layer) -> Iterator[LayerTar]:
    """Open a layer's tar, verified and bounded; raise :class:`UnreadableSource` if that fails."""
    try:
        with open_tar(store, layer) as archive:
            yield archive
    except (Corrupt, BrokenLayer) as error:
        raise UnreadableSource(str(error), hint=error.hint) from error


def _apply(names: set[str], name: str) -> None:
    """Apply one member of a layer, an addition or a whiteout, to the image's names."""
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
