"""What a user may write where an image is asked for, and finding it.

``NAME[:VERSION]`` a release of this project, ``…@sha256:…`` one by the digest that
``mlpack build`` printed, ``base`` its base, ``oci:PATH[:TAG]`` an OCI layout,
``docker-archive:PATH[:NAME]`` a ``docker save`` file, ``REGISTRY/REPOSITORY:TAG`` or
``…@sha256:…`` one in a registry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.errors import MlpackError, UsageError
from mlpack.model.recipe import BASE, NONE
from mlpack.model.version import LATEST, parse_name
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Platform
from mlpack.oci.digest import Digest, InvalidDigest
from mlpack.oci.image import Image
from mlpack.oci.index import Index
from mlpack.oci.reference import Reference
from mlpack.stores.archive import ArchiveStore
from mlpack.stores.base import NotFound, Readable, read_index, select_image
from mlpack.stores.layout import REF_NAME, LayoutStore
from mlpack.stores.project import Project
from mlpack.stores.records import read_record
from mlpack.stores.releases import MODEL, VERSION, releases

if TYPE_CHECKING:
    # Its client takes 0.1 s to import, and most commands name no registry.
    from mlpack.stores.registries import Registries


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

    @property
    def release(self) -> tuple[str, str]:
        """Model and version this is a release of; raise :class:`UsageError` where of none."""
        model, version = (self.target.annotations.get(key) for key in (MODEL, VERSION))
        if model is None or version is None:
            raise UsageError(
                f"{self.name!r} is not a release of a model",
                hint="name one as NAME or NAME:VERSION; mlpack models lists them",
            )
        return model, version


def find_image(
    project: Project | None,
    text: str,
    platform: Platform | None = None,
    *,
    directory: Path | None = None,
    registries: Registries | None = None,
) -> Found:
    """Find ``text``; raise :class:`NoSuchImage` or :class:`UsageError`.

    Of an image for several platforms the one for ``platform`` is taken, or the
    first listed. Paths are relative to ``directory``, or to the project. Of an
    image in a registry only documents are read; without ``registries`` there is
    none to read it from.
    """
    here = directory or (project.root if project else Path())
    store, target = (
        _on_disk(here, text) or _in_project(project, text) or _in_registry(text, registries)
    )
    index = read_index(store, target) if target.media_type in media.INDEXES else None
    return Found(text, store, target, select_image(store, target, platform), index)


def rebuilt_bytes(found: Found) -> int:
    """How many bytes a patch release rebuilds when it starts, by its record; else 0."""
    if not isinstance(found.store, LayoutStore):
        return 0
    said = read_record(found.store, found.target).get("rebuilt")
    return said if isinstance(said, int) else 0


def in_registry(text: str) -> bool:
    """Whether ``text`` names an image in a registry, by how it is written.

    >>> [in_registry(text) for text in ("r.example.com/fan:1", "fan:1", "oci:a/b:1", "debian:sid")]
    [True, False, False, False]
    """
    return "/" in text and text.partition(":")[0] not in {"oci", "docker-archive", "debian"}


def _on_disk(here: Path, text: str) -> tuple[Readable, Descriptor] | None:
    kind, _, rest = text.partition(":")
    read = {"oci": _in_layout, "docker-archive": _in_archive}.get(kind)
    if read is None:
        return None
    if not rest or rest.startswith(":"):
        raise UsageError(f"{text!r} names no path", hint=f"write it as {kind}:PATH")
    return read(here, rest)


def _in_layout(here: Path, text: str) -> tuple[Readable, Descriptor]:
    path, tag = _split(text, (here / text).is_dir())
    layout = LayoutStore.existing(here / path)
    names = [name for name, each in layout.tags().items() if not each.artifact_type]
    known = ", ".join(names) or "no names"
    if tag:
        return layout, _resolve(layout, tag, f"it has: {known}")
    entries = [each for each in layout.entries() if not each.artifact_type]
    if len(entries) != 1:
        raise UsageError(f"{path} holds {len(entries)} images", hint=f"add :TAG, one of: {known}")
    return layout, entries[0]


def _in_archive(here: Path, text: str) -> tuple[Readable, Descriptor]:
    path, _, name = text.partition(":")
    if (here / text).is_file():
        path, name = text, ""
    archive = ArchiveStore(here / path)
    return archive, archive.resolve(name)


def _split(text: str, whole: bool) -> tuple[str, str]:
    """Path and tag; the path may hold a colon itself, and what exists as a whole is one."""
    if whole or ":" not in text:
        return text, ""
    path, _, tag = text.rpartition(":")
    return path, tag


def _in_project(project: Project | None, text: str) -> tuple[Readable, Descriptor] | None:
    """A release or the base; ``None`` for what can only be in a registry."""
    if text == NONE:
        raise UsageError(
            "none stands for an empty device, and is no image",
            hint="it can be what a device holds: mlpack diff none NEW",
        )
    before, at, digest = text.partition("@")
    if project is None:
        if "/" in before:
            return None
        raise UsageError(f"{text!r} is a release, and this is not a project", hint="use -C DIR")
    layout = project.layout
    if at:
        held = _by_digest(layout, before, digest)
        return None if held is None else (layout, held)
    return None if "/" in before else (layout, _by_name(layout, text))


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


def _by_name(layout: LayoutStore, text: str) -> Descriptor:
    if text == BASE:
        return _resolve(layout, BASE, "build it with: mlpack base build")
    name, version = parse_name(text)
    found = releases(layout, name)
    if version == LATEST:
        if not found:
            raise NoSuchImage(
                f"model {name!r} has no release", hint=f"make one: mlpack build {name}"
            )
        return list(found.values())[-1]
    if version not in found:
        raise NoSuchImage(
            f"{name}:{version} has no release", hint=f"make it with: mlpack build {name}:{version}"
        )
    return found[version]


def _by_digest(layout: LayoutStore, place: str, text: str) -> Descriptor | None:
    """The image ``text``, which ``place`` (a repository, a model or ``base``) is said to hold.

    ``None`` where a repository holds it that is not here.
    """
    try:
        digest = Digest.parse(text)
    except InvalidDigest as error:
        raise UsageError(str(error), hint="copy the whole line that mlpack build printed") from (
            error
        )
    for each in _images(layout):
        names = {each.annotations.get(MODEL), each.annotations.get(REF_NAME)}
        if each.digest == digest and ("/" in place or place in names):
            return each
    if "/" in place:
        return None
    raise NoSuchImage(f"this project holds no image {place}@{digest}")


def _images(layout: LayoutStore) -> Iterator[Descriptor]:
    """What has a name, and below each index its images under the same name."""
    for entry in layout.entries():
        yield entry
        if entry.media_type in media.INDEXES:
            for each in read_index(layout, entry).manifests:
                yield replace(each, annotations=entry.annotations)


def _resolve(layout: LayoutStore, name: str, hint: str) -> Descriptor:
    try:
        return layout.resolve(name)
    except NotFound as error:
        raise NoSuchImage(str(error), hint=hint) from error
