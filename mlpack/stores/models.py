"""The model store: versions as OCI artifacts in the project's layout (docs/formats.md).

A version is a manifest with our artifact type: its config is the version's
document, its layers are the files. Any tool that copies OCI artifacts moves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import BinaryIO, cast

from mlpack.errors import MlpackError
from mlpack.model.recipe import check_name, check_word
from mlpack.model.version import LATEST, ModelFile, ModelVersion, version_order
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.document import InvalidContent, canonical, parse
from mlpack.stores.base import Corrupt, ListingStore, put_bytes, read
from mlpack.stores.checked import Checked

ARTIFACT = "application/vnd.mlpack.model.v1+json"
CONFIG = "application/vnd.mlpack.model.config.v1+json"
FILE = "application/vnd.mlpack.model.file.v1"
SCORING_FILE = "application/vnd.mlpack.model.scoring.v1"
TITLE = "org.opencontainers.image.title"
CREATED = "org.opencontainers.image.created"
"""Annotations of image-spec's annotations.md; ORAS names the files it pulls by the title."""

_PREFIX = "model/"

OpenModelFile = Callable[[ModelFile], AbstractContextManager[BinaryIO]]


class NoSuchModel(MlpackError):
    """A model or a version the project does not hold."""


class ModelStore:
    """Model versions by name and version, over any store that lists its names."""

    def __init__(self, store: ListingStore) -> None:
        self._store = store

    def add(self, version: ModelVersion, open_file: OpenModelFile) -> Descriptor:
        """Keep ``version``: its files first, its name last, so that no reader sees a part.

        Content that is there whole is not read again. Raises
        :class:`~mlpack.stores.base.Corrupt` where a file is not what ``version`` says.
        """
        for file, media_type in _blobs(version):
            target = Descriptor(media_type, file.digest, file.size)
            with open_file(file) as content:
                self._store.put(target, content)
        return self.describe(version)

    def describe(self, version: ModelVersion) -> Descriptor:
        """Name ``version``, whose files the store holds; replaces what was known of it before."""
        config = put_bytes(self._store, canonical(version.to_json()), CONFIG)
        manifest = put_bytes(self._store, canonical(_manifest(version, config)), media.MANIFEST)
        named = replace(manifest, artifact_type=ARTIFACT)
        self._store.tag(named, _tag(version.name, version.version))
        return named

    def get(self, name: str, version: str = LATEST) -> ModelVersion:
        """The version, or the newest where none is named; raise :class:`NoSuchModel`."""
        check_name(name)
        held = self._targets(name)
        if not held:
            models = ", ".join(self.names()) or "none"
            raise NoSuchModel(
                f"there is no model {name!r} here (there is: {models})",
                hint=f"register it with: mlpack register PATH --name {name}",
            )
        wanted = list(held)[-1] if version in ("", LATEST) else check_word(version, "version")
        if wanted not in held:
            raise NoSuchModel(
                f"model {name!r} has no version {wanted!r} (it has: {', '.join(held)})",
                hint=f"see what it has with: mlpack models {name}",
            )
        return self._read(held[wanted], f"{name}:{wanted}")

    def holds(self, name: str, version: str) -> bool:
        """Whether there is such a version."""
        return version in self._targets(name)

    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        """All versions of a model, oldest first where they are numbers."""
        held = self._targets(check_name(name))
        return tuple(self._read(target, f"{name}:{each}") for each, target in held.items())

    def names(self) -> tuple[str, ...]:
        """All models, sorted."""
        return tuple(sorted({name for name, _, _ in self._named()}))

    @contextmanager
    def open_file(self, file: ModelFile) -> Iterator[BinaryIO]:
        """Open a file of a version. Read to its end, it raises where its bytes changed on disk."""
        target = blob(file)
        changed = Corrupt(
            f"{file.path} in the store is not what was registered ({file.digest})",
            hint="register the model again: that writes the file anew",
        )
        with self._store.open(target) as raw:
            yield cast(BinaryIO, Checked(raw, target, changed))

    def _named(self) -> Iterator[tuple[str, str, Descriptor]]:
        for tag, target in self._store.tags().items():
            if tag.startswith(_PREFIX) and target.artifact_type in ("", ARTIFACT):
                name, _, version = tag.removeprefix(_PREFIX).partition("/")
                yield name, version, target

    def _targets(self, name: str) -> dict[str, Descriptor]:
        held = {version: target for model, version, target in self._named() if model == name}
        return {version: held[version] for version in sorted(held, key=version_order)}

    def _read(self, target: Descriptor, what: str) -> ModelVersion:
        try:
            manifest = parse(read(self._store, target), what)
            config = Descriptor.from_json(manifest.need("config"))
            if config.media_type != CONFIG:
                raise InvalidContent(what, f"is a {config.media_type}, no model version")
            found = ModelVersion.from_json(parse(read(self._store, config), what))
        except InvalidContent as error:
            raise Corrupt(f"the store's document of {error}") from error
        if str(found) != what:
            raise Corrupt(f"the store's document of {what} says it is {found}")
        return found


def blob(file: ModelFile) -> Descriptor:
    """What a store of versions holds ``file`` as."""
    return Descriptor(FILE, file.digest, file.size)


def _tag(name: str, version: str) -> str:
    return f"{_PREFIX}{name}/{version}"


def _blobs(version: ModelVersion) -> Iterator[tuple[ModelFile, str]]:
    yield from ((file, FILE) for file in version.files)
    if version.scoring:
        yield version.scoring, SCORING_FILE


def _manifest(version: ModelVersion, config: Descriptor) -> dict[str, object]:
    layers = [
        Descriptor(media_type, file.digest, file.size, {TITLE: file.path}).to_json()
        for file, media_type in _blobs(version)
    ]
    return {
        "schemaVersion": 2,
        "mediaType": media.MANIFEST,
        "artifactType": ARTIFACT,
        "config": config.to_json(),
        "layers": layers,
        "annotations": {TITLE: str(version), CREATED: version.created},
    }
