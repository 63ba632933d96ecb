"""References to images and model versions as users write them, and finding these.

``NAME[:VERSION]`` or ``NAME@ALIAS`` a release of this project, ``…@sha256:…`` one by the digest
that ``mlpack build`` printed, ``base`` its base, ``oci:PATH[:TAG]`` an OCI layout,
``docker-archive:PATH[:NAME]`` a ``docker save`` file, ``oci-archive:PATH[:NAME]`` a tar of a
layout, ``REGISTRY/REPOSITORY:TAG`` or ``…@sha256:…`` one in a registry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mlpack.errors import MlpackError, UsageError
from mlpack.humanize import nearest
from mlpack.kinds import PLACES
from mlpack.model.trial_start import NOT_TRIED
from mlpack.model.version import AT, BASE, LATEST, NONE, parse_name
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest, InvalidDigest, Platform, Reference
from mlpack.oci.image import Image, Index
from mlpack.oci.reference import foreign, on_hub
from mlpack.project.aliases import resolved
from mlpack.project.directory import ModelStore, ProjectDirectory, blob
from mlpack.project.releases import named_releases
from mlpack.stores.files import NotAFile, OnDisk
from mlpack.stores.layout import REF_NAME, LayoutStore
from mlpack.stores.records import MODEL, VERSION, read_record, read_starts
from mlpack.stores.store import (
    NotFound,
    Readable,
    Remote,
    images,
    manifests,
    read_index,
    select_image,
    verify,
)

if TYPE_CHECKING:
    # Its client takes 0.1 s to import, and most commands name no registry.
    from mlpack.registry.repository import Registries


class NoSuchImage(MlpackError):
    """A reference to nothing."""

    hint = "list what there is with: mlpack models"


@dataclass(frozen=True)
class FoundImage:
    """An image and its store; ``index`` is set if its name is that of several platforms."""

    name: str
    store: Readable
    target: Descriptor
    image: Image
    index: Index | None

    @property
    def location(self) -> tuple[Path, ...]:
        """The file or directory it is read from; none for an image in a registry."""
        return (self.store.root,) if isinstance(self.store, OnDisk) else ()

    @property
    def release(self) -> tuple[str, str]:
        """Model and version of a release; raise :class:`UsageError` for any other image."""
        model, version = (self.target.annotations.get(key) for key in (MODEL, VERSION))
        if model is None or version is None:
            raise UsageError(
                f"{self.name!r} is not a release of a model",
                hint="name one as NAME or NAME:VERSION; mlpack models lists them",
            )
        return model, version


def find_image(
    project: ProjectDirectory | None,
    text: str,
    platform: Platform | None = None,
    *,
    directory: Path | None = None,
    registries: Registries | None = None,
) -> FoundImage:
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
    return FoundImage(text, store, target, select_image(store, target, platform), index)


def releases(layout: LayoutStore, name: str) -> Mapping[str, Descriptor]:
    """Return the releases of model ``name`` by version, the one built first first."""
    return {each.version: each.target for each in named_releases(layout, name)}


def rebuilt_bytes(found: FoundImage) -> int:
    """Return the bytes that a release rebuilds when it starts; 0 if its image has the model."""
    if isinstance(found.store, Remote):  # not worth a request
        return 0
    said = read_record(found.store, found.target).get("rebuilt")
    return said if isinstance(said, int) else 0


def never_started(found: FoundImage) -> tuple[str, ...]:
    """Return a line for each image of a release that was not seen to start when it was built.

    Images without a record, or with one in a registry, have no line.
    """
    if isinstance(found.store, Remote) or not read_record(found.store, found.target):
        return ()
    starts = read_starts(found.store, found.target)
    release = ":".join(found.release)
    lines = []
    for image in images(found.store, found.target):
        start = starts.get(image.digest, NOT_TRIED)
        if start.outcome != "started":
            lines.append(f"{release} on {image.platform}: {start}")
    return tuple(lines)


def is_named(layout: LayoutStore, text: str) -> bool:
    """Whether ``text`` is written as a version, or is the name of a model."""
    written = ":" in text or AT in text
    return "/" not in text and (written or text in ModelStore(layout).names())


def exact_name(layout: LayoutStore, text: str) -> str:
    """Return ``NAME:VERSION`` for ``NAME@ALIAS``, and any other text as it is."""
    if not _is_alias(text):
        return text
    name, version = parse_name(text)
    return f"{name}:{resolved(layout, name, version)}"


def _is_alias(text: str) -> bool:
    """Whether ``text`` is written as ``NAME@ALIAS``, and not as an image by its digest."""
    name, at, rest = text.partition(AT)
    return bool(at) and ":" not in rest and "/" not in name


def single_file(layout: LayoutStore, text: str) -> Path:
    """Return the one file of the version ``text`` (``NAME[:VERSION]``), verified.

    Raises :class:`~mlpack.project.directory.NoSuchModel`,
    :class:`~mlpack.stores.files.NotAFile` for a version of several files, and
    :class:`~mlpack.stores.store.Corrupt` if it is not what was registered.
    """
    version = ModelStore(layout).get(*parse_name(text))
    if len(version.files) != 1:
        raise NotAFile(
            f"{version} is {len(version.files)} files, and a patch is for one",
            hint="name the files themselves",
        )
    target = blob(version.files[0])
    verify(layout, target)
    return layout.path(target)


def in_registry(text: str) -> bool:
    """Whether ``text`` names an image in a registry, by how it is written.

    >>> [in_registry(text) for text in ("r.example.com/fan:1", "fan:1", "oci:a/b:1", "debian:sid")]
    [True, False, False, False]
    """
    return "/" in text and text.partition(":")[0] not in {*PLACES, "debian"}


def is_archive(text: str) -> bool:
    """Whether ``text`` names an image in a ``docker save`` file."""
    return text.startswith("docker-archive:")


def _on_disk(here: Path, text: str) -> tuple[Readable, Descriptor] | None:
    kind, _, rest = text.partition(":")
    if kind not in PLACES or (rest.startswith("//") and not (here / rest).exists()):
        return None  # oci://… is how Helm and others mark a registry
    if not rest or rest.startswith(":"):
        raise UsageError(f"{text!r} names no path", hint=f"write it as {kind}:PATH")
    found: tuple[Readable, Descriptor] = place_module(kind).read(rest, here)
    return found


def place_module(kind: str) -> ModuleType:
    """Return the module of :mod:`mlpack.stores.places` for a prefix, one of ``PLACES``."""
    return import_module(f"mlpack.stores.places.{kind.replace('-', '_')}")


def _in_project(project: ProjectDirectory | None, text: str) -> tuple[Readable, Descriptor] | None:
    """Return a release or the base; ``None`` for an image that can only be in a registry."""
    if text == NONE:
        raise UsageError(
            "none means an empty device, not an image",
            hint="it can be what a device holds: mlpack diff none NEW",
        )
    before, at, digest = ("", "", "") if _is_alias(text) else text.partition(AT)
    models = ModelStore(project.layout).names() if project else ()
    if (other := foreign(text)) and text.partition(":")[0] not in models:
        raise UsageError(f"{text!r} is of a kind that mlpack does not read", hint=other)
    if project is None:
        if "/" in before:
            return None
        raise UsageError(
            f"{text!r} is a release, and this is not a project",
            hint="; ".join(("use -C DIR", *_on_hub(text))),
        )
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
        return _base(layout)
    name, version = parse_name(text)
    found = releases(layout, name)
    if not found:
        _require_model(layout, name, text)
    version = resolved(layout, name, version)
    if version == LATEST:
        if not found:
            raise NoSuchImage(
                f"model {name!r} has no release", hint=f"make one: mlpack build {name}"
            )
        return list(found.values())[-1]
    if version not in found:
        raise _no_release(layout, name, version, found)
    return found[version]


def _no_release(
    layout: LayoutStore, name: str, version: str, found: Mapping[str, Descriptor]
) -> NoSuchImage:
    """Return the error for a version without a release; its hint works as it is."""
    if ModelStore(layout).holds(name, version):
        return NoSuchImage(
            f"{name}:{version} has no release", hint=f"make it with: mlpack build {name}:{version}"
        )
    listed = ", ".join(found) or "none"
    return NoSuchImage(
        f"{name}:{version} has no release, and there is no such version"
        f"{nearest(version, found)}; releases of {name}: {listed}",
        hint="list the versions with: mlpack models",
    )


def _require_model(layout: LayoutStore, name: str, text: str) -> None:
    models = ModelStore(layout).names()
    if name in models:
        return
    near = nearest(name, models)
    hint = f"register it with: mlpack register PATH --name {name}"
    hints = (NoSuchImage.hint if models else hint, *(() if near else _on_hub(text)))
    raise NoSuchImage(f"there is no model {name!r} here{near}", hint="; ".join(hints))


def _on_hub(text: str) -> tuple[str, ...]:
    """Say how the image that Docker reads in ``text`` is written here, if it reads one."""
    hub = on_hub(text)
    return (f"Docker Hub's image is {hub}",) if hub else ()


def _by_digest(layout: LayoutStore, place: str, text: str) -> Descriptor | None:
    """Return the image with digest ``text`` of ``place`` (a repository, a model or ``base``).

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
    raise NoSuchImage(
        f"this project holds no image {place}@{digest}",
        hint="; ".join(_on_hub(f"{place}@{digest}")),
    )


def _images(layout: LayoutStore) -> Iterator[Descriptor]:
    """Yield every tagged image, and the images of each index under the same name."""
    for entry in layout.entries():
        yield entry
        if entry.media_type in media.INDEXES:
            for each in manifests(layout, entry):
                yield replace(each, annotations=entry.annotations)


def _base(layout: LayoutStore) -> Descriptor:
    try:
        return layout.resolve(BASE)
    except NotFound as error:
        raise NoSuchImage(
            "the base is not in this project's store (mlpack.lock names it, if it was built)",
            hint="build it with: mlpack base build; or bring it from where it was pushed: mlpack "
            "pull REGISTRY/REPOSITORY:TAG --as base",
        ) from error
