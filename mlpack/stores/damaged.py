"""Model versions some of which may be damaged: one that is must not stand in the way of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlpack.model.version import ModelVersion, version_order
from mlpack.stores.base import Corrupt, NotFound
from mlpack.stores.layout import LayoutStore
from mlpack.stores.models import ModelStore, NoSuchModel

_PREFIX = "model/"


@dataclass(frozen=True)
class Versions:
    """The versions of one model, oldest first where they are numbers."""

    readable: tuple[ModelVersion, ...]
    damaged: Mapping[str, str]
    """What is wrong with each of the others, by version."""


def read_versions(layout: LayoutStore, name: str) -> Versions:
    """All versions of model ``name``."""
    store = ModelStore(layout)
    try:
        return Versions(store.versions(name), {})
    except (Corrupt, NotFound):
        readable: list[ModelVersion] = []
        damaged: dict[str, str] = {}
        for version in sorted(_named(layout, name), key=version_order):
            try:
                readable.append(store.get(name, version))
            except (Corrupt, NotFound) as error:
                damaged[version] = str(error)
            except NoSuchModel:
                continue  # another artifact under such a name
        return Versions(tuple(readable), damaged)


def model_tag(name: str, version: str) -> str:
    """What the layout calls a model version."""
    return f"{_PREFIX}{name}/{version}"


def _named(layout: LayoutStore, name: str) -> list[str]:
    place = model_tag(name, "")
    return [tag.removeprefix(place) for tag in layout.tags() if tag.startswith(place)]
