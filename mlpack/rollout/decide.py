"""The rollout of a release to a device group, stage by stage, as values and one pure function.

``decide`` compares the request (:class:`Rollout`) with what the hub shows (:class:`Observation`)
and the clock, and returns the next step. It remembers nothing: the labels of a deployment are the
state of its rollout, written with it in one request under its ETag. So any process on any machine
continues a rollout, after a crash too, and running it again at the end does nothing.

A device belongs to a stage by its bucket, a hash of its id kept as a twin tag: the same devices
come first every time, on every machine. A silent device does not count as a success. A failure is
what a device reports as one; a pull that takes longer than edgeAgent waits is not
(:mod:`mlpack.rollout.hub`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from hashlib import sha256
from typing import Literal, get_args

from mlpack.errors import MlpackError, UsageError
from mlpack.humanize import counted
from mlpack.oci.descriptor import Digest
from mlpack.settings.condition import Condition
from mlpack.settings.reader import BUCKETS, parse_share, parse_stages, share_text, stages_text

State = Literal["rolling", "stopping", "complete", "base", "foreign"]
_STATES: Mapping[str, State] = {each: each for each in get_args(State)}
_RELEASES = {"rolling", "stopping", "complete"}


class Label:
    """The labels of mlpack's deployments."""

    GROUP, RELEASE, DIGEST = "mlpack.group", "mlpack.release", "mlpack.digest"
    STATE, STAGE, STAGES = "mlpack.state", "mlpack.stage", "mlpack.stages"
    SUCCESS, FAILURES, SOAK = "mlpack.success", "mlpack.failures", "mlpack.soak"
    STARTED, SINCE, PREVIOUS = "mlpack.started", "mlpack.since", "mlpack.previous"
    REASON, UNDONE, IMAGE = "mlpack.reason", "mlpack.undone", "mlpack.image"


def member(document: object, *path: str) -> object:
    """Return the member of a JSON document at ``path``; ``None`` if there is none."""
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


class BrokenLabels(MlpackError):
    """A deployment whose labels no longer describe its rollout."""

    hint = "restore them, or remove the release: mlpack rollback"


def bucket(device: str) -> int:
    """Return which of the 10,000 buckets a device is in; it depends on the device's id alone.

    >>> bucket("van-1"), bucket("van-2")
    (2951, 3169)
    """
    return int.from_bytes(sha256(device.encode()).digest()[:8], "big") % BUCKETS


def moment(when: datetime) -> str:
    """Format a moment as labels store it."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubDeployment:
    """One deployment of the hub, which IoT Hub calls a configuration."""

    id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    content: Mapping[str, object] = field(default_factory=dict)
    """``modulesContent``; it can never be changed."""

    condition: str = ""
    """``targetCondition``."""

    priority: int = 0
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Custom metrics: queries by name."""

    etag: str = ""
    """As the hub sent it, without quotes."""

    created: str = ""
    """UTC, as a text that sorts by time."""

    results: Mapping[str, int] = field(default_factory=dict)
    """Counts of the hub, a few minutes old: custom metrics and its own (``appliedCount``)."""

    @property
    def group(self) -> str:
        """Its device group; empty if the deployment is not mlpack's."""
        return self.labels.get(Label.GROUP, "")

    @property
    def state(self) -> State:
        """The state of its rollout; ``foreign`` if the deployment is not mlpack's."""
        return _STATES.get(self.labels.get(Label.STATE, ""), "foreign") if self.group else "foreign"

    @property
    def release(self) -> str:
        """``NAME:VERSION``."""
        return self.labels.get(Label.RELEASE, "")

    @property
    def image(self) -> str:
        """The release's image, by digest."""
        return self.labels.get(Label.IMAGE, "")

    @property
    def stage(self) -> int:
        """The current stage, counted from 0."""
        text = self.labels.get(Label.STAGE, "")
        return int(text) - 1 if text.isdecimal() and int(text) > 0 else 0

    @property
    def since(self) -> datetime | None:
        """When that stage began; ``None`` if the label cannot be read."""
        try:
            found = datetime.strptime(self.labels.get(Label.SINCE, ""), "%Y-%m-%dT%H:%M:%SZ")
        except ValueError:
            return None
        return found.replace(tzinfo=UTC)


def of_group(deployments: Iterable[HubDeployment], group: str) -> tuple[HubDeployment, ...]:
    """Select a group's releases without its base deployment; the first is the one that applies."""
    found = (each for each in deployments if each.group == group and each.state in _RELEASES)
    return tuple(sorted(found, key=lambda each: (each.priority, each.created), reverse=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When a stage has succeeded, and when the rollout has failed."""

    stages: tuple[Decimal, ...]
    success: Decimal
    max_failures: Decimal
    soak_seconds: int = 0

    def __post_init__(self) -> None:
        parse_stages(stages_text(self.stages))
        for name, share in (("success", self.success), ("max_failures", self.max_failures)):
            if not 0 <= share <= 1:
                raise UsageError(f"{name} is {share_text(share)}; it must be from 0% to 100%")
        if self.soak_seconds < 0:
            raise UsageError(f"soak is {self.soak_seconds} s; it must not be negative")

    def below(self, stage: int) -> int:
        """Return the bucket that bounds ``stage``: its devices have lower ones."""
        return int(self.stages[stage] * BUCKETS)

    def labels(self) -> dict[str, str]:
        """Return the labels that store the policy."""
        return {
            Label.STAGES: stages_text(self.stages),
            Label.SUCCESS: share_text(self.success),
            Label.FAILURES: share_text(self.max_failures),
            Label.SOAK: str(self.soak_seconds),
        }

    @classmethod
    def of(cls, labels: Mapping[str, str]) -> Policy:
        """Read labels; raise :class:`BrokenLabels` if they were edited into nonsense."""
        try:
            return cls(
                stages=parse_stages(labels[Label.STAGES]),
                success=parse_share(labels[Label.SUCCESS]),
                max_failures=parse_share(labels[Label.FAILURES]),
                soak_seconds=int(labels.get(Label.SOAK, "0")),
            )
        except (KeyError, ValueError) as error:
            raise BrokenLabels(
                f"the deployment of {labels.get(Label.RELEASE)} to {labels.get(Label.GROUP)} "
                f"has labels that were edited: {error}"
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A release requested for a device group."""

    id: str
    """Its deployment's (:func:`deployment_id`)."""

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
    """Whether to retry a release that was undone before."""

    undone: str = ""
    """Why it was undone before, according to this project's ledger."""

    def target(self, stage: int) -> str:
        """Return the target condition of ``stage``."""
        return self.condition.narrowed(self.policy.below(stage))

    def labels(self, stage: int, now: datetime, before: Mapping[str, str]) -> dict[str, str]:
        """Return the labels of its deployment at the begin of ``stage``."""
        return {
            **before,
            Label.GROUP: self.group,
            Label.RELEASE: self.release,
            Label.DIGEST: str(self.digest),
            Label.IMAGE: self.image,
            Label.STATE: "rolling",
            **self.policy.labels(),
            Label.STAGE: str(stage + 1),
            Label.STARTED: before.get(Label.STARTED) or moment(now),
            Label.SINCE: moment(now),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the hub shows at one moment."""

    deployments: tuple[HubDeployment, ...] = ()
    """All of the hub's; their ETags guard each change."""

    untagged: tuple[str, ...] = ()
    """Devices of the group whose bucket is missing or wrong."""

    targeted: int = 0
    """Devices up to the current stage."""

    running: int = 0
    """Those of them that run the release."""

    failed: int = 0
    """Those of them that reported a failure."""

    reasons: Mapping[str, int] = field(default_factory=dict)
    """The reported reasons, each with the number of devices."""

    def deployment(self, id: str) -> HubDeployment | None:
        """Return the deployment ``id``."""
        return next((each for each in self.deployments if each.id == id), None)

    @property
    def silent(self) -> int:
        """Devices of the stage that reported neither."""
        return max(0, self.targeted - self.running - self.failed)


class RolloutRefused(MlpackError):
    """A rollout that would be wrong."""


class PolicyRefused(MlpackError):
    """A rollout that a policy of the group forbids, or that was undone."""

    exit_status = 3


@dataclass(frozen=True, slots=True)
class Tag:
    """Store each device's bucket in its twin."""

    buckets: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Create the release's deployment for its first stage."""

    stage: int
    condition: str
    priority: int
    previous: str
    """The deployment that applies without it; empty if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Widen:
    """Change the deployment's target condition to that of ``stage``."""

    stage: int
    condition: str


@dataclass(frozen=True, slots=True)
class Complete:
    """Mark the deployment as complete."""

    id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Mark the deployment as stopping; :class:`Remember` and :class:`Delete` follow."""

    id: str
    why: str


@dataclass(frozen=True, slots=True)
class Remember:
    """Note on the deployment that takes over which one was undone, and why."""

    id: str
    note: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a stopped deployment, so that the one below it applies."""

    id: str
    why: str
    heir: str = ""


@dataclass(frozen=True, slots=True)
class Prune:
    """Delete old deployments that apply to no device."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again later."""

    why: str


@dataclass(frozen=True, slots=True)
class Done:
    """Every device of the group is targeted, and enough of them run the release."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do nothing: it would be wrong, or a policy forbids it."""

    why: str
    hint: str = ""
    policy: bool = False


Action = Tag | Create | Widen | Complete | Stop | Remember | Delete | Prune | Wait | Done | Refuse


def allowed(action: Action) -> Action:
    """Return ``action``; raise :class:`RolloutRefused` or :class:`PolicyRefused` for a refusal."""
    if isinstance(action, Refuse):
        raise (PolicyRefused if action.policy else RolloutRefused)(action.why, hint=action.hint)
    return action


def decide(rollout: Rollout, seen: Observation, now: datetime) -> Action:
    """Return the next step; :class:`Wait`, :class:`Done` and :class:`Refuse` change nothing."""
    group = of_group(seen.deployments, rollout.group)
    if stopping := next((each for each in group if each.state == "stopping"), None):
        return undo(stopping, seen)
    others = (each for each in group if each.state == "rolling" and each.id != rollout.id)
    if other := next(others, None):
        return Refuse(
            f"{other.release} is being rolled out to {rollout.group}",
            hint="wait for it (mlpack status), or undo it: "
            f"mlpack rollback --device-group {rollout.group}",
        )
    mine = seen.deployment(rollout.id)
    if mine is None:
        return _begin(rollout, seen, group)
    if mine.state == "complete":
        return _finish(rollout, mine, group)
    if mine.state != "rolling":
        return Refuse(f"the hub's deployment {mine.id} was not made by mlpack", hint="delete it")
    return _advance(rollout, mine, seen, now)


def _begin(rollout: Rollout, seen: Observation, group: tuple[HubDeployment, ...]) -> Action:
    if not rollout.again and (why := rollout.undone or _undone(rollout, seen)):
        return Refuse(
            f"{rollout.release} was undone on {rollout.group} before: {why}",
            hint="roll out another release, or retry this one with --again",
            policy=True,
        )
    if seen.untagged:
        return Tag({each: bucket(each) for each in seen.untagged})
    if len(seen.deployments) >= rollout.limit:
        if len(group) > 1:
            return Prune((group[-1].id,))
        return Refuse(
            f"the hub already holds its maximum of {counted(rollout.limit, 'deployment')}",
            hint="delete deployments that no device needs, or raise [deploy] limit",
        )
    return Create(
        stage=0,
        condition=rollout.target(0),
        priority=group[0].priority + 1 if group else rollout.priority,
        previous=group[0].id if group else "",
    )


def _undone(rollout: Rollout, seen: Observation) -> str:
    """Return why the release was undone, as the deployments that took over remember it."""
    found = (each for each in seen.deployments if each.group == rollout.group)
    notes = (each.labels.get(Label.UNDONE, "").partition(" ") for each in found)
    return next((why for id, _, why in notes if id == rollout.id), "")


def _advance(rollout: Rollout, mine: HubDeployment, seen: Observation, now: datetime) -> Action:
    policy = rollout.policy
    stage = min(mine.stage, len(policy.stages) - 1)
    if mine.condition != rollout.target(stage):
        # Edited by hand, or [deploy.groups] target changed: the request holds.
        return Widen(stage=stage, condition=rollout.target(stage))
    if seen.failed > policy.max_failures * seen.targeted:
        return Stop(mine.id, _failures(policy, seen))
    if seen.untagged:
        return Tag({each: bucket(each) for each in seen.untagged})
    if seen.running < policy.success * seen.targeted:
        return Wait(_progress(policy, seen))
    ends = (mine.since or now) + timedelta(seconds=policy.soak_seconds)
    if now < ends and seen.targeted:
        return Wait(f"{_progress(policy, seen)}; the stage lasts until {moment(ends)}")
    if stage + 1 < len(policy.stages):
        return Widen(stage=stage + 1, condition=rollout.target(stage + 1))
    return Complete(mine.id)


def _failures(policy: Policy, seen: Observation) -> str:
    most = max(seen.reasons, key=lambda each: (seen.reasons[each], each), default="")
    failed = f"{seen.failed:,} of {counted(seen.targeted, 'device')} failed"
    return f"{failed}, more than {share_text(policy.max_failures)}{most and f', most with: {most}'}"


def _progress(policy: Policy, seen: Observation) -> str:
    needed = (policy.success * seen.targeted).to_integral_value(ROUND_CEILING)
    return (
        f"{seen.running:,} of {seen.targeted:,} run it, {needed:,} are needed; "
        f"{seen.failed:,} failed, {seen.silent:,} silent"
    )


def _finish(rollout: Rollout, mine: HubDeployment, group: tuple[HubDeployment, ...]) -> Action:
    if group[0].id != mine.id:
        return Refuse(
            f"{rollout.group} has {group[0].release}, deployed after {mine.release}",
            hint=f"go back with: mlpack rollback --device-group {rollout.group} "
            f"--to {mine.release}",
        )
    last = len(rollout.policy.stages) - 1
    if mine.condition != rollout.target(last):
        # [deploy.groups] target changed: the devices added since then are watched, too.
        return Widen(stage=last, condition=rollout.target(last))
    old = tuple(each.id for each in group[1:] if each.state == "complete")
    surplus = old[max(0, rollout.retain - 1) :]
    return Prune(surplus) if surplus else Done()


def undo(stopping: HubDeployment, seen: Observation) -> Action:
    """Return the next step after a stop: the deployment below remembers why, then delete."""
    why = stopping.labels.get(Label.REASON, "stopped")
    below = heir(stopping, seen.deployments)
    note = f"{stopping.id} {why}"
    if below is not None and below.labels.get(Label.UNDONE) != note:
        return Remember(below.id, note)
    return Delete(stopping.id, why, heir=below.id if below else "")


def heir(gone: HubDeployment, deployments: Iterable[HubDeployment]) -> HubDeployment | None:
    """Return the deployment of the same group that takes over: a release, else the base."""
    others = [each for each in deployments if each.group == gone.group and each.id != gone.id]
    base = next((each for each in others if each.state == "base"), None)
    return next(iter(of_group(others, gone.group)), base)


def go_back(group: str, to: str, seen: Observation, why: str) -> Action:
    """Return the next step so that deployment ``to`` applies again; no release if it is empty.

    Every later deployment of the group is stopped and deleted, the latest first.
    """
    releases = of_group(seen.deployments, group)
    if stopping := next((each for each in releases if each.state == "stopping"), None):
        return undo(stopping, seen)
    if not releases or releases[0].id == to:
        return Done()
    return Stop(releases[0].id, why)
