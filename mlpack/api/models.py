"""``mlpack models`` and ``mlpack show``: the model versions in the project's store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpack.errors import UsageError
from mlpack.json_document import document
from mlpack.model.version import AT, LATEST, ModelFile, ModelVersion, parse_name
from mlpack.project.aliases import Alias, aliases, check_unaliased
from mlpack.project.directory import ModelStore, model_tag, read_versions

if TYPE_CHECKING:
    from mlpack.api.session import Session
    from mlpack.oci.descriptor import Digest
    from mlpack.project.directory import ProjectDirectory

_LISTED = (
    "name",
    "version",
    "digest",
    "framework",
    "bytes",
    "metrics",
    "tags",
    "aliases",
    "created",
)


@dataclass(frozen=True)
class ModelList:
    """Model versions, by model and then oldest first."""

    versions: tuple[ModelVersion, ...]
    damaged: Mapping[str, str]
    """``NAME:VERSION`` → what is wrong with it."""

    aliases: tuple[Alias, ...] = ()
    """Of all the models that are listed."""

    def aliases_of(self, version: ModelVersion) -> tuple[str, ...]:
        """Return the aliases of a version."""
        named = (version.name, version.version)
        return tuple(each.alias for each in self.aliases if (each.name, each.version) == named)

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json models``."""
        members = [
            {**version_members(each), "aliases": self.aliases_of(each)} for each in self.versions
        ]
        listed = [{key: each[key] for key in _LISTED} for each in members]
        return {"models": listed, "damaged": self.damaged}


def version_members(version: ModelVersion) -> dict[str, object]:
    """Return a version's members in the documents of ``register`` and ``show``.

    They are those of the stored document, except that sizes are ``bytes`` as everywhere in
    what commands print, and with the digest and bytes of the whole.
    """
    return {
        **document(version),
        "files": [_file(each) for each in version.files],
        "scoring": _file(version.scoring) if version.scoring else None,
        **({"code": [_file(each) for each in version.code]} if version.code else {}),
        **({"code": [_file(each) for each in version.code]} if version.code else {}),
        "digest": version.digest,
        "bytes": version.size,
    }


def _file(file: ModelFile) -> dict[str, object]:
    return {"path": file.path, "bytes": file.size, "digest": file.digest}


@dataclass(frozen=True)
class ShownModel:
    """One model version, and its release if it was built."""

    version: ModelVersion
    release: Digest | None
    aliases: tuple[str, ...] = ()

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json show``."""
        return {
            **version_members(self.version),
            "release_digest": self.release,
            "aliases": self.aliases,
        }


@dataclass(frozen=True)
class Dropped:
    """A model version whose name was removed from the store."""

    version: str
    """``NAME:VERSION``."""

    release: Digest | None
    """Its release, which stays."""

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json models --drop``."""
        return {"dropped": self.version, "release_digest": self.release}


def list_models(session: Session, name: str = "") -> ModelList:
    """List all versions of all models, or of model ``name``; raise ``NoSuchModel``."""
    layout = session.project.layout
    store = ModelStore(layout)
    names = store.names()
    if name and name not in names:
        store.get(name)  # raises, naming the models there are
    found = {each: read_versions(layout, each) for each in ([name] if name else names)}
    return ModelList(
        tuple(version for each in found.values() for version in each.readable),
        {
            f"{each}:{version}": problem
            for each, versions in found.items()
            for version, problem in versions.damaged.items()
        },
        aliases(layout, name),
    )


def drop(session: Session, text: str) -> Dropped:
    """Remove the name of the model version ``text`` (``NAME:VERSION``), damaged or not.

    Its files stay on disk, because other versions may need them, and so does its release.
    Raises :class:`~mlpack.project.directory.NoSuchModel`, and
    :class:`~mlpack.project.aliases.AliasOfVersion` if an alias names it.
    """
    name, version = parse_name(text)
    if version == LATEST or version.startswith(AT):
        raise UsageError(f"{text!r} names no version", hint=f"write it as {name}:VERSION")
    project = session.project
    with project.exclusive():
        store = ModelStore(project.layout)
        if not store.holds(name, version):
            store.get(name, version)  # raises, naming the versions there are
        check_unaliased(project.layout, name, version)
        release = _release(project, name, version)
        project.layout.untag(model_tag(name, version))
    return Dropped(f"{name}:{version}", release)


def show(session: Session, text: str) -> ShownModel:
    """Return the model version ``text`` (``NAME[:VERSION]``) and its release."""
    name, version = parse_name(text)
    layout = session.project.layout
    found = ModelStore(layout).get(name, version)
    named = (each for each in aliases(layout, name) if each.version == found.version)
    return ShownModel(
        found,
        _release(session.project, name, found.version),
        tuple(each.alias for each in named),
    )


def _release(project: ProjectDirectory, name: str, version: str) -> Digest | None:
    from mlpack.project.references import releases

    target = releases(project.layout, name).get(version)
    return target.digest if target else None
