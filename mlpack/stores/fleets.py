"""A fleet file: devices of a group as JSON, where there is no hub to ask.

A list of entries, or what ``mlpack devices --json`` prints. An entry has ``deviceId``, what the
device holds (``release`` or ``image``), and may have ``platform``, ``status``, ``lastSeen``,
``tags`` and ``properties`` as its twin has them, and ``count``: one entry for many devices.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlpack.errors import MlpackError, UsageError
from mlpack.model.condition import Condition
from mlpack.model.recipe import MAX_DEVICES
from mlpack.oci.descriptor import Platform
from mlpack.oci.document import InvalidContent, Node
from mlpack.plan.fleet import EMPTY, UNKNOWN, Device
from mlpack.stores.project import read_text


class InvalidFleet(MlpackError):
    """A fleet file that cannot be read; the message names the entry."""

    hint = "docs/deploy.md shows one; mlpack devices --json writes one"


@dataclass(frozen=True, slots=True)
class Held:
    """What images are, by their digest: ``NAME:VERSION``."""

    by_digest: Mapping[str, str]

    def name(self, image: str) -> str:
        """What a device that reports ``image`` holds.

        >>> Held({"sha256:00": "fan:1"}).name("r.example.com/fan@sha256:00")
        'fan:1'
        """
        if not image:
            return EMPTY
        return self.by_digest.get(image.partition("@")[2], UNKNOWN)


def read_fleet(path: Path, condition: Condition, held: Held) -> tuple[Device, ...]:
    """The devices of a file that ``condition`` means; an entry without tags is taken as one."""
    if not path.is_file():
        raise InvalidFleet(f"there is no fleet file {path}")
    try:
        document = json.loads(read_text(path, InvalidFleet))
        root = Node(document, path.name)
        if isinstance(document, dict):
            root = root.need("devices")
        found = tuple(_device(each, held) for each in root.elements() if _meant(each, condition))
    except InvalidContent as error:
        raise InvalidFleet(str(error), hint=error.hint) from error
    except (ValueError, RecursionError) as error:
        raise InvalidFleet(f"{path} is not JSON: {error}") from error
    _check_unique(found, path)
    return found


def _meant(node: Node, condition: Condition) -> bool:
    twin = node.mapping()
    return "tags" not in twin or condition.holds(twin)


def _device(node: Node, held: Held) -> Device:
    count = node.get("count")
    image = _text(node, "image")
    release = _text(node, "release")
    platform = node.get("platform")
    return Device(
        id=node.need("deviceId").text(),
        holds=release or held.name(image),
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
