"""``mlpack groups``: the device groups of the project, and finding one of them."""

from __future__ import annotations

from dataclasses import dataclass

from mlpack.errors import UsageError
from mlpack.model.amounts import share_text, stages_text
from mlpack.model.groups import DeviceGroup, unknown_group
from mlpack.model.recipe import InvalidRecipe
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.index import Index
from mlpack.plan.engines import Engine, engine
from mlpack.plan.tariff import Tariff
from mlpack.stores.base import read_index
from mlpack.stores.fleets import Held
from mlpack.stores.ledger import Ledger
from mlpack.stores.project import Project
from mlpack.stores.releases import MODEL, VERSION
from mlpack.stores.tariffs import project_tariff


class UnknownGroup(UsageError):
    """A device group that mlpack.toml does not have."""


@dataclass(frozen=True, slots=True)
class Groups:
    """The project's device groups."""

    hub: str
    groups: tuple[DeviceGroup, ...]

    def to_json(self) -> dict[str, object]:
        """What ``mlpack --json groups`` prints."""
        return {"hub": self.hub, "groups": [describe(each) for each in self.groups]}


def describe(group: DeviceGroup) -> dict[str, object]:
    """A group as JSON: its settings as they are written."""
    return {
        "name": group.name,
        "target": group.condition.text,
        "priority": group.priority,
        "labels": dict(group.labels),
        "stages": stages_text(group.stages),
        "engine": group.engine,
        "tariff": group.tariff,
        "link_bytes_per_second": group.link_bytes_per_second,
        "require": group.require,
        "success": share_text(group.success),
        "max_failures": share_text(group.max_failures),
        "soak_seconds": group.soak_seconds,
    }


def list_groups(project: Project) -> Groups:
    """All device groups, in the order of mlpack.toml."""
    deploy = project.recipe.deploy
    return Groups(deploy.hub, tuple(deploy.groups.values()))


def find_group(project: Project, name: str) -> DeviceGroup:
    """The device group called ``name``; raise :class:`UnknownGroup`."""
    groups = project.recipe.deploy.groups
    if name not in groups:
        said, hint = unknown_group(name, groups)
        raise UnknownGroup(said, hint=hint)
    return groups[name]


def group_engine(project: Project, group: DeviceGroup) -> Engine:
    """What the group's devices run."""
    try:
        return engine(group.engine or project.recipe.device.engine)
    except UsageError as error:
        raise InvalidRecipe(
            f"[deploy.groups.{group.name}] engine: {error}", hint=error.hint
        ) from error


def group_tariff(project: Project, group: DeviceGroup) -> Tariff:
    """What the group's bytes cost; a file of the project must lie inside it."""
    where = f"[deploy.groups.{group.name}]" if group.tariff else "[fleet]"
    return project_tariff(project, group.tariff or project.recipe.fleet.tariff, where)


def known_images(project: Project) -> Held:
    """Every release of the project by digest: its index and its images, here and in the ledger."""
    found = {
        str(each.digest): f"{each.name}:{each.version}"
        for each in Ledger(project.ledger).releases()
    }
    for target in project.layout.tags().values():
        model, version = (target.annotations.get(key) for key in (MODEL, VERSION))
        if model and version:
            for each in (target, *_inside(project, target)):
                found[str(each.digest)] = f"{model}:{version}"
    return Held(found)


def _inside(project: Project, target: Descriptor) -> tuple[Descriptor, ...]:
    if target.media_type not in media.INDEXES:
        return ()
    index: Index = read_index(project.layout, target)
    return tuple(index.manifests)
