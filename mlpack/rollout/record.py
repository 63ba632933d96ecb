"""A rollout in the ledger: what was planned, and what its devices reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any, Literal

from mlpack.errors import MlpackError
from mlpack.humanize import cents
from mlpack.plan.cost import Tariff, cost
from mlpack.plan.fleet import FleetPlan
from mlpack.project.directory import ProjectDirectory
from mlpack.project.ledger import Ledger, RolloutRecord, UnknownRelease
from mlpack.rollout.decide import Label, Observation, Rollout, member, moment
from mlpack.settings.reader import share_text

State = Literal["rolling", "complete", "undone"]


class NoSuchRollout(MlpackError):
    """A rollout that is not in the ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRollout:
    """The plan of a rollout, as far as it is compared with what was measured."""

    deployment: str = ""
    group: str = ""
    devices: int = 0
    bytes: int = 0
    """For all devices together."""

    strategy: str = ""
    cost: str = ""
    """An amount of :attr:`currency`; empty if the tariff states no price."""

    currency: str = ""

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> PlannedRollout:
        """Read the ledger's ``planned``; missing and malformed members keep their defaults."""
        plan = cls(**_members(cls, document))
        options = document.get("strategies")
        spent = {
            str(member(each, "name")): member(each, "cost", "usage")
            for each in (options if isinstance(options, list) else [])
        }
        currency = member(document, "tariff", "currency")
        return replace(plan, cost=str(spent.get(plan.strategy) or ""), currency=str(currency or ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMeasurement:
    """What the devices up to one stage reported, at the last look."""

    share: str = ""
    devices: int = 0
    running: int = 0
    failed: int = 0
    silent: int = 0
    since: str = ""
    until: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRollout:
    """What a rollout took, as far as it got."""

    state: str = ""
    """:data:`State`; empty if nothing was measured."""

    why: str = ""
    """Why it was undone."""

    stages: tuple[StageMeasurement, ...] = ()
    bytes: int = 0
    """Of the devices that reported, each at the planned mean."""

    cost: str = ""
    """Of these bytes; empty if the tariff states no price."""

    until: str = ""

    @property
    def last(self) -> StageMeasurement:
        """The last stage it reached."""
        return self.stages[-1] if self.stages else StageMeasurement()

    @classmethod
    def from_json(cls, document: Mapping[str, object] | None) -> MeasuredRollout:
        """Read the ledger's ``measured``; missing and malformed members keep their defaults."""
        rows = member(document, "stages")
        stages = tuple(
            StageMeasurement(**_members(StageMeasurement, each))
            for each in (rows if isinstance(rows, list) else [])
        )
        return replace(cls(**_members(cls, document)), stages=stages)

    def to_json(self) -> dict[str, object]:
        """Return what the ledger keeps as ``measured``."""
        last = self.last
        return {
            "state": self.state,
            "why": self.why,
            "stages": [asdict(each) for each in self.stages],
            "devices": last.devices,
            "running": last.running,
            "failed": last.failed,
            "silent": last.silent,
            "bytes": self.bytes,
            "cost": self.cost or None,
            "until": self.until,
        }


def _members(kind: type, document: object) -> dict[str, Any]:
    """Select the members of ``document`` that are fields of ``kind`` and of their type."""
    found = {each.name: (member(document, each.name), each.default) for each in fields(kind)}
    return {name: it for name, (it, default) in found.items() if isinstance(it, type(default))}


def _records(ledger: Ledger, id: str, group: str = "") -> list[RolloutRecord]:
    found = ledger.rollouts(group)
    return [each for each in found if PlannedRollout.from_json(each.planned).deployment == id]


def undone_before(ledger: Ledger, id: str) -> str:
    """Return why the last rollout of deployment ``id`` was undone; empty if it was not."""
    found = _records(ledger, id)
    measured = MeasuredRollout.from_json(found[-1].measured if found else None)
    return measured.why if measured.state == "undone" else ""


def record_undone(ledger: Ledger, id: str, why: str) -> None:
    """Record that the rollout of deployment ``id`` was undone, if this ledger knows it."""
    for record in _records(ledger, id)[-1:]:
        measured = MeasuredRollout.from_json(record.measured)
        if measured.state != "undone":
            changed = replace(measured, state="undone", why=why)
            ledger.record_measured(record.id, changed.to_json())


class Recorder:
    """Keeps one rollout's record, which is complete after every call: a crash loses nothing."""

    def __init__(
        self, ledger: Ledger, rollout: Rollout, fleet: FleetPlan | None, tariff: Tariff
    ) -> None:
        self._ledger = ledger
        self._rollout = rollout
        self._fleet = fleet
        self._tariff = tariff
        self._planned: PlannedRollout | None = None
        self._measured = MeasuredRollout()
        self.number = 0
        """In the ledger; 0 if it is not there."""
        for last in _records(ledger, rollout.id, rollout.group)[-1:]:
            self.number = last.id
            measured = MeasuredRollout.from_json(last.measured)
            if measured.state in ("", "rolling"):  # another process began it
                self._planned, self._measured = PlannedRollout.from_json(last.planned), measured

    def begin(self, now: datetime) -> None:
        """Record the plan before anything is created, or continue an open record."""
        if self._fleet is None or self._planned is not None:
            return
        document = {"deployment": self._rollout.id, **self._fleet.to_json()}
        self._planned, self._measured = PlannedRollout.from_json(document), MeasuredRollout()
        record = RolloutRecord(
            group=self._rollout.group,
            release_digest=self._rollout.digest,
            devices=self._fleet.devices,
            planned=document,
            created=now,
        )
        try:
            self.number = self._ledger.record_rollout(record)
        except UnknownRelease:
            self.number = 0  # built elsewhere and pulled: only the hub's labels keep the rollout

    def look(self, seen: Observation, now: datetime) -> None:
        """Record what a stage's devices report."""
        mine = seen.deployment(self._rollout.id)
        if mine is None or mine.state != "rolling":
            return
        shares = self._rollout.policy.stages
        stage = StageMeasurement(
            share=share_text(shares[min(mine.stage, len(shares) - 1)]),
            devices=seen.targeted,
            running=seen.running,
            failed=seen.failed,
            silent=seen.silent,
            since=mine.labels.get(Label.SINCE, ""),
            until=moment(now),
        )
        stages = {each.share: each for each in self._measured.stages}
        before = stages.get(stage.share)
        if before is None or replace(before, until=stage.until) != stage:
            stages[stage.share] = stage
            self._write("rolling", tuple(stages.values()), now)

    def finish(self, state: State, now: datetime, why: str = "") -> None:
        """Record how it ended; a record that ended before stays as it is."""
        if self._measured.state in ("", "rolling"):
            self._write(state, self._measured.stages, now, why)

    def _write(
        self, state: State, stages: tuple[StageMeasurement, ...], now: datetime, why: str = ""
    ) -> None:
        if self._planned is None:
            return
        last = stages[-1] if stages else StageMeasurement()
        reached = last.running + last.failed
        sent = self._planned.bytes * reached // (self._planned.devices or 1)
        self._measured = MeasuredRollout(
            state=state,
            why=why,
            stages=stages,
            bytes=sent,
            cost=self._cost(sent, reached),
            until=moment(now),
        )
        if self.number:
            self._ledger.record_measured(self.number, self._measured.to_json())

    def _cost(self, sent: int, reached: int) -> str:
        if not reached:
            return "0.00"
        usage = cost(self._tariff, -(-sent // reached), reached).usage
        return "" if usage is None else f"{cents(usage):f}"


@dataclass(frozen=True, kw_only=True)
class RolloutReport:
    """A rollout of the ledger, planned and measured."""

    record: RolloutRecord
    release: str
    planned: PlannedRollout
    measured: MeasuredRollout

    def to_json(self) -> dict[str, object]:
        """Return what ``mlpack --json report --rollout`` prints."""
        return {
            "rollout": self.record.id,
            "group": self.record.group,
            "release": self.release,
            "digest": str(self.record.release_digest),
            "created": self.record.created.isoformat(),
            "planned": dict(self.record.planned),
            "measured": dict(self.record.measured) if self.record.measured else None,
        }


def rollout_report(project: ProjectDirectory, number: int) -> RolloutReport:
    """Return rollout ``number`` of the ledger; the last one if it is 0."""
    ledger = Ledger(project.ledger)
    found = [each for each in ledger.rollouts() if number in (0, each.id)]
    if not found:
        known = ", ".join(str(each.id) for each in ledger.rollouts()[-10:])
        raise NoSuchRollout(
            f"the ledger has no rollout {number}" if number else "the ledger has no rollout",
            hint=f"the last ones are: {known}" if known else "mlpack deploy makes one",
        )
    record = found[-1]
    release = ledger.release(record.release_digest)
    return RolloutReport(
        record=record,
        release=f"{release.name}:{release.version}" if release else str(record.release_digest),
        planned=PlannedRollout.from_json(record.planned),
        measured=MeasuredRollout.from_json(record.measured),
    )
