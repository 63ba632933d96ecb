"""``mlpack report``: what a release costs a fleet, in bytes and in money."""

from __future__ import annotations

from mlpack.api.diff import Move, find_move
from mlpack.errors import UsageError
from mlpack.oci.descriptor import Platform
from mlpack.plan.delta import delta
from mlpack.plan.engines import ENGINES, engine
from mlpack.plan.report import Report
from mlpack.plan.strategy import Way, one_layer, usual_build, whole_image
from mlpack.plan.tariff import Tariff
from mlpack.stores.project import Project
from mlpack.stores.references import NoSuchImage
from mlpack.stores.releases import releases
from mlpack.stores.tariffs import read_tariff


def report(
    project: Project,
    release: str = "",
    *,
    old: str = "",
    engine_name: str = "",
    devices: int = 0,
    tariff: Tariff | None = None,
    platform: Platform | None = None,
) -> Report:
    """Work out what bringing a fleet to ``release`` takes.

    Where nothing is said: the newest release of the project's model, from the
    release before it (or from the base), on every engine with the money for the
    project's own, for the project's number of devices and its tariff.
    """
    recipe = project.recipe
    name, version = _release(project, release)
    before = old or _previous(project, name, version)
    chosen = engine(engine_name or recipe.device.engine)
    move = find_move(project, before, f"{name}:{version}", platform=platform)
    ways, missing = _ways(project, chosen.name, move)
    return Report(
        release=f"{name}:{version}",
        digest=move.new.target.digest,
        platform=move.new.image.platform,
        old=before,
        engine=chosen.name,
        link=move.pull.link,
        deltas=tuple(
            delta(each, before, f"{name}:{version}", move.pull)
            for each in ([chosen.name] if engine_name else ENGINES)
        ),
        ways=ways,
        missing=missing,
        tariff=tariff or _project_tariff(project),
        devices=devices or recipe.fleet.devices,
    )


def _project_tariff(project: Project) -> Tariff:
    """The tariff ``[fleet]`` names; a file of the project must lie inside it."""
    named = project.recipe.fleet.tariff
    if "/" in named or named.endswith(".toml"):
        project.path(named)
    return read_tariff(named, project.root)


def _release(project: Project, text: str) -> tuple[str, str]:
    """Name and version of the release meant; raise where there is none."""
    if ":" in text.partition(":")[2] or "/" in text or "@" in text:
        raise UsageError(f"{text!r} is not NAME[:VERSION]", hint="for two images: mlpack diff")
    name, _, version = (text or project.recipe.model).partition(":")
    found = list(releases(project.layout, name))
    if not found:
        raise NoSuchImage(f"model {name!r} has no release", hint=f"make one: mlpack build {name}")
    return name, version or found[-1]


def _previous(project: Project, name: str, version: str) -> str:
    """The release before this one, where there is one; else the base."""
    found = list(releases(project.layout, name))
    before = found[: found.index(version)] if version in found else []
    return f"{name}:{before[-1]}" if before else "base"


def _ways(project: Project, name: str, move: Move) -> tuple[tuple[Way, ...], tuple[str, ...]]:
    """All ways that can be worked out, dearest first, and why others cannot."""
    chosen = engine(name)
    whole, ours = whole_image(chosen, move.pull), one_layer(chosen, move.pull)
    locked = project.lock().base.on(move.new.image.platform) if project.has_lock else None
    old = move.old.image if move.old else None
    usual = usual_build(chosen, move.pull, old, locked.layers) if locked else None
    if usual is None:
        return (whole, ours), (
            "the usual build: this release is not on the base mlpack.lock names, "
            "so which layers hold its dependencies is not known",
        )
    return (whole, usual, ours), ()
