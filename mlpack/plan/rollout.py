"""The rollout of a release to a device group, stage by stage, as one pure function.

``decide`` looks at what was asked for (:class:`Rollout`), at what the hub shows
(:class:`Observation`) and at the clock, and says what to do next. It remembers nothing:
whatever was done is in the hub, so a process that dies anywhere is continued by
the next one, and running it again when all is done does nothing.

A device belongs to a stage by its bucket, a hash of its id kept as a twin tag: the same
devices come first every time, on every machine. A device that says nothing is not counted
as a success. A failure is what a device reports as one; a pull that takes longer than edgeAgent
waits is not (:mod:`mlpack.plan.outcome`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from hashlib import sha256

from mlpack.errors import MlpackError
from mlpack.model.amounts import BUCKETS, parse_share, parse_stages, share_text, stages_text
from mlpack.model.condition import Condition
from mlpack.oci.digest import Digest
from mlpack.plan import deployed
from mlpack.plan.actions import (
    Action,
    Complete,
    Create,
    Delete,
    Done,
    Prune,
    Refuse,
    Remember,
    Stop,
    Tag,
    Wait,
    Widen,
)
from mlpack.plan.deployed import Deployed, moment, of_group
from mlpack.words import counted


def bucket(device: str) -> int:
    """Which of the 10,000 buckets a device is in, by its id alone.

    >>> bucket("van-1"), bucket("van-2")
    (2951, 3169)
    """
    return int.from_bytes(sha256(device.encode()).digest()[:8], "big") % BUCKETS


class BrokenLabels(MlpackError):
    """A deployment whose labels no longer say how its rollout goes."""

    hint = "put them back, or take the release away: mlpack rollback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When a stage ends well, and when the rollout ends badly."""

    stages: tuple[Decimal, ...]
    success: Decimal
    max_failures: Decimal
    soak_seconds: int = 0

    def below(self, stage: int) -> int:
        """Devices of ``stage`` have buckets below this."""
        return int(self.stages[stage] * BUCKETS)

    def labels(self) -> dict[str, str]:
        """As labels hold it."""
        return {
            deployed.STAGES: stages_text(self.stages),
            deployed.SUCCESS: share_text(self.success),
            deployed.FAILURES: share_text(self.max_failures),
            deployed.SOAK: str(self.soak_seconds),
        }

    @classmethod
    def of(cls, labels: Mapping[str, str]) -> Policy:
        """Read labels; raise :class:`BrokenLabels` where they were edited into nonsense."""
        try:
            return cls(
                stages=parse_stages(labels[deployed.STAGES]),
                success=parse_share(labels[deployed.SUCCESS]),
                max_failures=parse_share(labels[deployed.FAILURES]),
                soak_seconds=int(labels.get(deployed.SOAK, "0")),
            )
        except (KeyError, ValueError) as error:
            raise BrokenLabels(
                f"the deployment of {labels.get(deployed.RELEASE)} to {labels.get(deployed.GROUP)} "
                f"has labels that were edited: {error}"
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A release asked for on a device group."""

    id: str
    """Its deployment's (:func:`~mlpack.plan.deployed.deployment_id`)."""

    group: str
    condition: Condition
    release: str
    digest: Digest
    image: str
    policy: Policy
    priority: int = 10
    """Of the group's first deployment."""

    retain: int = 2
    limit: int = 100
    again: bool = False
    """Whether a release that was undone before may be tried again."""

    undone: str = ""
    """Why it was undone before, as far as this machine knows."""

    def target(self, stage: int) -> str:
        """The target condition of ``stage``."""
        return self.condition.narrowed(self.policy.below(stage))

    def labels(self, stage: int, now: datetime, before: Mapping[str, str]) -> dict[str, str]:
        """The labels of its deployment once it is in ``stage``."""
        return {
            **before,
            deployed.GROUP: self.group,
            deployed.RELEASE: self.release,
            deployed.DIGEST: str(self.digest),
            deployed.IMAGE: self.image,
            deployed.STATE: "rolling",
            **self.policy.labels(),
            deployed.STAGE: str(stage + 1),
            deployed.STARTED: before.get(deployed.STARTED) or moment(now),
            deployed.SINCE: moment(now),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the hub shows at one moment."""

    deployments: tuple[Deployed, ...] = ()
    """All of the hub's."""

    untagged: tuple[str, ...] = ()
    """Devices of the group that have no bucket yet, or a wrong one."""

    targeted: int = 0
    """Devices in the stage that is under way."""

    running: int = 0
    """Those of them that run the release."""

    failed: int = 0
    """Those of them that said they cannot."""

    reasons: Mapping[str, int] = field(default_factory=dict)
    """What the failed ones said, and how many each."""

    def deployment(self, id: str) -> Deployed | None:
        """The deployment called ``id``."""
        return next((each for each in self.deployments if each.id == id), None)

    @property
    def silent(self) -> int:
        """Devices of the stage that said neither."""
        return max(0, self.targeted - self.running - self.failed)


def decide(rollout: Rollout, seen: Observation, now: datetime) -> tuple[Action, ...]:
    """What to do next; :class:`Wait`, :class:`Done` and :class:`Refuse` do nothing."""
    group = of_group(seen.deployments, rollout.group)
    if stopping := next((each for each in group if each.state == "stopping"), None):
        return (undo(stopping, seen),)
    mine = seen.deployment(rollout.id)
    other = next(
        (each for each in group if each.state == "rolling" and each.id != rollout.id), None
    )
    if other is not None:
        return (
            Refuse(
                f"{other.release} is being rolled out to {rollout.group}",
                hint=f"wait for it (mlpack status), or undo it: mlpack rollback --device-group "
                f"{rollout.group}",
            ),
        )
    if mine is None:
        return _begin(rollout, seen, group)
    if mine.state == "complete":
        return _finished(rollout, mine, group)
    if mine.state != "rolling":
        return (Refuse(f"the hub's deployment {mine.id} is not mlpack's", hint="delete it there"),)
    return _go_on(rollout, mine, seen, now)


def _begin(rollout: Rollout, seen: Observation, group: tuple[Deployed, ...]) -> tuple[Action, ...]:
    if not rollout.again and (why := rollout.undone or _undone(rollout, seen)):
        return (
            Refuse(
                f"{rollout.release} was undone on {rollout.group} before: {why}",
                hint="roll out another release, or try this one once more with --again",
                policy=True,
            ),
        )
    if seen.untagged:
        return (_tag(seen.untagged),)
    current = group[0] if group else None
    if len(seen.deployments) >= rollout.limit:
        spare = tuple(each.id for each in group[1:])[-1:]
        if not spare:
            held = counted(len(seen.deployments), "deployment")
            return (
                Refuse(
                    f"the hub holds {held}, and takes {rollout.limit}",
                    hint="delete some that no device needs; [deploy] limit says how many it takes",
                ),
            )
        return (Prune(spare),)
    return (
        Create(
            stage=0,
            condition=rollout.target(0),
            priority=current.priority + 1 if current else rollout.priority,
            previous=current.id if current else "",
        ),
    )


def _undone(rollout: Rollout, seen: Observation) -> str:
    """Why the release was undone, as the deployments that took over remember it."""
    for each in seen.deployments:
        if each.group == rollout.group:
            id, _, why = each.labels.get(deployed.UNDONE, "").partition(" ")
            if id == rollout.id:
                return why
    return ""


def _tag(devices: Iterable[str]) -> Tag:
    return Tag({device: bucket(device) for device in devices})


def _go_on(
    rollout: Rollout, mine: Deployed, seen: Observation, now: datetime
) -> tuple[Action, ...]:
    stage = min(mine.stage, len(rollout.policy.stages) - 1)
    if mine.condition != rollout.target(stage):
        # Edited by hand, or [deploy.groups] target changed: what is asked for holds.
        return (Widen(stage=stage, condition=rollout.target(stage)),)
    if seen.failed > rollout.policy.max_failures * seen.targeted:
        return (Stop(mine.id, _failures(rollout.policy, seen)),)
    if seen.untagged:
        return (_tag(seen.untagged),)
    if seen.running < rollout.policy.success * seen.targeted:
        return (Wait(_progress(rollout.policy, seen)),)
    ends = (mine.since or now) + timedelta(seconds=rollout.policy.soak_seconds)
    if now < ends and seen.targeted:
        return (Wait(f"{_progress(rollout.policy, seen)}; the stage lasts until {moment(ends)}"),)
    if stage + 1 < len(rollout.policy.stages):
        return (Widen(stage=stage + 1, condition=rollout.target(stage + 1)),)
    return (Complete(mine.id),)


def _failures(policy: Policy, seen: Observation) -> str:
    said = f"{seen.failed:,} of {counted(seen.targeted, 'device')} failed"
    most = max(seen.reasons, key=lambda each: (seen.reasons[each], each), default="")
    because = f", most with: {most}" if most else ""
    return f"{said}, more than {share_text(policy.max_failures)}{because}"


def _progress(policy: Policy, seen: Observation) -> str:
    needed = (policy.success * seen.targeted).to_integral_value(ROUND_CEILING)
    return (
        f"{seen.running:,} of {seen.targeted:,} run it, {needed:,} are needed; "
        f"{seen.failed:,} failed, {seen.silent:,} silent"
    )


def _finished(rollout: Rollout, mine: Deployed, group: tuple[Deployed, ...]) -> tuple[Action, ...]:
    if group[0].id != mine.id:
        return (
            Refuse(
                f"{rollout.group} has {group[0].release} since, over {mine.release}",
                hint=f"go back with: mlpack rollback --device-group {rollout.group} "
                f"--to {mine.release}",
            ),
        )
    last = len(rollout.policy.stages) - 1
    if mine.condition != rollout.target(last):
        # [deploy.groups] target changed: the devices that are meant since are watched, too.
        return (Widen(stage=last, condition=rollout.target(last)),)
    old = tuple(each.id for each in group[1:] if each.state == "complete")
    beyond = old[max(0, rollout.retain - 1) :]
    return (Prune(beyond),) if beyond else (Done(),)


def undo(stopping: Deployed, seen: Observation) -> Action:
    """Finish what a stop began: let the one below remember why, then delete."""
    why = stopping.labels.get(deployed.REASON, "stopped")
    below = heir(stopping, seen.deployments)
    note = f"{stopping.id} {why}"
    if below is not None and below.labels.get(deployed.UNDONE) != note:
        return Remember(below.id, note)
    return Delete(stopping.id, why, heir=below.id if below else "")


def heir(gone: Deployed, deployments: Iterable[Deployed]) -> Deployed | None:
    """The deployment of the same group that takes over, or its base where there is no other."""
    others = [each for each in deployments if each.group == gone.group and each.id != gone.id]
    releases = of_group(others, gone.group)
    if releases:
        return releases[0]
    return next((each for each in others if each.state == "base"), None)


def resumed(rollout: Rollout, mine: Deployed) -> Rollout:
    """``rollout`` under the policy its deployment was begun with."""
    return replace(rollout, policy=Policy.of(mine.labels))


def go_back(group: str, to: str, seen: Observation, why: str) -> Action:
    """What to do next so that deployment ``to`` applies again, or none where it is empty.

    Every later one of the group is stopped and deleted, the latest first.
    """
    releases = of_group(seen.deployments, group)
    if stopping := next((each for each in releases if each.state == "stopping"), None):
        return undo(stopping, seen)
    if not releases or releases[0].id == to:
        return Done()
    return Stop(releases[0].id, why)
