"""``mlpack deploy``: a release to a device group, stage by stage; ``--base``: what is below it.

This reads and decides; :mod:`mlpack.rollout.run` takes the steps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mlpack.api.deployment_content import (
    base_content,
    image_repository,
    module_name,
    release_content,
    sent_content,
)
from mlpack.api.plan import plan
from mlpack.errors import MlpackError
from mlpack.humanize import counted
from mlpack.iotedge.secrets import redacted
from mlpack.json_document import named, written
from mlpack.model import order
from mlpack.model.version import parse_name
from mlpack.oci.descriptor import Digest, Reference
from mlpack.plan.fleet import EMPTY, Device, count_held
from mlpack.plan.refusals import require_taken
from mlpack.project.device_groups import find_group, group_engine, group_tariff, known_images
from mlpack.project.directory import ProjectDirectory
from mlpack.project.engine_support import all_refusals
from mlpack.project.ledger import Ledger
from mlpack.project.references import exact_name, find_image, releases
from mlpack.rollout.decide import (
    Action,
    Create,
    Delete,
    HubDeployment,
    Label,
    Observation,
    Policy,
    PolicyRefused,
    Refuse,
    Rollout,
    RolloutRefused,
    Tag,
    allowed,
    decide,
)
from mlpack.rollout.hub import mistagged, observe, read_devices
from mlpack.rollout.record import undone_before
from mlpack.rollout.run import PreparedRollout, RolloutPace, RolloutResult, RolloutRun
from mlpack.settings.targets import DeviceGroup

if TYPE_CHECKING:
    from mlpack.api.requests import Deploy
    from mlpack.api.session import Session


MAX_ID = 128
_UNUSABLE = re.compile(r"[^a-z0-9_-]+")


class NoBaseDeployment(MlpackError):
    """A hub on which no device would accept a layered deployment."""


def prepare(session: Session, request: Deploy) -> PreparedRollout:
    """Check everything a rollout needs and find its first step; change nothing.

    Everything that can be checked without the hub is checked before the hub is queried. Raises
    :class:`RolloutRefused`, :class:`PolicyRefused` and
    :class:`~mlpack.plan.refusals.NotTaken`, each with what to do instead.
    """
    project, hub, now = session.project, session.hub, session.clock.now()
    group = find_group(project, request.device_group)
    group = replace(group, require=exact_name(project.layout, group.require))
    tariff = group_tariff(project, group)
    engine = group_engine(project, group)
    policy = _policy(request, group)
    target = find_image(project, request.release or project.settings.model)
    release = ":".join(target.release)
    refused = [each for each in all_refusals(engine, target) if each.effect == "refused"]
    require_taken(f"{release} on {group.name}", refused)
    known = list(releases(project.layout, target.release[0]))
    _check_release(group, release, known)
    rollout = _rollout(project, group, policy, release, target.target.digest)
    rollout = replace(rollout, again=request.again)
    module = module_name(project.settings.module, target.release[0])
    content = release_content(project, module, Reference.parse(rollout.image), target)

    seen = observe(hub, group.condition, rollout.id, module)
    mine, fleet = seen.deployment(rollout.id), None
    if mine is not None and mine.state == "rolling":
        rollout = _continued(rollout, mine, request)
    first = decide(rollout, seen, now)
    if mine is None and not isinstance(first, Refuse | Delete):
        _check_base(seen, group.name)
        with session.step("reading twins", unit="devices") as step:
            devices = read_devices(hub, group, module, known_images(project), step)
        _check_devices(group, release, devices, known)
        seen = replace(seen, untagged=mistagged(devices))
        first = decide(rollout, seen, now)
        fleet = plan(project, group, release, devices, stages=policy.stages)
    following = allowed(first)
    sent = partial(sent_content, project, content, session.environment)
    if mine is None:
        sent()  # so that a secret that is missing is told before anything is changed
    return PreparedRollout(
        rollout=rollout,
        module=module,
        content=sent,
        seen=seen,
        next=following,
        rivals=_rivals(seen, first, module) if isinstance(first, Tag | Create) else (),
        fleet=fleet,
        ledger=Ledger(project.ledger),
        tariff=tariff,
    )


def deploy(session: Session, request: Deploy, prepared: PreparedRollout) -> RolloutResult:
    """Take the steps of a rollout: one, or with ``wait`` every stage's."""
    pace = RolloutPace(
        now=session.clock.now,
        sleep=session.clock.sleep,
        wait=request.wait,
        poll_seconds=request.poll,
        timeout_seconds=request.timeout,
    )
    return RolloutRun(
        prepared,
        session.hub,
        pace,
        say=session.say,
        tagging=lambda total: session.step("tagging devices", total, "devices"),
    ).run()


def _policy(request: Deploy, default: DeviceGroup | Policy) -> Policy:
    """Return ``default`` with the parts that are requested; raise ``UsageError`` out of range."""
    requested = {
        "stages": request.stages,
        "success": request.success,
        "max_failures": request.max_failures,
        "soak_seconds": request.soak,
    }
    found: dict[str, Any] = {
        name: getattr(default, name) if each is None else each for name, each in requested.items()
    }
    return Policy(**found)


def _rollout(
    project: ProjectDirectory, group: DeviceGroup, policy: Policy, release: str, digest: Digest
) -> Rollout:
    place = image_repository(project, release)
    id = deployment_id(group.name, release, digest)
    return Rollout(
        id=id,
        group=group.name,
        condition=group.condition,
        release=release,
        digest=digest,
        image=str(place.pinned(digest)),
        policy=policy,
        priority=group.priority,
        retain=project.settings.deploy.retain,
        limit=project.settings.deploy.limit,
        undone=undone_before(Ledger(project.ledger), id),
    )


def deployment_id(group: str, release: str, digest: Digest) -> str:
    """Return the id of a release's deployment; one per release, as its content never changes.

    >>> deployment_id("vans", "fan.v2:2.1", Digest.of(b"x"))
    'mlpack-vans-fan-v2-2-1-2d711642'
    """
    plain = _UNUSABLE.sub("-", release.lower())
    head = f"mlpack-{group}-{plain}"[: MAX_ID - 9]
    return f"{head}-{digest.hex[:8]}"


def base_id(group: str) -> str:
    """Return the id of a group's base deployment."""
    return f"mlpack-{group}-base"


def _continued(requested: Rollout, mine: HubDeployment, request: Deploy) -> Rollout:
    """Return the rollout with the policy its deployment was begun with."""
    policy = Policy.of(mine.labels)
    if _policy(request, policy) != policy:
        raise RolloutRefused(
            f"{requested.release} is under way on {requested.group} with other stages or "
            "thresholds",
            hint="leave them out to continue it, or undo it: "
            f"mlpack rollback --device-group {requested.group}",
        )
    return replace(requested, policy=policy)


def _rivals(seen: Observation, first: Action, module: str) -> tuple[str, ...]:
    """Return foreign deployments of higher priority with this module or with whole devices."""
    highest = max((each.priority for each in seen.deployments if each.group), default=0)
    ours = first.priority if isinstance(first, Create) else highest + 1
    keys = {"properties.desired", f"properties.desired.modules.{module}"}
    return tuple(
        each.id
        for each in seen.deployments
        if each.priority >= ours and not each.group and not keys.isdisjoint(_agent(each.content))
    )


def _agent(content: Mapping[str, object]) -> Mapping[str, object]:
    found = content.get("$edgeAgent")
    return found if isinstance(found, Mapping) else {}


def _check_base(seen: Observation, group: str) -> None:
    """A layered deployment reaches only devices that have a whole one below it."""
    if not any("properties.desired" in _agent(each.content) for each in seen.deployments):
        raise NoBaseDeployment(
            "the hub has no base deployment, with IoT Edge's own modules, which a release needs",
            hint=f"create it once: mlpack deploy --device-group {group} --base",
        )


def _check_release(group: DeviceGroup, release: str, known: Sequence[str]) -> None:
    """``require`` excludes the releases before it."""
    if group.require and not reaches(release, group.require, known):
        raise PolicyRefused(
            f"{group.name} requires {group.require} or later, not {release}",
            hint=f"deploy {group.require} or a later one",
        )


def _check_devices(
    group: DeviceGroup, release: str, devices: tuple[Device, ...], known: Sequence[str]
) -> None:
    """``require`` is the least version devices must hold before a later one is sent."""
    if not group.require or release == group.require:
        return
    behind = ", ".join(
        f"{count:,} hold {'nothing' if what == EMPTY else what}"
        for what, count in sorted(count_held(devices).items())
        if not reaches(what, group.require, known)
    )
    if behind:
        raise PolicyRefused(
            f"{group.name} requires {group.require} or later, but {behind}",
            hint="deploy that one first: "
            f"mlpack deploy --device-group {group.name} {group.require}",
        )


def reaches(release: str, required: str, known: Sequence[str] = ()) -> bool:
    """Whether ``release`` is ``required`` or a later version of its model.

    ``known`` are the model's versions, the first first: :func:`mlpack.model.order.reaches`.
    """
    name, _, version = release.partition(":")
    model, least = parse_name(required)
    return name == model and order.reaches(version, least, known)


@dataclass(frozen=True, kw_only=True)
class BaseDeployment:
    """A group's base deployment."""

    group: str
    id: str = field(metadata=named("deployment"))
    condition: str = field(metadata=named("target"))
    priority: int
    exists: bool
    content: Mapping[str, object] = field(repr=False, metadata=written(redacted))
    """It may hold a registry's password."""


def prepare_base(session: Session, name: str) -> BaseDeployment:
    """Make the base deployment of group ``name``, and compare it with the hub's; change nothing.

    The passwords of ``[edge.registries]`` come from the environment.
    """
    project, hub = session.project, session.hub
    group = find_group(project, name)
    content = base_content(project, group.link_bytes_per_second, session.environment)
    found = hub.configurations()
    held = next((each for each in found if each.id == base_id(name)), None)
    if held is None and len(found) >= project.settings.deploy.limit:
        most = counted(project.settings.deploy.limit, "deployment")
        raise RolloutRefused(
            f"the hub already holds its maximum of {most}",
            hint="delete deployments that no device needs, or raise [deploy] limit",
        )
    if held is not None:
        _check_same(held, content)
    return BaseDeployment(
        group=name,
        id=base_id(name),
        condition=group.condition.text,
        priority=group.priority - 1,
        content=content,
        exists=held is not None and held.condition == group.condition.text,
    )


def _check_same(held: HubDeployment, content: Mapping[str, object]) -> None:
    if held.content == content:
        return
    if redacted(held.content) == redacted(content):
        raise RolloutRefused(
            f"{held.id} on the hub has a different registry password",
            hint="its content cannot change: delete it on the hub and run this again; the "
            "devices then get the new password, and fetch nothing",
        )
    raise RolloutRefused(
        f"{held.id} on the hub differs from the base deployment this mlpack makes",
        hint="its content cannot change: to replace it, delete it on the hub and run this again; "
        "the devices then fetch other system modules",
    )


def create_base(session: Session, base: BaseDeployment) -> None:
    """Create it, or update its target condition; an identical one stays as it is."""
    if base.exists:
        return
    hub = session.hub
    held = next((each for each in hub.configurations() if each.id == base.id), None)
    if held is not None:
        hub.update(replace(held, condition=base.condition))
        return
    hub.create(
        HubDeployment(
            id=base.id,
            labels={Label.GROUP: base.group, Label.STATE: "base"},
            content=base.content,
            condition=base.condition,
            priority=base.priority,
        )
    )
