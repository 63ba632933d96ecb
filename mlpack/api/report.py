"""``mlpack report``: what a release costs a fleet, in bytes and in money."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mlpack.api.diff import Move, find_move
from mlpack.api.ways import ways
from mlpack.model.recipe import BASE
from mlpack.oci.descriptor import Platform
from mlpack.oci.reference import Reference
from mlpack.plan.delta import delta
from mlpack.plan.engines import ENGINES, Engine, engine
from mlpack.plan.report import Report
from mlpack.plan.strategy import Way
from mlpack.plan.tariff import Tariff
from mlpack.stores.project import Project
from mlpack.stores.references import Found, find_image
from mlpack.stores.releases import releases
from mlpack.stores.remote_base import base_place
from mlpack.stores.tariffs import project_tariff

if TYPE_CHECKING:
    from mlpack.stores.registries import Registries


def report(
    project: Project,
    release: str = "",
    *,
    old: str = "",
    engine_name: str = "",
    devices: int = 0,
    tariff: Tariff | None = None,
    platform: Platform | None = None,
    registries: Callable[[], Registries] | None = None,
) -> Report:
    """Work out what bringing a fleet to ``release`` takes.

    ``release`` is ``NAME[:VERSION]``, or what ``mlpack build`` prints. Where nothing
    is said: the newest release of the project's model, from the release before it
    (or from the base), on every engine with the money for the project's own, for
    the project's number of devices and its tariff. ``registries`` is called only for a
    base that stays in one, and is not here.
    """
    recipe = project.recipe
    new = find_image(project, release or recipe.model, platform)
    name, version = new.release
    before = old or _previous(project, name, version)
    away = _base_elsewhere(project, new) if before == BASE else None
    chosen = engine(engine_name or recipe.device.engine)
    if away is None:
        move = find_move(project, before, new)
    else:
        there = registries() if registries else None
        move = find_move(project, str(away), new, registries=there)
    found, missing = _ways(project, chosen, move)
    return Report(
        release=f"{name}:{version}",
        digest=new.target.digest,
        platform=new.image.platform,
        old=before,
        engine=chosen.name,
        link=move.pull.link,
        deltas=tuple(
            delta(each, before, f"{name}:{version}", move.pull)
            for each in ([chosen.name] if engine_name else ENGINES)
        ),
        ways=found,
        missing=missing,
        tariff=tariff or project_tariff(project, recipe.fleet.tariff, "[fleet]"),
        devices=devices or recipe.fleet.devices,
    )


def _previous(project: Project, name: str, version: str) -> str:
    """The release before this one, where there is one; else the base."""
    found = list(releases(project.layout, name))
    before = found[: found.index(version)] if version in found else []
    return f"{name}:{before[-1]}" if before else BASE


def _base_elsewhere(project: Project, new: Found) -> Reference | None:
    """Where the base of ``new`` is, where this project has only its name."""
    if BASE in project.layout.tags():
        return None
    return base_place(project.layout, new.target)


def _ways(project: Project, chosen: Engine, move: Move) -> tuple[tuple[Way, ...], tuple[str, ...]]:
    """All ways that can be worked out, dearest first, and why others cannot."""
    found, usual = ways(project, chosen, move)
    if usual:
        return found, ()
    return found, (
        "the usual build: this release is not on the base mlpack.lock names, "
        "so which layers hold its dependencies is not known",
    )
