"""``mlpack devices`` and ``mlpack status``: what devices run, and how far rollouts to them are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpack.api.deployment_content import module_name
from mlpack.api.session import NoHub
from mlpack.plan.fleet import Device, count_held
from mlpack.project.device_groups import find_group, known_images, read_fleet
from mlpack.project.references import exact_name
from mlpack.rollout.decide import HubDeployment, Policy, of_group
from mlpack.rollout.hub import DeploymentQueries, count, read_devices
from mlpack.rollout.show import GroupStatus, StageStatus
from mlpack.settings.reader import share_text
from mlpack.settings.targets import DeviceGroup

if TYPE_CHECKING:
    from mlpack.api.requests import Devices
    from mlpack.api.session import Session
    from mlpack.project.directory import ProjectDirectory
    from mlpack.rollout.hub import IotHub


@dataclass(frozen=True, kw_only=True)
class FoundDevices:
    """Devices of a group."""

    group: DeviceGroup
    devices: tuple[Device, ...]

    @property
    def count(self) -> int:
        """How many; an entry of a fleet file may stand for several."""
        return sum(each.count for each in self.devices)

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json devices``, which is a fleet file, too."""
        return {
            "group": self.group.name,
            "target": self.group.condition.text,
            "count": self.count,
            "releases": count_held(self.devices),
            "devices": self.devices,
        }


def devices(session: Session, request: Devices) -> FoundDevices:
    """Read the devices of a group from a fleet file or from the hub."""
    project = session.project
    group = find_group(project, request.device_group)
    known = known_images(project)
    if request.fleet:
        found = read_fleet(session.file(request.fleet), group.condition, known)
    else:
        try:
            hub = session.hub
        except NoHub as error:
            raise NoHub(
                str(error), hint=f"{error.hint}, or read the devices from a file: --fleet FILE"
            ) from None
        module = module_name(project.settings.module, project.settings.model)
        with session.step("reading twins", unit="devices") as step:
            found = read_devices(hub, group, module, known, step)
    if request.holds:
        holds = exact_name(project.layout, request.holds)
        found = tuple(each for each in found if each.holds == holds)
    return FoundDevices(group=group, devices=found)


def status(session: Session, name: str = "") -> tuple[GroupStatus, ...]:
    """Return the status of every device group, or of the one called ``name``."""
    project, hub = session.project, session.hub
    groups = [find_group(project, name)] if name else project.settings.deploy.groups.values()
    found = hub.configurations() if groups else ()
    return tuple(_status(project, hub, each, of_group(found, each.name)) for each in groups)


def _status(
    project: ProjectDirectory,
    hub: IotHub,
    group: DeviceGroup,
    releases: tuple[HubDeployment, ...],
) -> GroupStatus:
    if not releases:
        return GroupStatus(group=group)
    current = releases[0]
    module = module_name(project.settings.module, current.release.partition(":")[0])
    queries = DeploymentQueries(current.id, module, current.image)
    reasons, running = queries.failures(hub), queries.count_running(hub)
    return GroupStatus(
        group=group,
        current=current,
        targeted=count(hub, current.condition),
        applied=int(current.results.get("appliedCount", 0)),
        running=running,
        failed=sum(reasons.values()),
        reasons=reasons,
        stages=_stages(hub, group, current, running),
        older=releases[1:],
    )


def _stages(
    hub: IotHub, group: DeviceGroup, current: HubDeployment, running: int
) -> tuple[StageStatus, ...]:
    policy = Policy.of(current.labels)
    stages = []
    for number, share in enumerate(policy.stages):
        devices = count(hub, group.condition.narrowed(policy.below(number)))
        done = number < current.stage or current.state == "complete"
        state = "done" if done else "now" if number == current.stage else "ahead"
        reached = min(running, devices) if number <= current.stage else 0
        stages.append(StageStatus(share_text(share), devices, reached, state))
    return tuple(stages)
