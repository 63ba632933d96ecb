"""``mlpack deploy --base``: the one deployment a group's devices need below every release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mlpack.api.contents import base_content
from mlpack.api.deploy import Refused
from mlpack.api.groups import find_group
from mlpack.api.hub import Hub, configurations
from mlpack.plan import deployed
from mlpack.plan.deployed import base_id
from mlpack.render.iotedge.secrets import redacted
from mlpack.stores.project import Project


@dataclass(frozen=True, kw_only=True)
class BaseDeployment:
    """A group's base deployment."""

    group: str
    id: str
    condition: str
    priority: int
    content: Mapping[str, object] = field(repr=False)
    """It may hold a registry's password."""

    exists: bool

    def to_json(self) -> dict[str, object]:
        """What ``mlpack --json deploy --base`` prints."""
        return {
            "group": self.group,
            "deployment": self.id,
            "target": self.condition,
            "priority": self.priority,
            "exists": self.exists,
            "content": redacted(dict(self.content)),
        }


def prepare_base(
    project: Project, hub: Hub, name: str, environment: Mapping[str, str] | None = None
) -> BaseDeployment:
    """Look whether group ``name`` has its base deployment, and make what it would be.

    The passwords of ``[edge.registries]`` are taken from ``environment``.
    """
    group = find_group(project, name)
    found = configurations(hub)
    held = found.get(base_id(name))
    if held is None and len(found) >= project.recipe.deploy.limit:
        raise Refused(
            f"the hub takes {project.recipe.deploy.limit} deployments, and holds as many",
            hint="delete some that no device needs",
        )
    content = base_content(project, group.link_bytes_per_second, environment)
    if held is not None and held.content != content:
        if redacted(dict(held.content)) == redacted(dict(content)):
            raise Refused(
                f"{held.id} on the hub has another password of the registry",
                hint="its content cannot change: delete it in the hub and run this again; the "
                "devices then have the new password, and fetch nothing",
            )
        raise Refused(
            f"{held.id} on the hub is another base deployment than this mlpack makes",
            hint="its content cannot change: where that is meant, delete it in the hub and run "
            "this again; the devices then fetch other system modules",
        )
    return BaseDeployment(
        group=name,
        id=base_id(name),
        condition=group.condition.text,
        priority=group.priority - 1,
        content=content,
        exists=held is not None and held.condition == group.condition.text,
    )


def create_base(hub: Hub, base: BaseDeployment) -> None:
    """Create it, or give it the group's target of today; what is there already stays."""
    from mlpack.azure.iothub import HubConfiguration

    if base.exists:
        return
    held = configurations(hub).get(base.id)
    if held is not None:
        hub.update(replace(held, condition=base.condition))
        return
    hub.create(
        HubConfiguration(
            id=base.id,
            labels={deployed.GROUP: base.group, deployed.STATE: "base"},
            content=base.content,
            condition=base.condition,
            priority=base.priority,
        )
    )
