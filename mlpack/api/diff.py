"""``mlpack diff``: what a device on one image fetches to reach another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.errors import MlpackError
from mlpack.model.recipe import NONE, DeviceRecipe
from mlpack.oci.descriptor import Platform
from mlpack.oci.reference import Reference
from mlpack.plan.delta import Delta, delta
from mlpack.plan.engines import DeviceState
from mlpack.plan.transfer import Link, Pull
from mlpack.stores.archive import ArchiveStore
from mlpack.stores.project import Project
from mlpack.stores.references import Found, find_image, in_registry

if TYPE_CHECKING:
    from mlpack.stores.registries import Registries


class OtherPlatform(MlpackError):
    """Two images no device runs both of."""

    hint = "name the platform of both with --platform"


@dataclass(frozen=True, kw_only=True)
class Move:
    """Two images found, and the pull that brings a device from one to the other."""

    old: Found | None
    new: Found
    pull: Pull


def diff(
    project: Project | None,
    old: str,
    new: str,
    *,
    engine: str = "",
    platform: Platform | None = None,
    directory: Path | None = None,
    registries: Registries | None = None,
    loaded: bool = False,
) -> Delta:
    """Plan the pull of ``new`` on a device that holds ``old`` (or ``none``).

    Engine and link are the project's where it is one, and paths are relative to
    ``directory``, or else to it. Raises
    :class:`~mlpack.plan.engines.UnknownEngine`, :class:`OtherPlatform` and what
    finding an image raises.
    """
    device = project.recipe.device if project else DeviceRecipe()
    target = find_image(project, new, platform, directory=directory, registries=registries)
    move = find_move(
        project, old, target, directory=directory, registries=registries, loaded=loaded
    )
    return delta(engine or device.engine, old, new, move.pull)


def find_move(
    project: Project | None,
    old: str,
    new: Found,
    *,
    directory: Path | None = None,
    registries: Registries | None = None,
    loaded: bool = False,
) -> Move:
    """Find ``old`` for the platform of ``new``, and plan the way from one to the other.

    ``loaded`` where the device got ``old`` from a file, and no registry's digests with it.
    """
    device = project.recipe.device if project else DeviceRecipe()
    held = None
    if old != NONE:
        platform = new.image.platform
        held = find_image(project, old, platform, directory=directory, registries=registries)
        _check_platform(held, new)
    named = Reference.parse(new.name) if in_registry(new.name) else None
    link = Link.of(device, named or (project.recipe.repository if project else None))
    state = _state(held, loaded)
    pull = Pull(image=new.image, index=new.index, state=state, link=link)
    return Move(old=held, new=new, pull=pull)


def _state(held: Found | None, loaded: bool) -> DeviceState:
    """What the device has; a ``docker save`` file can only have been loaded."""
    if held is None:
        return DeviceState()
    if loaded or isinstance(held.store, ArchiveStore):
        return DeviceState.loaded(held.image)
    return DeviceState.holding(held.image, indexes=[held.index] if held.index else [])


def _check_platform(old: Found, new: Found) -> None:
    ours, theirs = old.image.platform, new.image.platform
    if not ours.fits(theirs):
        raise OtherPlatform(f"{old.name} is for {ours}, {new.name} for {theirs}")
