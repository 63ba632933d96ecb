"""``mlpack models`` and ``mlpack show``: what the project's store holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlpack.errors import UsageError
from mlpack.model.version import LATEST, ModelVersion, parse_name
from mlpack.oci.digest import Digest
from mlpack.stores.damaged import model_tag, read_versions
from mlpack.stores.models import ModelStore
from mlpack.stores.project import Project
from mlpack.stores.releases import releases
from mlpack.stores.untag import untag


@dataclass(frozen=True)
class Listed:
    """Model versions, by model and then oldest first."""

    versions: tuple[ModelVersion, ...]
    damaged: Mapping[str, str]
    """``NAME:VERSION`` → what is wrong with it."""

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json models``."""
        return {
            "models": [
                {
                    "name": each.name,
                    "version": each.version,
                    "digest": str(each.digest),
                    "framework": each.framework,
                    "size": each.size,
                    "metrics": dict(each.metrics),
                    "tags": dict(each.tags),
                    "created": each.created,
                }
                for each in self.versions
            ],
            "damaged": dict(self.damaged),
        }


@dataclass(frozen=True)
class Shown:
    """One model version and the release made of it, where there is one."""

    version: ModelVersion
    release: Digest | None

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json show``."""
        return {
            **self.version.to_json(),
            "digest": str(self.version.digest),
            "size": self.version.size,
            "release": str(self.release) if self.release else None,
        }


@dataclass(frozen=True)
class Dropped:
    """A model version whose name is gone from the store."""

    name: str
    version: str
    release: Digest | None
    """Its release, which stays."""

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json models --drop``."""
        release = str(self.release) if self.release else None
        return {"dropped": f"{self.name}:{self.version}", "release": release}


def list_models(project: Project, name: str = "") -> Listed:
    """All versions of all models, or of model ``name``; raise where that is unknown."""
    store = ModelStore(project.layout)
    names = store.names()
    if name and name not in names:
        store.get(name)  # raises with the models there are
    chosen = (name,) if name else names
    found = {each: read_versions(project.layout, each) for each in chosen}
    return Listed(
        tuple(version for each in chosen for version in found[each].readable),
        {
            f"{each}:{version}": problem
            for each in chosen
            for version, problem in found[each].damaged.items()
        },
    )


def drop(project: Project, text: str) -> Dropped:
    """Take the model version ``text`` (``NAME:VERSION``), damaged or not, out of the store.

    Its files stay on disk, where other versions may need them, and so does its release.
    Raises :class:`~mlpack.stores.models.NoSuchModel`.
    """
    name, version = parse_name(text)
    if version == LATEST:
        raise UsageError(f"{text!r} names no version", hint=f"write it as {name}:VERSION")
    with project.exclusive():
        store = ModelStore(project.layout)
        if not store.holds(name, version):
            store.get(name, version)  # raises with what there is
        release = releases(project.layout, name).get(version)
        untag(project.layout, model_tag(name, version))
    return Dropped(name, version, release.digest if release else None)


def show(project: Project, text: str) -> Shown:
    """The model version ``text`` (``NAME[:VERSION]``) and its release."""
    name, version = parse_name(text)
    found = ModelStore(project.layout).get(name, version)
    release = releases(project.layout, name).get(found.version)
    return Shown(found, release.digest if release else None)
