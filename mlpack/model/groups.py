"""``[deploy]``: the IoT hub, and the device groups releases are rolled out to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from mlpack.model import amounts
from mlpack.model.condition import Condition, InvalidCondition
from mlpack.model.table import integer, known, parsed, table, text
from mlpack.oci.document import InvalidContent, Node
from mlpack.words import nearest

_NAME = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*")
_RELEASE = re.compile(r"[a-z0-9][a-z0-9._-]*:[a-z0-9][a-z0-9._-]*")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?")
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_NAME = 40
MAX_PRIORITY = 1_000_000
MAX_DEPLOYMENTS = 100
"""What a hub of the standard tiers takes; a free one takes 10 (IoT Hub quotas)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceGroup:
    """``[deploy.groups.NAME]``: devices that get releases together."""

    name: str
    condition: Condition
    """Which devices (``target``), in the hub's language."""

    priority: int = 10
    """Of the group's first deployment; each one after is one higher, and the highest applies."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """Put on every deployment beside mlpack's own."""

    stages: tuple[Decimal, ...] = (Decimal("0.01"), Decimal("0.1"), Decimal("0.5"), Decimal(1))
    """Shares of the group, rising; the last is 1."""

    engine: str = ""
    """What the devices run; empty: ``[device] engine``."""

    tariff: str = ""
    """What their bytes cost; empty: ``[fleet] tariff``."""

    link_bytes_per_second: int = 0
    """How fast they fetch (``link``); 0 where that is not said."""

    require: str = ""
    """``NAME:VERSION``: the least version devices must hold before a later one is sent."""

    success: Decimal = Decimal("0.95")
    """Share of a stage's devices that must run the release before the next stage begins."""

    max_failures: Decimal = Decimal("0.02")
    """Share of a stage's devices that may fail before the rollout is undone."""

    soak_seconds: int = 0
    """How long a stage lasts at least (``soak``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployRecipe:
    """``[deploy]``: where and to whom."""

    hub: str = ""
    """Host name of the IoT hub; a connection string in the environment goes before it."""

    retain: int = 2
    """Deployments kept per group once a rollout is done, the current one among them."""

    limit: int = MAX_DEPLOYMENTS
    """Deployments the hub takes in all."""

    groups: Mapping[str, DeviceGroup] = field(default_factory=dict)


GROUP_KEYS = (
    "target", "priority", "labels", "stages", "engine", "tariff",
    "link", "require", "success", "max_failures", "soak",
)  # fmt: skip


def read_deploy(root: Node) -> DeployRecipe:
    """Read ``[deploy]`` of a whole ``mlpack.toml``."""
    node = table(root, "deploy", "hub", "retain", "limit", "groups")
    hub = text(node, "hub", "")
    if hub and not _HOST.fullmatch(hub):
        raise InvalidContent(
            f"{node.where}.hub",
            f"{hub!r} is not a host name",
            hint="write it as NAME.azure-devices.net; keys stay out of this file",
        )
    groups = node.get("groups")
    return DeployRecipe(
        hub=hub,
        retain=integer(node, "retain", 2, minimum=1, maximum=MAX_DEPLOYMENTS),
        limit=integer(node, "limit", MAX_DEPLOYMENTS, minimum=1, maximum=10_000),
        groups={name: _group(name, each) for name, each in groups.items()} if groups else {},
    )


def _group(name: str, node: Node) -> DeviceGroup:
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        hint = f"lower-case letters, digits and single - _ between them, at most {MAX_NAME}"
        raise InvalidContent(node.where, f"{name!r} is not a name of a device group", hint=hint)
    known(node, *GROUP_KEYS)
    default = DeviceGroup(name=name, condition=_condition(node.need("target")))
    link, soak, require = node.get("link"), node.get("soak"), node.get("require")
    return DeviceGroup(
        name=name,
        condition=default.condition,
        priority=integer(node, "priority", default.priority, minimum=1, maximum=MAX_PRIORITY),
        labels=_labels(node.get("labels")),
        stages=_stages(node.get("stages")) or default.stages,
        engine=text(node, "engine", ""),
        tariff=text(node, "tariff", ""),
        link_bytes_per_second=parsed(link, amounts.parse_speed) if link else 0,
        require=_release(require) if require else "",
        success=_share(node, "success", default.success),
        max_failures=_share(node, "max_failures", default.max_failures),
        soak_seconds=parsed(soak, amounts.parse_time) if soak else 0,
    )


def _condition(node: Node) -> Condition:
    try:
        return Condition.parse(node.text())
    except InvalidCondition as error:
        raise InvalidContent(node.where, str(error), hint=error.hint) from error


def _labels(node: Node | None) -> Mapping[str, str]:
    found = node.text_map() if node else {}
    for key in found:
        if not _LABEL.fullmatch(key) or key.startswith("mlpack"):
            raise InvalidContent(
                f"{node.where if node else ''}.{key}",
                "cannot be a label",
                hint="use letters, digits, - and _; mlpack… are mlpack's own",
            )
    return found


def _stages(node: Node | None) -> tuple[Decimal, ...]:
    if node is None:
        return ()
    if isinstance(node.value, list):
        node = Node(",".join(node.texts()), node.where)
    return parsed(node, amounts.parse_stages)


def _share(node: Node, key: str, default: Decimal) -> Decimal:
    found = node.get(key)
    return parsed(found, amounts.parse_share) if found else default


def _release(node: Node) -> str:
    found = node.text()
    if not _RELEASE.fullmatch(found):
        raise InvalidContent(node.where, f"{found!r} is not NAME:VERSION", hint="write it as fan:3")
    return found


def unknown_group(name: str, groups: Mapping[str, DeviceGroup]) -> tuple[str, str]:
    """What to say, and the hint, where a group called ``name`` is asked for and not there."""
    if not groups:
        return (
            "mlpack.toml has no device group",
            f"add [deploy.groups.{name}] with target = \"tags.deviceGroup = '{name}'\"",
        )
    known_ones = ", ".join(groups)
    return f"there is no device group {name!r}{nearest(name, groups)}", f"one of: {known_ones}"
