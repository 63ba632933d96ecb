"""``mlpack diff``: what a device on one image fetches to reach another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlpack.errors import MlpackError
from mlpack.model.recipe import NONE, DeviceRecipe
from mlpack.oci.descriptor import Platform
from mlpack.plan.delta import Delta, delta
from mlpack.plan.engines import DeviceState
from mlpack.plan.transfer import Link, Pull
from mlpack.stores.project import Project
from mlpack.stores.references import Found, find_image


class OtherPlatform(MlpackError):
    """Two images no device runs both of."""

    hint = "name the platform of both with --platform"


@dataclass(frozen=True, kw_only=True)
class Move:
    """What a device holds, and the pull that brings it from there to another image."""

    old: Found | None
    pull: Pull


def diff(
    project: Project | None,
    old: str,
    new: str,
    *,
    engine: str = "",
    platform: Platform | None = None,
    directory: Path | None = None,
) -> Delta:
    """Plan the pull of ``new`` on a device that holds ``old`` (or ``none``).

    Engine and link are the project's where it is one, and paths are relative to
    ``directory``, or else to it. Raises
    :class:`~mlpack.plan.engines.UnknownEngine`, :class:`OtherPlatform` and what
    finding an image raises.
    """
    device = project.recipe.device if project else DeviceRecipe()
    target = find_image(project, new, platform, directory=directory)
    move = find_move(project, old, target, directory=directory)
    return delta(engine or device.engine, old, new, move.pull)


def find_move(
    project: Project | None, old: str, new: Found, *, directory: Path | None = None
) -> Move:
    """Find ``old`` for the platform of ``new``, and plan the way from one to the other."""
    device = project.recipe.device if project else DeviceRecipe()
    held = None
    if old != NONE:
        held = find_image(project, old, new.image.platform, directory=directory)
        _check_platform(held, new)
    state = DeviceState()
    if held is not None:
        named = [held.index] if held.index else []
        state = DeviceState.holding(held.image, indexes=named)
    pull = Pull(image=new.image, index=new.index, state=state, link=Link.of(device))
    return Move(old=held, pull=pull)


def _check_platform(old: Found, new: Found) -> None:
    ours, theirs = old.image.platform, new.image.platform
    if not ours.fits(theirs):
        raise OtherPlatform(f"{old.name} is for {ours}, {new.name} for {theirs}")
