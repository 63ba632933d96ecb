"""Aliases: words such as ``champion`` that name a version of a model, and can be moved to another.

An alias is the entry ``alias/NAME/ALIAS`` of ``index.json``, annotated with the version. It points
at an empty artifact. No push sends it to a registry, and no push to the project writes one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlpack.errors import MlpackError
from mlpack.humanize import nearest
from mlpack.model.version import AT
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import canonical
from mlpack.stores.layout import LayoutStore
from mlpack.stores.records import ALIASES
from mlpack.stores.store import ListingStore, put_bytes

ARTIFACT = "application/vnd.mlpack.alias.v1+json"
ALIAS_OF = "io.mlpack.alias"
"""Annotation of an alias's entry: the version that it names."""


class NoSuchAlias(MlpackError):
    """An alias that the model does not have."""


class AliasOfVersion(MlpackError):
    """A version that an alias names, and so cannot be dropped."""


@dataclass(frozen=True, slots=True, order=True)
class Alias:
    """An alias of a model, and the version it names."""

    name: str
    alias: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}{AT}{self.alias}"


def aliases(store: ListingStore, name: str = "") -> tuple[Alias, ...]:
    """Return the aliases of model ``name``, or of all models, in order."""
    found = []
    for tag, target in store.tags().items():
        model, _, alias = tag.removeprefix(ALIASES).partition("/")
        if tag.startswith(ALIASES) and ALIAS_OF in target.annotations and name in ("", model):
            found.append(Alias(model, alias, target.annotations[ALIAS_OF]))
    return tuple(found)


def find_alias(store: ListingStore, name: str, alias: str) -> Alias:
    """Return the alias ``alias`` of model ``name``; raise :class:`NoSuchAlias`."""
    held = {each.alias: each for each in aliases(store, name)}
    if alias not in held:
        known = f"it has: {', '.join(held)}" if held else "it has none"
        make = f"make it with: mlpack tag {name}:VERSION {alias}"
        raise NoSuchAlias(
            f"model {name!r} has no alias {alias!r} ({known}){nearest(alias, held)}",
            hint=f"list them with: mlpack tag {name} --list" if held else make,
        )
    return held[alias]


def resolved(store: ListingStore, name: str, version: str) -> str:
    """Return the version that ``version`` names if it is an alias (``@champion``), or itself."""
    if not version.startswith(AT):
        return version
    return find_alias(store, name, version.removeprefix(AT)).version


def keep_alias(layout: LayoutStore, alias: Alias) -> None:
    """Make the alias, or move it."""
    empty = put_bytes(layout, b"{}", media.EMPTY).to_json()
    manifest = {
        "schemaVersion": 2,
        "mediaType": media.MANIFEST,
        "artifactType": ARTIFACT,
        "config": empty,
        "layers": [empty],
    }
    target = put_bytes(layout, canonical(manifest), media.MANIFEST)
    named = replace(target, artifact_type=ARTIFACT, annotations={ALIAS_OF: alias.version})
    layout.tag(named, f"{ALIASES}{alias.name}/{alias.alias}")


def drop_alias(layout: LayoutStore, alias: Alias) -> None:
    """Delete the alias; its version stays."""
    layout.untag(f"{ALIASES}{alias.name}/{alias.alias}")


def check_unaliased(store: ListingStore, name: str, version: str) -> None:
    """Raise :class:`AliasOfVersion` if an alias names the version."""
    naming = [each for each in aliases(store, name) if each.version == version]
    if naming:
        raise AliasOfVersion(
            f"{name}:{version} is {' and '.join(map(str, naming))}",
            hint=f"move the alias first, or delete it: mlpack tag {naming[0]} --delete",
        )
