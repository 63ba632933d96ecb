"""``mlpack status``: how the rollouts to the device groups stand."""

from __future__ import annotations

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
from mlpack.plan.status import GroupStatus, StageStatus
from mlpack.stores.project import Project


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
