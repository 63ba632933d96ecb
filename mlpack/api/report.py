"""``mlpack report``: what a release costs a fleet, in bytes and in money."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlpack.api.plan import ImageUpdate, find_update, ways
from mlpack.json_document import IF_SET, INLINE
from mlpack.kinds import ENGINES
from mlpack.model.order import predecessor
from mlpack.model.version import BASE
from mlpack.plan.engines import EngineRule, engine
from mlpack.plan.report import BudgetCheck, NoBudget, OverBudget, ReleaseReport
from mlpack.plan.report import check as hold
from mlpack.plan.transfer import Alternative, diff_pull
from mlpack.project.device_groups import project_tariff, read_tariff
from mlpack.project.directory import ProjectDirectory
from mlpack.project.references import FoundImage, find_image, never_started, releases
from mlpack.project.releases import base_place

if TYPE_CHECKING:
    from mlpack.api.build import Release
    from mlpack.api.requests import Report
    from mlpack.api.session import Session
    from mlpack.oci.descriptor import Reference


class BudgetExceeded(OverBudget):
    """Devices would fetch more than [budget] allows; nothing was pushed."""

    def __init__(
        self, error: OverBudget, report: FleetReport, release: Release | None = None
    ) -> None:
        super().__init__(str(error), hint=error.hint)
        self.report = report
        self.release = release
        """The release that was built, if one was."""


@dataclass(frozen=True, kw_only=True)
class FleetReport:
    """What a release costs a fleet, and whether that is within its budget."""

    report: ReleaseReport = field(metadata=INLINE)
    budget: BudgetCheck | None = field(default=None, metadata=IF_SET)
    """``None`` if mlpack.toml has no [budget]."""

    never_started: tuple[str, ...] = field(default=(), metadata=IF_SET)
    """The release's images that were not seen to start when they were built, and why."""


def report(session: Session, request: Report) -> FleetReport:
    """Work out what bringing a fleet to a release takes.

    By default: the newest release of the project's model, from the release before it (or from
    the base), on every engine, with the money for the project's own, for the project's number of
    devices and its tariff. A registry is read only for a base that stays in one.

    Raises :class:`BudgetExceeded` if ``check`` is requested and the update is over its budget.
    """
    project = session.project
    if request.check:
        check_budget(project)
    found = _report(session, request)
    unseen = never_started(find_image(project, found.release))
    budget = project.settings.budget
    if budget.empty:
        return FleetReport(report=found, never_started=unseen)
    verdict = hold(found, budget)
    made = FleetReport(report=found, budget=verdict, never_started=unseen)
    if request.check:
        try:
            verdict.require()
        except OverBudget as error:
            raise BudgetExceeded(error, made) from error
    return made


def check_budget(project: ProjectDirectory) -> None:
    """Raise ``NoBudget`` if mlpack.toml has no [budget], ``InvalidSettings`` without its tariff."""
    if project.settings.budget.empty:
        raise NoBudget("mlpack.toml has no [budget] to check against")
    project_tariff(project, project.settings.fleet.tariff)


def _report(session: Session, request: Report) -> ReleaseReport:
    project, settings = session.project, session.project.settings
    tariff = (
        read_tariff(request.tariff, session.directory)
        if request.tariff
        else project_tariff(project, settings.fleet.tariff)
    )
    chosen = engine(request.engine or settings.device.engine)
    new = find_image(project, request.release or settings.model, request.platform)
    name, version = new.release
    before = request.old or _previous(project, name, version)
    away = _base_elsewhere(project, new) if before == BASE else None
    if away is None:
        update = find_update(project, before, new)
    else:
        update = find_update(project, str(away), new, registries=session.registries)
    found, missing = _ways(project, chosen, update)
    return ReleaseReport(
        release=f"{name}:{version}",
        digest=new.target.digest,
        platform=new.image.platform,
        old=before,
        engine=chosen.name,
        link=update.pull.link,
        diffs=tuple(
            diff_pull(each, before, f"{name}:{version}", update.pull)
            for each in ([chosen.name] if request.engine else ENGINES)
        ),
        alternatives=found,
        missing=missing,
        tariff=tariff,
        devices=request.devices or settings.fleet.devices,
    )


def _previous(project: ProjectDirectory, name: str, version: str) -> str:
    """The release before this one; the base if it is the first."""
    before = predecessor(version, list(releases(project.layout, name)))
    return f"{name}:{before}" if before else BASE


def _base_elsewhere(project: ProjectDirectory, new: FoundImage) -> Reference | None:
    """Where the base of ``new`` is, if this project has only its name."""
    if BASE in project.layout.tags():
        return None
    return base_place(project.layout, new.target)


def _ways(
    project: ProjectDirectory, chosen: EngineRule, update: ImageUpdate
) -> tuple[tuple[Alternative, ...], tuple[str, ...]]:
    """All ways that can be worked out, dearest first, and why others cannot."""
    found, usual = ways(project, chosen, update)
    if usual:
        return found, ()
    return found, (
        "the usual build: this release is not based on the base in mlpack.lock, "
        "so the layers of its dependencies are unknown",
    )
