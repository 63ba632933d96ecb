"""Device groups: their settings, the images their devices may report, fleet files, tariffs.

A fleet file lists the devices of a group as JSON, in place of a hub: a list of entries, or what
``mlpack devices --json`` prints. An entry has ``deviceId``, the ``release`` or ``image`` of the
device, and may have ``platform``, ``status``, ``lastSeen``, ``tags`` and ``properties`` as its
twin has them, and ``count``: one entry for many devices.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from mlpack.errors import MlpackError, UsageError, page
from mlpack.oci.descriptor import InvalidContent, Node, Platform
from mlpack.plan.cost import InvalidTariff, Tariff
from mlpack.plan.engines import EngineRule, engine
from mlpack.plan.fleet import EMPTY, UNKNOWN, Device
from mlpack.project.directory import (
    TARIFF_SUFFIX,
    TARIFFS,
    ProjectDirectory,
    is_file_name,
    read_template,
    read_text,
    require_tariff,
)
from mlpack.project.ledger import Ledger
from mlpack.settings.condition import Condition
from mlpack.settings.project_settings import MAX_DEVICES
from mlpack.settings.reader import share_text, stages_text
from mlpack.settings.targets import DeviceGroup
from mlpack.settings.targets import find_group as group_of
from mlpack.stores.records import MODEL, VERSION
from mlpack.stores.store import manifests

_MEMBERS = frozenset(
    {"deviceId", "release", "image", "platform", "status"}
    | {"lastSeen", "tags", "properties", "count"}
)
_TYPO = 0.8
"""How close a name is to one of these to be a mistyped one: a twin's ``etag`` is not."""


class InvalidFleet(MlpackError):
    """A fleet file that cannot be read; the message names the entry."""

    hint = f"an example: {page('how-to/deploy')}; mlpack devices --json writes one"


@dataclass(frozen=True, slots=True)
class Groups:
    """The project's device groups."""

    hub: str
    groups: tuple[DeviceGroup, ...]

    def to_json(self) -> dict[str, object]:
        """Return what ``mlpack --json groups`` prints."""
        return {"hub": self.hub, "groups": [describe(each) for each in self.groups]}


def describe(group: DeviceGroup) -> dict[str, object]:
    """Write a group as JSON: its settings as they are written."""
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


def list_groups(project: ProjectDirectory) -> Groups:
    """Return all device groups, in the order of mlpack.toml."""
    deploy = project.settings.deploy
    return Groups(deploy.hub, tuple(deploy.groups.values()))


def find_group(project: ProjectDirectory, name: str) -> DeviceGroup:
    """Return the device group called ``name``; raise ``UnknownGroup``."""
    return group_of(project.settings.deploy.groups, name)


def group_engine(project: ProjectDirectory, group: DeviceGroup) -> EngineRule:
    """Return the engine that the group's devices run."""
    return engine(group.engine or project.settings.device.engine)


def group_tariff(project: ProjectDirectory, group: DeviceGroup) -> Tariff:
    """Return what the group's bytes cost; a tariff file must be inside the project."""
    return project_tariff(project, group.tariff or project.settings.fleet.tariff)


def project_tariff(project: ProjectDirectory, named: str) -> Tariff:
    """Read the tariff that a setting names; a file must be inside the project."""
    if is_file_name(named):
        project.path(named)
    return read_tariff(named, project.root)


def read_tariff(text: str, directory: Path) -> Tariff:
    """Read the tariff ``text``: a shipped one's name, or a file's path below ``directory``."""
    require_tariff(text, directory)
    if is_file_name(text):
        return Tariff.parse(read_text(directory / text, InvalidTariff), text)
    return Tariff.parse(read_template(f"{TARIFFS}/{text}{TARIFF_SUFFIX}"), text)


@dataclass(frozen=True, slots=True)
class KnownImages:
    """The releases of the project (``NAME:VERSION``) by the digests that devices may report."""

    by_digest: Mapping[str, str]

    def release(self, image: str) -> str:
        """Return what a device that reports ``image`` holds.

        >>> KnownImages({"sha256:00": "fan:1"}).release("r.example.com/fan@sha256:00")
        'fan:1'
        """
        if not image:
            return EMPTY
        return self.by_digest.get(image.partition("@")[2], UNKNOWN)


def known_images(project: ProjectDirectory) -> KnownImages:
    """Find every release's digests, of its index and its images, in the store and the ledger."""
    found = {
        str(each.digest): f"{each.name}:{each.version}"
        for each in Ledger(project.ledger).releases()
    }
    for target in project.layout.tags().values():
        model, version = (target.annotations.get(key) for key in (MODEL, VERSION))
        if model and version:
            for each in (target, *manifests(project.layout, target)):
                found[str(each.digest)] = f"{model}:{version}"
    return KnownImages(found)


def read_fleet(path: Path, condition: Condition, images: KnownImages) -> tuple[Device, ...]:
    """Read the devices of a file that match ``condition``; an entry without tags matches."""
    if not path.is_file():
        raise InvalidFleet(f"there is no fleet file {path}")
    try:
        document = json.loads(read_text(path, InvalidFleet))
        root = Node(document, path.name)
        if isinstance(document, dict):
            root = root.need("devices")
        matching = (each for each in root.elements() if _matches(each, condition))
        found = tuple(_device(each, images) for each in matching)
    except InvalidContent as error:
        raise InvalidFleet(str(error), hint=error.hint) from error
    except (ValueError, RecursionError) as error:
        raise InvalidFleet(f"{path} is not JSON: {error}") from error
    _check_unique(found, path)
    return found


def _matches(node: Node, condition: Condition) -> bool:
    twin = node.mapping()
    return "tags" not in twin or condition.holds(twin)


def _check_names(node: Node) -> None:
    """Refuse a mistyped member; others are allowed, since a twin has many."""
    members = node.mapping()
    for key in sorted(set(members) - _MEMBERS):
        close = get_close_matches(key, _MEMBERS - set(members), n=1, cutoff=_TYPO)
        if close:
            raise InvalidContent(
                f"{node.where}.{key}", f"is not known (did you mean {close[0]!r}?)"
            )


def _device(node: Node, images: KnownImages) -> Device:
    _check_names(node)
    count, platform, image = node.get("count"), node.get("platform"), _text(node, "image")
    return Device(
        id=node.need("deviceId").text(),
        holds=_text(node, "release") or images.release(image),
        image=image,
        platform=_platform(platform) if platform and platform.value != "" else "",
        status=_text(node, "status"),
        seen=_text(node, "lastSeen"),
        count=count.integer(minimum=1, maximum=MAX_DEVICES) if count else 1,
    )


def _platform(node: Node) -> str:
    try:
        return str(Platform.parse(node.text()))
    except UsageError as error:
        raise InvalidContent(node.where, str(error), hint=error.hint) from error


def _text(node: Node, key: str) -> str:
    found = node.get(key)
    return found.text() if found else ""


def _check_unique(devices: tuple[Device, ...], path: Path) -> None:
    seen = set()
    for each in devices:
        if each.id in seen:
            raise InvalidFleet(f"{path} has the device {each.id!r} twice")
        seen.add(each.id)
