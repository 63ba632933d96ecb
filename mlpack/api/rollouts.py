"""A rollout in the ledger: what was planned, and what its devices said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from mlpack.api.groups import group_tariff
from mlpack.errors import UsageError
from mlpack.model.amounts import share_text
from mlpack.model.groups import DeviceGroup
from mlpack.plan.deployed import moment
from mlpack.plan.fleet import FleetPlan
from mlpack.plan.rollout import Observation, Rollout
from mlpack.stores.ledger import Ledger, RolloutRecord, UnknownRelease
from mlpack.stores.project import Project
from mlpack.words import cents


class NoSuchRollout(UsageError):
    """A rollout that is not in the ledger."""


def undone_before(project: Project, id: str) -> str:
    """Why the last rollout of deployment ``id`` was undone; empty where it was not."""
    why = ""
    for each in Ledger(project.ledger).rollouts():
        if each.planned.get("deployment") == id:
            measured = each.measured or {}
            why = str(measured.get("why", "")) if measured.get("state") == "undone" else ""
    return why


class Recorder:
    """Keeps one rollout's record; each record is whole at any moment, so that dying is no loss."""

    def __init__(
        self, project: Project, rollout: Rollout, fleet: FleetPlan | None, group: DeviceGroup
    ) -> None:
        self._ledger = Ledger(project.ledger)
        self._rollout = rollout
        self._fleet = fleet
        self._tariff = group_tariff(project, group)
        found = self._open()
        self.number = found.id if found else 0
        self._planned: Mapping[str, object] = found.planned if found else {}
        self._measured: dict[str, object] = dict((found.measured if found else None) or {})
        if found is None:
            last = self._last()
            self.number = last.id if last else 0

    def _all(self) -> tuple[RolloutRecord, ...]:
        id = self._rollout.id
        found = self._ledger.rollouts(self._rollout.group)
        return tuple(each for each in found if each.planned.get("deployment") == id)

    def _open(self) -> RolloutRecord | None:
        """The record of this rollout that has not ended: another process began it."""
        last = self._last()
        state = (last.measured or {}).get("state") if last else None
        return last if state in (None, "rolling") else None

    def _last(self) -> RolloutRecord | None:
        found = self._all()
        return found[-1] if found else None

    def begin(self, now: datetime) -> None:
        """Record what is planned, before anything is created; go on with a record that is open."""
        if self._fleet is None or self._open() is not None:
            return
        self._planned = {"deployment": self._rollout.id, **self._fleet.to_json()}
        self._measured = {}
        try:
            self.number = self._ledger.record_rollout(
                RolloutRecord(
                    group=self._rollout.group,
                    release_digest=self._rollout.digest,
                    devices=self._fleet.devices,
                    planned=self._planned,
                    created=now,
                )
            )
        except UnknownRelease:
            # Made elsewhere and pulled: the hub's labels alone keep the rollout.
            self.number = 0

    def look(self, seen: Observation, now: datetime) -> None:
        """Keep what a stage's devices say."""
        mine = seen.deployment(self._rollout.id)
        if not self._planned or mine is None or mine.state != "rolling":
            return
        stages = dict(_stages(self._measured))
        share = share_text(
            self._rollout.policy.stages[min(mine.stage, len(self._rollout.policy.stages) - 1)]
        )
        before = stages.get(share, {})
        stages[share] = {
            "share": share,
            "devices": seen.targeted,
            "running": seen.running,
            "failed": seen.failed,
            "silent": seen.silent,
            "since": mine.labels.get("mlpack.since", ""),
            "until": moment(now),
        }
        if {**before, "until": ""} != {**stages[share], "until": ""}:
            self._write("rolling", stages, now)

    def finish(
        self, state: str, seen: Observation, now: datetime, *, why: str = "", id: str = ""
    ) -> None:
        """Keep how it ended; what ended before stays as it is."""
        if id and id != self._rollout.id:
            return
        if self._planned and self._measured.get("state") in (None, "rolling"):
            self._write(state, dict(_stages(self._measured)), now, why)

    def _write(
        self, state: str, stages: Mapping[str, Mapping[str, object]], now: datetime, why: str = ""
    ) -> None:
        last = list(stages.values())[-1] if stages else {}
        reached = _number(last.get("running")) + _number(last.get("failed"))
        sent = self._bytes(reached)
        self._measured = {
            "state": state,
            "why": why,
            "stages": list(stages.values()),
            "devices": _number(last.get("devices")),
            "running": _number(last.get("running")),
            "failed": _number(last.get("failed")),
            "silent": _number(last.get("silent")),
            "bytes": sent,
            "cost": self._cost(sent, reached),
            "until": moment(now),
        }
        if self.number:
            self._ledger.record_measured(self.number, self._measured)

    def _bytes(self, reached: int) -> int:
        """What the devices that answered fetched: each the group's planned mean."""
        devices, total = _number(self._planned.get("devices")), _number(self._planned.get("bytes"))
        return total * reached // devices if devices else 0

    def _cost(self, sent: int, reached: int) -> str | None:
        from mlpack.plan.cost import cost

        if not reached:
            return "0.00"
        usage = cost(self._tariff, -(-sent // reached), reached).usage
        return None if usage is None else f"{cents(usage):f}"


def _stages(measured: Mapping[str, object]) -> dict[str, dict[str, object]]:
    found = measured.get("stages")
    rows = found if isinstance(found, list) else []
    return {str(each["share"]): dict(each) for each in rows if isinstance(each, dict)}


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


@dataclass(frozen=True, kw_only=True)
class RolloutReport:
    """A rollout of the ledger, planned and measured."""

    record: RolloutRecord
    release: str

    def to_json(self) -> dict[str, object]:
        """What ``mlpack --json report --rollout`` prints."""
        return {
            "rollout": self.record.id,
            "group": self.record.group,
            "release": self.release,
            "digest": str(self.record.release_digest),
            "created": self.record.created.isoformat(),
            "planned": dict(self.record.planned),
            "measured": dict(self.record.measured) if self.record.measured else None,
        }


def rollout_report(project: Project, number: int) -> RolloutReport:
    """Rollout ``number`` of the ledger, or the last one where it is 0."""
    ledger = Ledger(project.ledger)
    found = [each for each in ledger.rollouts() if number in (0, each.id)]
    if not found:
        known = ", ".join(str(each.id) for each in ledger.rollouts()[-10:])
        raise NoSuchRollout(
            f"the ledger has no rollout {number}" if number else "the ledger has no rollout",
            hint=f"it has: {known}" if known else "mlpack deploy makes one",
        )
    record = found[-1]
    release = ledger.release(record.release_digest)
    named = f"{release.name}:{release.version}" if release else str(record.release_digest)
    return RolloutReport(record=record, release=named)
