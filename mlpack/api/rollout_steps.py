"""Doing to the hub what a rollout decided: one request, or one batch, per step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from mlpack.api.hub import Hub, Seen, metrics
from mlpack.errors import MlpackError
from mlpack.model.amounts import share_text
from mlpack.plan import deployed
from mlpack.plan.actions import (
    Action,
    Complete,
    Create,
    Delete,
    Prune,
    Remember,
    Stop,
    Tag,
    Widen,
)
from mlpack.plan.rollout import Rollout
from mlpack.words import counted

Say = Callable[[str], None]
BATCH = 1000
"""Devices tagged between two signs of progress."""


Tagging = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""Given how many devices will be tagged: what is told of each batch while that lasts."""


@contextmanager
def unseen(_: int) -> Iterator[Callable[[int], None]]:
    """Tell nobody."""
    yield lambda _: None


class Overtaken(MlpackError):
    """Two operators at once: the other one's change came first."""

    hint = "look at what is there now (mlpack status), and run the command again to go on from it"


@contextmanager
def guarded() -> Iterator[None]:
    """Say what it means where a deployment is no longer what was seen."""
    from mlpack.azure.answers import Conflict, NotThere

    try:
        yield
    except (Conflict, NotThere) as error:
        raise Overtaken(
            f"someone else changed the group's deployments at the same time; {error}"
        ) from error


@dataclass(frozen=True)
class Steps:
    """Does one action after the other."""

    hub: Hub
    rollout: Rollout
    module: str
    content: Mapping[str, object]
    say: Say
    tagging: Tagging = unseen

    def do(self, action: Action, seen: Seen, now: datetime) -> None:
        """Do ``action``; raise :class:`Overtaken` where another operator was there first."""
        with guarded():
            self._do(action, seen, now)

    def _do(self, action: Action, seen: Seen, now: datetime) -> None:
        if isinstance(action, Tag):
            self._tag(action)
        elif isinstance(action, Create):
            self._create(action, now)
        elif isinstance(action, Widen):
            self._widen(action, seen, now)
        elif isinstance(action, Prune):
            for id in action.ids:
                self.hub.delete(id, seen.configurations[id].etag)
                self.say(f"deleted {id}, which applied to no device any more")
        elif isinstance(action, Complete):
            _label(self.hub, seen, action.id, {deployed.STATE: "complete"})
            looked = seen.observation
            self.say(f"{looked.running:,} of {looked.targeted:,} run it: the rollout is complete")
        else:
            undo_step(self.hub, action, seen, self.say)

    def _tag(self, action: Tag) -> None:
        devices = list(action.buckets.items())
        with self.tagging(len(devices)) as advance:
            for start in range(0, len(devices), BATCH):
                part = devices[start : start + BATCH]
                self.hub.tag({id: {"mlpack": {"bucket": number}} for id, number in part})
                advance(len(part))
        self.say(f"{counted(len(devices), 'device')} given the tag that says its stage")

    def _create(self, action: Create, now: datetime) -> None:
        from mlpack.azure.iothub import HubConfiguration

        rollout = self.rollout
        labels = rollout.labels(action.stage, now, {deployed.PREVIOUS: action.previous})
        self.hub.create(
            HubConfiguration(
                id=rollout.id,
                labels=labels,
                content=self.content,
                condition=action.condition,
                priority=action.priority,
                metrics=metrics(rollout.id, self.module, rollout.image),
            )
        )
        self.say(f"created {rollout.id}: {self._stage(action.stage)}")

    def _widen(self, action: Widen, seen: Seen, now: datetime) -> None:
        before = seen.configurations[self.rollout.id]
        labels = self.rollout.labels(action.stage, now, before.labels)
        self.hub.update(replace(before, labels=labels, condition=action.condition))
        looked = seen.observation
        self.say(
            f"{looked.running:,} of {looked.targeted:,} run it, {looked.failed:,} failed: "
            f"on to {self._stage(action.stage)}"
        )

    def _stage(self, stage: int) -> str:
        stages = self.rollout.policy.stages
        return f"stage {stage + 1} of {len(stages)}, {share_text(stages[stage])} of the group"


def undo_step(hub: Hub, action: Action, seen: Seen, say: Say) -> None:
    """One step of taking a release back: stop it, let the one below remember, delete it."""
    if isinstance(action, Stop):
        _label(hub, seen, action.id, {deployed.STATE: "stopping", deployed.REASON: action.why})
        say(f"stopped {action.id}: {action.why}")
    elif isinstance(action, Remember):
        _label(hub, seen, action.id, {deployed.UNDONE: action.note})
    elif isinstance(action, Delete):
        hub.delete(action.id, seen.configurations[action.id].etag)
        after = f"{action.heir} applies again" if action.heir else "nothing takes its place"
        say(f"deleted {action.id}: {after}")


def _label(hub: Hub, seen: Seen, id: str, labels: Mapping[str, str]) -> None:
    before = seen.configurations[id]
    hub.update(replace(before, labels={**before.labels, **labels}))
