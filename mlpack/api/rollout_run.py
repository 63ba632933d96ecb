"""Running a rollout: one step at a time; what was done is in the hub after every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mlpack.api.deploy import PolicyRefused, Prepared, Refused, allowed
from mlpack.api.hub import Hub, Seen, observe
from mlpack.api.rollout_steps import Say, Steps, Tagging, unseen
from mlpack.api.rollouts import Recorder
from mlpack.plan.actions import Action, Create, Delete, Done, Wait
from mlpack.plan.rollout import Observation, Rollout, decide

MAX_STEPS = 100_000


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Where a rollout stands when the command ends."""

    rollout: Rollout
    last: Action
    looked: Observation
    """The last look at its devices."""

    record: int
    """Its number in the ledger; 0 where it is not there."""

    undone: str = ""

    @property
    def state(self) -> str:
        """``complete``, ``rolling`` or ``undone``."""
        if self.undone:
            return "undone"
        return "complete" if isinstance(self.last, Done) else "rolling"

    def to_json(self) -> dict[str, object]:
        """What ``mlpack --json deploy`` prints, beside the plan."""
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
class Clock:
    """Time, given from outside."""

    now: Callable[[], datetime]
    sleep: Callable[[float], None]
    poll_seconds: float = 30.0
    timeout_seconds: float | None = None
    """How long to wait in all; ``None`` for as long as it takes."""


def run(
    prepared: Prepared,
    hub: Hub,
    clock: Clock,
    *,
    wait: bool,
    say: Say = lambda _: None,
    tagging: Tagging | None = None,
) -> Outcome:
    """Do what is decided until the rollout is done, undone, or waits for devices.

    With ``wait`` the hub is asked again every ``poll_seconds``. Raises :class:`Refused`, and
    :class:`PolicyRefused` where devices take too long.
    """
    rollout = prepared.rollout
    runner = _Runner(
        rollout=rollout,
        recorder=Recorder(prepared.project, rollout, prepared.fleet, prepared.group),
        steps=Steps(hub, rollout, prepared.module, prepared.content, say, tagging or unseen),
        clock=clock,
        wait=wait,
    )
    action, seen = prepared.next, prepared.seen
    for _ in range(MAX_STEPS):
        outcome = runner.step(action, seen)
        if outcome is not None:
            return outcome
        seen = observe(hub, rollout.condition, rollout.id, prepared.module)
        action = allowed(decide(rollout, seen.observation, clock.now())[0])
    raise Refused("the rollout does not come to an end", hint="look with: mlpack status")


@dataclass(kw_only=True)
class _Runner:
    rollout: Rollout
    recorder: Recorder
    steps: Steps
    clock: Clock
    wait: bool
    said: str = ""
    began: datetime = field(init=False)
    looked: Observation = field(default_factory=Observation)

    def __post_init__(self) -> None:
        self.began = self.clock.now()

    def step(self, action: Action, seen: Seen) -> Outcome | None:
        """Do one action; return where the rollout stands once there is nothing more to do now."""
        now = self.clock.now()
        if seen.observation.targeted or not self.looked.targeted:
            self.looked = seen.observation
        if isinstance(action, Done):
            self.recorder.finish("complete", seen.observation, now)
            return self._outcome(action)
        if isinstance(action, Wait):
            return self._wait(action, seen)
        if isinstance(action, Create):
            self.recorder.begin(now)
        elif isinstance(action, Delete):
            self.recorder.finish("undone", seen.observation, now, why=action.why, id=action.id)
        else:
            self.recorder.look(seen.observation, now)
        self.steps.do(action, seen, now)
        if isinstance(action, Delete) and action.id == self.rollout.id:
            return self._outcome(action, undone=action.why)
        return None

    def _wait(self, action: Wait, seen: Seen) -> Outcome | None:
        self.recorder.look(seen.observation, self.clock.now())
        if action.why != self.said:
            self.steps.say(action.why)
            self.said = action.why
        if not self.wait:
            return self._outcome(action)
        limit = self.clock.timeout_seconds
        if limit is not None and self.clock.now() >= self.began + timedelta(seconds=limit):
            raise PolicyRefused(
                f"the time is up: {action.why}",
                hint="the rollout stays where it is: run the command again to go on, or "
                f"mlpack rollback --device-group {self.rollout.group}",
            )
        self.clock.sleep(self.clock.poll_seconds)
        return None

    def _outcome(self, action: Action, undone: str = "") -> Outcome:
        return Outcome(
            rollout=self.rollout,
            last=action,
            looked=self.looked,
            record=self.recorder.number,
            undone=undone,
        )
