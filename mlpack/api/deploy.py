"""``mlpack deploy``: a release to a device group, stage by stage.

This reads and decides; :mod:`mlpack.api.rollout_run` does what is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from mlpack.api.contents import release_content
from mlpack.api.groups import find_group, known_images
from mlpack.api.hub import Hub, Seen, mistagged, observe, read_devices
from mlpack.api.plan import plan
from mlpack.api.render import NoRepository, module_name
from mlpack.api.rollouts import undone_before
from mlpack.errors import MlpackError, UsageError
from mlpack.model.groups import DeviceGroup
from mlpack.model.version import parse_name, version_order
from mlpack.oci.reference import Reference
from mlpack.plan import deployed
from mlpack.plan.actions import Action, Create, Delete, Refuse, Tag
from mlpack.plan.deployed import deployment_id
from mlpack.plan.fleet import EMPTY, Device, FleetPlan, held
from mlpack.plan.rollout import Policy, Rollout, decide, resumed
from mlpack.stores.project import Project
from mlpack.stores.references import Found, find_image


class Refused(MlpackError):
    """A rollout that would be wrong."""


class PolicyRefused(MlpackError):
    """A rollout that a policy of the group is against, or that was undone."""

    exit_status = 3


class NoBaseDeployment(MlpackError):
    """A hub where no device would take a layered deployment."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the user said beside the group and the release; ``None`` is what the group says."""

    stages: tuple[Decimal, ...] | None = None
    success: Decimal | None = None
    max_failures: Decimal | None = None
    soak_seconds: int | None = None
    again: bool = False

    def policy(self, group: DeviceGroup) -> Policy:
        """The policy of a new rollout."""
        return Policy(
            stages=self.stages or group.stages,
            success=group.success if self.success is None else self.success,
            max_failures=group.max_failures if self.max_failures is None else self.max_failures,
            soak_seconds=group.soak_seconds if self.soak_seconds is None else self.soak_seconds,
        )

    def changes(self, policy: Policy) -> bool:
        """Whether it asks for something else than a rollout under way has."""
        said = (self.stages, self.success, self.max_failures, self.soak_seconds)
        has = (policy.stages, policy.success, policy.max_failures, policy.soak_seconds)
        return any(
            ours is not None and ours != theirs for ours, theirs in zip(said, has, strict=True)
        )


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A rollout that was looked at, and not begun or gone on with."""

    project: Project
    group: DeviceGroup
    rollout: Rollout
    module: str
    content: Mapping[str, object]
    seen: Seen
    next: Action
    """What would be done first."""

    rivals: tuple[str, ...]
    """Deployments of others that go before it where they mean the same devices."""

    fleet: FleetPlan | None
    """Bytes and money; only before it begins, as devices hold the release by and by after that."""

    @property
    def begun(self) -> bool:
        """Whether its deployment is on the hub already."""
        return self.seen.observation.deployment(self.rollout.id) is not None


def prepare(
    project: Project,
    hub: Hub,
    name: str,
    release: str,
    now: datetime,
    *,
    wanted: Wanted | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Prepared:
    """Look at everything a rollout of ``release`` to group ``name`` needs; change nothing.

    Raises :class:`Refused` and :class:`PolicyRefused`, each with what to do instead.
    """
    wanted = wanted or Wanted()
    group = find_group(project, name)
    target = find_image(project, release or project.recipe.model)
    module = module_name(project.recipe.module, target.release[0])
    rollout = _rollout(project, group, target, wanted)
    seen = observe(hub, group.condition, rollout.id, module)
    mine = seen.observation.deployment(rollout.id)
    fleet = None
    if mine is not None and mine.state == "rolling":
        rollout = _go_on(rollout, resumed(rollout, mine), wanted)
    first = decide(rollout, seen.observation, now)[0]
    if mine is None and not isinstance(first, Refuse | Delete):
        _check_base(seen, name)
        devices = read_devices(hub, group, module, known_images(project), advance)
        _check_required(group, rollout.release, devices)
        seen = replace(seen, observation=replace(seen.observation, untagged=mistagged(devices)))
        first = decide(rollout, seen.observation, now)[0]
        fleet = plan(project, group, rollout.release, devices, stages=rollout.policy.stages)
    image = Reference.parse(rollout.image)
    return Prepared(
        project=project,
        group=group,
        rollout=rollout,
        module=module,
        content=release_content(project, module, image, target),
        seen=seen,
        next=allowed(first),
        rivals=_rivals(seen, first, module) if isinstance(first, Tag | Create) else (),
        fleet=fleet,
    )


def allowed(action: Action) -> Action:
    """``action``; raise where it is a refusal."""
    if isinstance(action, Refuse):
        kind = PolicyRefused if action.policy else Refused
        raise kind(action.why, hint=action.hint)
    return action


def _rollout(project: Project, group: DeviceGroup, target: Found, wanted: Wanted) -> Rollout:
    name, version = target.release
    place = project.recipe.repository
    if place is None:
        raise NoRepository(f"it is not said where devices fetch {name!r} from")
    digest, release = target.target.digest, f"{name}:{version}"
    deploy = project.recipe.deploy
    id = deployment_id(group.name, release, digest)
    return Rollout(
        id=id,
        group=group.name,
        condition=group.condition,
        release=release,
        digest=digest,
        image=str(place.pinned(digest)),
        policy=wanted.policy(group),
        priority=group.priority,
        retain=deploy.retain,
        limit=deploy.limit,
        again=wanted.again,
        undone=undone_before(project, id),
    )


def _go_on(asked: Rollout, under_way: Rollout, wanted: Wanted) -> Rollout:
    if wanted.changes(under_way.policy):
        raise Refused(
            f"{asked.release} is under way on {asked.group} with other stages or thresholds",
            hint="leave them out to go on with it, or undo it: "
            f"mlpack rollback --device-group {asked.group}",
        )
    return under_way


def _rivals(seen: Seen, first: Action, module: str) -> tuple[str, ...]:
    """Deployments not of mlpack's, of a higher priority, that hold the module or a whole device."""
    highest = max((each.priority for each in seen.observation.deployments if each.group), default=0)
    ours = first.priority if isinstance(first, Create) else highest + 1
    keys = {"properties.desired", f"properties.desired.modules.{module}"}
    found = []
    for each in seen.configurations.values():
        agent = each.content.get("$edgeAgent")
        holds = isinstance(agent, Mapping) and not keys.isdisjoint(agent)
        if holds and each.priority >= ours and deployed.GROUP not in each.labels:
            found.append(each.id)
    return tuple(found)


def _check_base(seen: Seen, group: str) -> None:
    """A layered deployment reaches only devices that have a whole one below it."""
    for each in seen.configurations.values():
        agent = each.content.get("$edgeAgent")
        if isinstance(agent, Mapping) and "properties.desired" in agent:
            return
    raise NoBaseDeployment(
        "no deployment on the hub has IoT Edge's own modules, and a release goes over one",
        hint=f"create it once: mlpack deploy --device-group {group} --base",
    )


def _check_required(group: DeviceGroup, release: str, devices: tuple[Device, ...]) -> None:
    """``require``: the least version devices must hold before a later one is sent."""
    if not group.require or release == group.require:
        return
    name, least = parse_name(group.require)
    if not _holds(release, name, least):
        raise PolicyRefused(
            f"{group.name} requires {group.require} or later, and {release} is not",
            hint=f"deploy {group.require} or a later one",
        )
    behind = {what: count for what, count in held(devices).items() if not _holds(what, name, least)}
    if behind:
        said = ", ".join(
            f"{count:,} hold {'nothing' if what == EMPTY else what}"
            for what, count in sorted(behind.items())
        )
        raise PolicyRefused(
            f"{group.name} requires {group.require} or later, and {said}",
            hint=f"bring them there first: mlpack deploy --device-group {group.name} "
            f"{group.require}",
        )


def _holds(what: str, name: str, least: str) -> bool:
    model, _, version = what.partition(":")
    return model == name and version_order(version) >= version_order(least)


def check_release_or_base(release: str, base: bool) -> None:
    """``--base`` and a release are two different commands."""
    if base and release:
        raise UsageError(
            "--base creates the base deployment, which holds no release",
            hint="run the command twice, first with --base",
        )
