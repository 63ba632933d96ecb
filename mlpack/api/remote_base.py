"""Building on a base that stays in its registry: ``mlpack build --base``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlpack.errors import MlpackError
from mlpack.model.lock import Lock, LockedBase, LockedLayer, LockedPlatform
from mlpack.oci.compression import PACKING
from mlpack.oci.descriptor import Descriptor, Platform
from mlpack.oci.image import Image
from mlpack.oci.reference import Reference
from mlpack.stores.base import images
from mlpack.stores.copy import copy
from mlpack.stores.patches import find_target
from mlpack.stores.project import Project
from mlpack.stores.references import find_image
from mlpack.stores.registries import Registries


class OtherBase(MlpackError):
    """A base in a registry that is not the one mlpack.lock pins."""

    hint = "publish the locked base with: mlpack push base --to REPOSITORY, and name that one"


@dataclass(frozen=True, kw_only=True)
class RemoteBase:
    """A base whose manifests and configs are here, and whose layers are not."""

    place: Reference
    """Where it is, by digest."""

    lock: Lock
    """The project's, or one made of the image itself where the project has none."""

    locked: bool
    """Whether it is the project's, so that requirements can be compared with it."""

    platforms: tuple[Platform, ...]


def adopt(project: Project, registries: Registries, place: Reference) -> RemoteBase:
    """Read manifests and configs of the base at ``place`` into the store; no layer.

    Raises :class:`OtherBase` where the project has a lock, and this is not the base in it.
    """
    found = find_image(None, str(place), registries=registries)
    made = images(found.store, found.target)
    layers = {layer.digest for image in made for layer in image.layers}
    pinned = place.pinned(found.target.digest)
    lock = project.lock() if project.has_lock else None
    if lock is not None:
        platforms = _locked(lock, found.target, pinned)
    copy(found.store, project.layout, found.target, skip=layers)
    if lock is not None:
        return RemoteBase(place=pinned, lock=lock, locked=True, platforms=platforms)
    own = _own(pinned, found.target, made)
    return RemoteBase(
        place=pinned,
        lock=own,
        locked=False,
        platforms=tuple(each.platform for each in own.base.platforms),
    )


def adopt_anchor(project: Project, registries: Registries, name: str) -> None:
    """Read manifests and configs of the anchor of model ``name`` into the store; no layer.

    It is looked for in [image] repository. Where it cannot be read, nothing is said: a build
    that needs it says that it is not here.
    """
    digest = project.lock().anchors.get(name) if project.has_lock else None
    where = project.recipe.repository
    if digest is None or where is None or find_target(project.layout, digest):
        return
    try:
        found = find_image(None, str(where.pinned(digest)), registries=registries)
        made = images(found.store, found.target)
        layers = {layer.digest for image in made for layer in image.layers}
        copy(found.store, project.layout, found.target, skip=layers)
    except MlpackError:
        return


def _locked(lock: Lock, target: Descriptor, place: Reference) -> tuple[Platform, ...]:
    """The platforms of the locked base that ``target`` is the image of."""
    found = tuple(
        each.platform
        for each in lock.base.platforms
        if target.digest in {lock.base.index.digest, each.manifest.digest}
    )
    if not found:
        raise OtherBase(
            f"{place} is not the base in mlpack.lock, which is {lock.base.index.digest}"
        )
    return found


def _own(place: Reference, target: Descriptor, made: Sequence[Image]) -> Lock:
    """What a lock would say of an image that is a base by itself; it is not written."""
    return Lock(
        base=LockedBase(
            source=str(place),
            recipe=target.digest,
            index=target,
            packing=PACKING,
            platforms=tuple(
                LockedPlatform(
                    platform=image.platform,
                    manifest=image.descriptor,
                    layers=tuple(LockedLayer("source", layer) for layer in image.layers),
                )
                for image in made
            ),
        )
    )
