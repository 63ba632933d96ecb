"""Running a rollout: one request to the hub per step, so the hub always shows what was done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from mlpack.azure.hub_client import Conflict, NotThere
from mlpack.errors import MlpackError
from mlpack.humanize import counted
from mlpack.plan.cost import Tariff
from mlpack.plan.fleet import FleetPlan
from mlpack.project.ledger import Ledger
from mlpack.rollout.decide import (
    Action,
    Complete,
    Create,
    Delete,
    Done,
    HubDeployment,
    Label,
    Observation,
    PolicyRefused,
    Prune,
    Remember,
    Rollout,
    RolloutRefused,
    Stop,
    Tag,
    Wait,
    Widen,
    allowed,
    decide,
)
from mlpack.rollout.hub import DeploymentQueries, observe
from mlpack.rollout.record import Recorder
from mlpack.settings.reader import share_text

if TYPE_CHECKING:
    from mlpack.rollout.hub import IotHub

Say = Callable[[str], None]
Tagging = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""Called with the number of devices to tag; yields a callback for the size of each batch."""

BATCH = 1000
"""Devices tagged between two progress updates."""

MAX_STEPS = 100_000


class Overtaken(MlpackError):
    """Another operator changed the group's deployments first."""

    hint = "look at the current state (mlpack status) and run the command again to continue"


@dataclass(frozen=True, kw_only=True)
class PreparedRollout:
    """A rollout that was checked and not yet begun or continued."""

    rollout: Rollout
    module: str
    content: Callable[[], Mapping[str, object]] = field(repr=False)
    """Makes ``modulesContent`` of the release's deployment, with its secrets.

    It is called when the deployment is created and kept nowhere: to continue needs no secret.
    """

    seen: Observation
    next: Action
    """The first step."""

    rivals: tuple[str, ...]
    """Deployments of others with a higher priority; they win on devices both target."""

    fleet: FleetPlan | None
    """Bytes and money; only before it begins, because devices then get the release one by one."""

    ledger: Ledger
    tariff: Tariff

    @property
    def begun(self) -> bool:
        """Whether its deployment is on the hub already."""
        return self.seen.deployment(self.rollout.id) is not None


@dataclass(frozen=True, kw_only=True)
class RolloutResult:
    """The state of a rollout when the command ends."""

    rollout: Rollout
    last: Action
    looked: Observation
    """The last observation of its devices."""

    record: int
    """Its number in the ledger; 0 if it is not there."""

    @property
    def undone(self) -> str:
        """Why the release was undone; empty if it was not."""
        return self.last.why if isinstance(self.last, Delete) else ""

    @property
    def state(self) -> str:
        """``complete``, ``rolling`` or ``undone``."""
        if self.undone:
            return "undone"
        return "complete" if isinstance(self.last, Done) else "rolling"

    def to_json(self) -> dict[str, object]:
        """Return what ``mlpack --json deploy`` prints besides the plan."""
        looked = self.looked
        mine = looked.deployment(self.rollout.id)
        return {
            "group": self.rollout.group,
            "release": self.rollout.release,
            "image": self.rollout.image,
            "deployment": self.rollout.id,
            "state": self.state,
            "stage": mine.stage + 1 if mine else None,
            "stages": len(self.rollout.policy.stages),
            "targeted": looked.targeted,
            "running": looked.running,
            "failed": looked.failed,
            "silent": looked.silent,
            "why": self.undone or (self.last.why if isinstance(self.last, Wait) else ""),
            "rollout": self.record,
        }


@dataclass(frozen=True, kw_only=True)
class RolloutPace:
    """The time, and how long to wait for devices."""

    now: Callable[[], datetime]
    sleep: Callable[[float], None]
    wait: bool = False
    """Whether to look again every :attr:`poll_seconds` until the rollout ends."""

    poll_seconds: float = 30.0
    timeout_seconds: float | None = None
    """The longest wait in all; ``None`` for no limit."""


@contextmanager
def guarded() -> Iterator[None]:
    """Raise :class:`Overtaken` if a deployment is no longer what was observed."""
    try:
        yield
    except (Conflict, NotThere) as error:
        raise Overtaken(
            f"someone else changed the group's deployments at the same time; {error}"
        ) from error


@dataclass
class RolloutRun:
    """A rollout that is carried on by this process."""

    prepared: PreparedRollout
    hub: IotHub
    pace: RolloutPace
    say: Say
    tagging: Tagging
    looked: Observation = field(default_factory=Observation)
    """The last observation of a stage's devices."""

    said: str = ""
    """The reason of the last wait that was reported."""

    def __post_init__(self) -> None:
        self.rollout, self.began = self.prepared.rollout, self.pace.now()
        self.recorder = Recorder(
            self.prepared.ledger, self.rollout, self.prepared.fleet, self.prepared.tariff
        )

    def run(self) -> RolloutResult:
        """Take step after step until the rollout is complete, undone, or waits for devices.

        An interruption is safe at any moment: the ledger is written before the hub, each change
        of the hub is one request, and the next run continues from what the hub shows.
        Raises :class:`RolloutRefused`, :class:`Overtaken`, and :class:`PolicyRefused` if devices
        take too long.
        """
        rollout, action, seen = self.rollout, self.prepared.next, self.prepared.seen
        for _ in range(MAX_STEPS):
            result = self._step(action, seen)
            if result is not None:
                return result
            seen = observe(self.hub, rollout.condition, rollout.id, self.prepared.module)
            action = allowed(decide(rollout, seen, self.pace.now()))
        raise RolloutRefused(
            f"the rollout did not end after {MAX_STEPS:,} steps", hint="see: mlpack status"
        )

    def _step(self, action: Action, seen: Observation) -> RolloutResult | None:
        """Take one step; return the result once there is nothing left to do now."""
        now = self.pace.now()
        if seen.targeted or not self.looked.targeted:
            self.looked = seen
        if isinstance(action, Done):
            self.recorder.finish("complete", now)
            return self._result(action)
        if isinstance(action, Wait):
            return self._wait(action, seen)
        mine = isinstance(action, Delete) and action.id == self.rollout.id
        if isinstance(action, Create):
            self.recorder.begin(now)
        elif not isinstance(action, Delete):
            self.recorder.look(seen, now)
        elif mine:
            self.recorder.finish("undone", now, action.why)
        with guarded():
            self._do(action, seen, now)
        return self._result(action) if mine else None

    def _wait(self, action: Wait, seen: Observation) -> RolloutResult | None:
        self.recorder.look(seen, self.pace.now())
        if action.why != self.said:
            self.say(action.why)
            self.said = action.why
        if not self.pace.wait:
            return self._result(action)
        limit = self.pace.timeout_seconds
        if limit is not None and self.pace.now() >= self.began + timedelta(seconds=limit):
            raise PolicyRefused(
                f"the timeout expired: {action.why}",
                hint="the rollout stays as it is: run the command again to continue, or "
                f"mlpack rollback --device-group {self.rollout.group}",
            )
        self.pace.sleep(self.pace.poll_seconds)
        return None

    def _result(self, action: Action) -> RolloutResult:
        return RolloutResult(
            rollout=self.rollout,
            last=action,
            looked=self.looked,
            record=self.recorder.number,
        )

    def _do(self, action: Action, seen: Observation, now: datetime) -> None:
        if isinstance(action, Tag):
            self._tag(action)
        elif isinstance(action, Create):
            self._create(action, now)
        elif isinstance(action, Widen):
            self._widen(action, seen, now)
        elif isinstance(action, Prune):
            for id in action.ids:
                self.hub.delete(id, _held(seen, id).etag)
                self.say(f"deleted {id}, which applied to no device")
        elif isinstance(action, Complete):
            _label(self.hub, seen, action.id, {Label.STATE: "complete"})
            self.say(f"{seen.running:,} of {seen.targeted:,} run it: the rollout is complete")
        else:
            undo_step(self.hub, action, seen, self.say)

    def _tag(self, action: Tag) -> None:
        devices = list(action.buckets.items())
        with self.tagging(len(devices)) as advance:
            for start in range(0, len(devices), BATCH):
                part = devices[start : start + BATCH]
                self.hub.tag({id: {"mlpack": {"bucket": number}} for id, number in part})
                advance(len(part))
        self.say(f"tagged {counted(len(devices), 'device')} for the stages")

    def _create(self, action: Create, now: datetime) -> None:
        rollout, prepared = self.rollout, self.prepared
        deployment = HubDeployment(
            id=rollout.id,
            labels=rollout.labels(action.stage, now, {Label.PREVIOUS: action.previous}),
            content=prepared.content(),
            condition=action.condition,
            priority=action.priority,
            metrics=DeploymentQueries(rollout.id, prepared.module, rollout.image).metrics,
        )
        self.hub.create(deployment)
        self.say(f"created {rollout.id}: {self._stage(action.stage)}")

    def _widen(self, action: Widen, seen: Observation, now: datetime) -> None:
        before = _held(seen, self.rollout.id)
        labels = self.rollout.labels(action.stage, now, before.labels)
        self.hub.update(replace(before, labels=labels, condition=action.condition))
        self.say(
            f"{seen.running:,} of {seen.targeted:,} run it, {seen.failed:,} failed: "
            f"continuing with {self._stage(action.stage)}"
        )

    def _stage(self, stage: int) -> str:
        stages = self.rollout.policy.stages
        return f"stage {stage + 1} of {len(stages)}, {share_text(stages[stage])} of the group"


def undo_step(hub: IotHub, action: Action, seen: Observation, say: Say) -> None:
    """Take one step of undoing a release: stop it, note it on the one below, delete it."""
    if isinstance(action, Stop):
        _label(hub, seen, action.id, {Label.STATE: "stopping", Label.REASON: action.why})
        say(f"stopped {action.id}: {action.why}")
    elif isinstance(action, Remember):
        _label(hub, seen, action.id, {Label.UNDONE: action.note})
    elif isinstance(action, Delete):
        hub.delete(action.id, _held(seen, action.id).etag)
        after = f"{action.heir} applies again" if action.heir else "no deployment replaces it"
        say(f"deleted {action.id}: {after}")


def _held(seen: Observation, id: str) -> HubDeployment:
    return next(each for each in seen.deployments if each.id == id)


def _label(hub: IotHub, seen: Observation, id: str, labels: Mapping[str, str]) -> None:
    before = _held(seen, id)
    hub.update(replace(before, labels={**before.labels, **labels}))
