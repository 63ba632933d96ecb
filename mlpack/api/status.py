"""``mlpack status``: how the rollouts to the device groups stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlpack.api.groups import find_group
from mlpack.api.hub import (
    Hub,
    applied,
    configurations,
    count,
    deployments,
    failures,
    running_now,
)
from mlpack.api.render import module_name
from mlpack.model.amounts import share_text
from mlpack.model.groups import DeviceGroup
from mlpack.plan import deployed
from mlpack.plan.deployed import Deployed, of_group
from mlpack.plan.rollout import Policy
from mlpack.stores.project import Project


@dataclass(frozen=True, slots=True)
class StageStatus:
    """One stage: its share, the devices up to it, and how many of them run the release."""

    share: str
    devices: int
    running: int
    state: str
    """``done``, ``now`` or ``ahead``."""


@dataclass(frozen=True, kw_only=True)
class GroupStatus:
    """A device group and its latest deployment."""

    group: DeviceGroup
    current: Deployed | None = None
    targeted: int = 0
    applied: int = 0
    running: int = 0
    failed: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    stages: tuple[StageStatus, ...] = ()
    older: tuple[Deployed, ...] = ()

    @property
    def silent(self) -> int:
        """Devices that said neither that it runs nor that it failed."""
        return max(0, self.targeted - self.running - self.failed)

    def to_json(self) -> dict[str, object]:
        """One element of the ``groups`` of ``mlpack --json status``."""
        current = self.current
        return {
            "group": self.group.name,
            "release": current.release if current else None,
            "deployment": current.id if current else None,
            "state": current.state if current else None,
            "started": current.labels.get(deployed.STARTED) if current else None,
            "since": current.labels.get(deployed.SINCE) if current else None,
            "targeted": self.targeted,
            "applied": self.applied,
            "running": self.running,
            "failed": self.failed,
            "silent": self.silent,
            "reasons": dict(self.reasons),
            "stages": [
                {
                    "share": each.share,
                    "devices": each.devices,
                    "running": each.running,
                    "state": each.state,
                }
                for each in self.stages
            ],
            "older": [each.release for each in self.older],
        }


def status(project: Project, hub: Hub, name: str = "") -> tuple[GroupStatus, ...]:
    """How each device group stands, or the one called ``name``."""
    groups = [find_group(project, name)] if name else project.recipe.deploy.groups.values()
    found = configurations(hub)
    made = []
    for group in groups:
        releases = of_group(deployments(found), group.name)
        if not releases:
            made.append(GroupStatus(group=group))
            continue
        current = releases[0]
        mine = found[current.id]
        module = module_name(project.recipe.module, current.release.partition(":")[0])
        image = current.labels.get(deployed.IMAGE, "")
        reasons = failures(hub, current.id, module, image)
        running = running_now(hub, current.id, module, image)
        made.append(
            GroupStatus(
                group=group,
                current=current,
                targeted=count(hub, current.condition),
                applied=applied(mine),
                running=running,
                failed=sum(reasons.values()),
                reasons=reasons,
                stages=_stages(hub, group, current, running),
                older=releases[1:],
            )
        )
    return tuple(made)


def _stages(
    hub: Hub, group: DeviceGroup, current: Deployed, running: int
) -> tuple[StageStatus, ...]:
    policy = Policy.of(current.labels)
    made = []
    for number, share in enumerate(policy.stages):
        devices = count(hub, group.condition.narrowed(policy.below(number)))
        done = number < current.stage or current.state == "complete"
        state = "done" if done else "now" if number == current.stage else "ahead"
        reached = min(running, devices) if number <= current.stage else 0
        made.append(StageStatus(share_text(share), devices, reached, state))
    return tuple(made)
