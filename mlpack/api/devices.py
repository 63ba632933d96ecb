"""``mlpack devices``: the devices of a group, and what each runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.api.groups import find_group, known_images
from mlpack.api.render import module_name
from mlpack.errors import UsageError
from mlpack.model.groups import DeviceGroup
from mlpack.plan.fleet import Device, held
from mlpack.stores.fleets import read_fleet
from mlpack.stores.project import Project

if TYPE_CHECKING:
    from mlpack.api.hub import Hub


class NoHub(UsageError):
    """A command that needs a hub or a fleet file, and has neither."""

    hint = 'set [deploy] hub = "NAME.azure-devices.net" and log in to Azure, or '
    hint += "MLPACK_IOTHUB_CONNECTION_STRING, or give --fleet FILE"


@dataclass(frozen=True, kw_only=True)
class Devices:
    """A group's devices."""

    group: DeviceGroup
    devices: tuple[Device, ...]

    @property
    def count(self) -> int:
        """How many; an entry of a fleet file may stand for several."""
        return sum(each.count for each in self.devices)

    def to_json(self) -> dict[str, object]:
        """What ``mlpack --json devices`` prints; a fleet file, too."""
        return {
            "group": self.group.name,
            "target": self.group.condition.text,
            "count": self.count,
            "releases": dict(held(self.devices)),
            "devices": [each.to_json() for each in self.devices],
        }


def devices(
    project: Project,
    name: str,
    *,
    fleet: Path | None = None,
    open_hub: Callable[[], Hub] | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Devices:
    """The devices of group ``name``, from a fleet file or from the hub."""
    group = find_group(project, name)
    known = known_images(project)
    if fleet is not None:
        return Devices(group=group, devices=read_fleet(fleet, group.condition, known))
    if open_hub is None:
        raise NoHub(f"there is no hub to ask for the devices of {name}")
    from mlpack.api.hub import read_devices

    module = module_name(project.recipe.module, project.recipe.model)
    found = read_devices(open_hub(), group, module, known, advance)
    return Devices(group=group, devices=found)
