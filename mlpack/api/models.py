"""``mlpack models`` and ``mlpack show``: what the project's store holds."""

from __future__ import annotations

from dataclasses import dataclass

from mlpack.model.version import ModelVersion, parse_name
from mlpack.oci.digest import Digest
from mlpack.stores.models import ModelStore
from mlpack.stores.project import Project
from mlpack.stores.releases import releases


@dataclass(frozen=True)
class Listed:
    """Model versions, by model and then oldest first."""

    versions: tuple[ModelVersion, ...]

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
            ]
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


def list_models(project: Project, name: str = "") -> Listed:
    """All versions of all models, or of model ``name``; raise where that is unknown."""
    store = ModelStore(project.layout)
    if name:
        store.get(name)  # raises with the models there are
    names = (name,) if name else store.names()
    return Listed(tuple(version for each in names for version in store.versions(each)))


def show(project: Project, text: str) -> Shown:
    """The model version ``text`` (``NAME[:VERSION]``) and its release."""
    name, version = parse_name(text)
    found = ModelStore(project.layout).get(name, version)
    release = releases(project.layout, name).get(found.version)
    return Shown(found, release.digest if release else None)
