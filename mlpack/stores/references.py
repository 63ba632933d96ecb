"""What a user may write where an image is asked for, and finding it.

``NAME[:VERSION]`` a release of this project, ``…@sha256:…`` one by the digest that
``mlpack build`` printed, ``base`` its base, ``oci:PATH[:TAG]`` an OCI layout,
``docker-archive:PATH[:NAME]`` a ``docker save`` file, ``REGISTRY/REPOSITORY:TAG`` or
``…@sha256:…`` one in a registry.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.errors import MlpackError, UsageError
from mlpack.model.recipe import check_name
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Platform
from mlpack.oci.image import Image
from mlpack.oci.index import Index
from mlpack.oci.reference import Reference
from mlpack.stores.archive import ArchiveStore
from mlpack.stores.base import NotFound, Readable, read_index, select_image
from mlpack.stores.layout import LayoutStore
from mlpack.stores.project import Project
from mlpack.stores.releases import releases

if TYPE_CHECKING:
    # Its client takes 0.1 s to import, and most commands name no registry.
    from mlpack.stores.registries import Registries

LATEST = "latest"
"""The tag of a reference without one, as engines read it."""


class NoSuchImage(MlpackError):
    """A reference to nothing."""

    hint = "list what there is with: mlpack models"


@dataclass(frozen=True)
class Found:
    """An image and where it lies; ``index`` is set where its name is that of several platforms."""

    name: str
    store: Readable
    target: Descriptor
    image: Image
    index: Index | None


def find_image(
    project: Project | None,
    text: str,
    platform: Platform | None = None,
    *,
    registries: Registries | None = None,
) -> Found:
    """Find ``text``; raise :class:`NoSuchImage` or :class:`UsageError`.

    Of an image for several platforms the one for ``platform`` is taken, or the
    first listed. Of an image in a registry only documents are read; without
    ``registries`` there is none to read it from.
    """
    store, target = _locate(project, text, registries)
    index = read_index(store, target) if target.media_type in media.INDEXES else None
    return Found(text, store, target, select_image(store, target, platform), index)


def in_registry(text: str) -> bool:
    """Whether ``text`` names an image in a registry, by how it is written.

    >>> [in_registry(text) for text in ("r.example.com/fan:1", "fan:1", "oci:a/b:1", "debian:sid")]
    [True, False, False, False]
    """
    return "/" in text and text.partition(":")[0] not in {"oci", "docker-archive", "debian"}


def _locate(
    project: Project | None, text: str, registries: Registries | None
) -> tuple[Readable, Descriptor]:
    kind, _, rest = text.partition(":")
    if kind == "oci":
        return _in_layout(rest)
    if kind == "docker-archive":
        path, _, name = rest.partition(":")
        archive = ArchiveStore(Path(path))
        return archive, archive.resolve(name)
    if project is not None and "@" in text and (held := _by_digest(project.layout, text)):
        return project.layout, held
    if "/" in text or "@" in text:
        return _in_registry(text, registries)
    if project is None:
        raise UsageError(f"{text!r} is a release, and this is not a project", hint="use -C DIR")
    return project.layout, _release(project, kind, rest)


def _in_registry(text: str, registries: Registries | None) -> tuple[Readable, Descriptor]:
    place = Reference.parse(text)
    if registries is None:
        raise UsageError(
            f"{text!r} is in a registry, and this command reads images from disk only",
            hint=f"bring it here first: mlpack pull {text}",
        )
    store = registries.store(place)
    name = str(place.digest) if place.digest else place.tag or LATEST
    try:
        return store, store.resolve(name)
    except NotFound as error:
        raise NoSuchImage(str(error), hint="check the repository and the tag") from error


def _release(project: Project, name: str, version: str) -> Descriptor:
    if name == "base" and not version:
        return _resolve(project.layout, "base", "build it with: mlpack base build")
    check_name(name)
    found = releases(project.layout, name)
    if not version and not found:
        raise NoSuchImage(f"model {name!r} has no release", hint=f"make one: mlpack build {name}")
    wanted = check_name(version, "version") if version else list(found)[-1]
    if wanted not in found:
        raise NoSuchImage(
            f"{name}:{wanted} has no release", hint=f"make it with: mlpack build {name}:{wanted}"
        )
    return found[wanted]


def _by_digest(layout: LayoutStore, text: str) -> Descriptor | None:
    digest = text.rpartition("@")[2]
    return next((each for each in layout.entries() if str(each.digest) == digest), None)


def _in_layout(text: str) -> tuple[Readable, Descriptor]:
    # The path may hold a colon itself: what exists as a directory wins.
    path, _, tag = (text, "", "") if Path(text).is_dir() else text.rpartition(":")
    layout = LayoutStore.existing(Path(path or tag))
    if tag and path:
        return layout, _resolve(layout, tag, f"it has: {', '.join(layout.tags()) or 'no names'}")
    entries = layout.entries()
    if len(entries) != 1:
        names = ", ".join(layout.tags()) or "none"
        raise UsageError(f"{path} holds {len(entries)} images", hint=f"add :TAG, one of: {names}")
    return layout, entries[0]


def _resolve(layout: LayoutStore, name: str, hint: str) -> Descriptor:
    try:
        return layout.resolve(name)
    except NotFound as error:
        raise NoSuchImage(str(error), hint=hint) from error
