"""Where releases run: ``[deploy]`` and its device groups, ``[kubernetes]`` and ``[aci]``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

from mlpack.errors import MlpackError
from mlpack.humanize import nearest
from mlpack.oci.descriptor import InvalidContent, Node
from mlpack.settings.condition import Condition, InvalidCondition
from mlpack.settings.project_settings import engine
from mlpack.settings.reader import (
    choice,
    integer,
    listed,
    matching,
    optional,
    parse_share,
    parse_speed,
    parse_stages,
    parse_time,
    parsed,
    read_table,
    setting,
    settings_table,
    tables,
    text,
)

_NAME = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*")
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_NAME = 40
MAX_PRIORITY = 1_000_000
MAX_DEPLOYMENTS = 100
"""Deployments a hub of the standard tiers takes; a free one takes 10 (IoT Hub quotas)."""


def _condition(node: Node) -> Condition:
    try:
        if isinstance(node.value, list):
            return Condition.of_devices(node.texts())
        return Condition.parse(node.text())
    except InvalidCondition as error:
        raise InvalidContent(node.where, str(error), hint=error.hint) from error


def _labels(node: Node) -> Mapping[str, str]:
    found = node.text_map()
    for key in found:
        if not _LABEL.fullmatch(key) or key.startswith("mlpack"):
            hint = "use letters, digits, - and _; mlpack… are mlpack's own"
            raise InvalidContent(f"{node.where}.{key}", "cannot be a label", hint=hint)
    return found


def _stages(node: Node) -> tuple[Decimal, ...]:
    if isinstance(node.value, list):
        node = Node(",".join(node.texts()), node.where)
    return parsed(parse_stages)(node)


@settings_table
class DeviceGroup:
    """``[deploy.groups.NAME]``: devices that get releases together."""

    name: str
    condition: Condition = setting(
        _condition,
        "which devices, in the hub's language: `tags.NAME`, `properties.reported.NAME` and "
        "`deviceId`; `=` `!=` `<>` `<` `>` `<=` `>=`, `is_defined(...)`; `AND` `OR` `NOT` `( )`; "
        "texts in single quotes, a quote in one written twice; numbers, `true`, `false`. A name "
        "with other signs is written `tags.[[my-tag]]`; `*` is every IoT Edge device. Or a list "
        'of device ids: `["van-1", "van-2"]`',
        key="target",
    )
    priority: int = setting(
        integer(1, MAX_PRIORITY),
        "of the group's first deployment; each release after is one higher, and the highest "
        "applies",
        default=10,
    )
    labels: Mapping[str, str] = setting(
        _labels, "labels of every deployment, with mlpack's own", factory=dict
    )
    stages: tuple[Decimal, ...] = setting(
        _stages,
        "shares of the group, rising to 100%; a text or a list of texts",
        default=(Decimal("0.01"), Decimal("0.1"), Decimal("0.5"), Decimal(1)),
        shown='`"1%,10%,50%,100%"`',
    )
    engine: str = setting(
        optional(engine), "what these devices run", default="", shown="`[device] engine`"
    )
    tariff: str = setting(text, "what their bytes cost", default="", shown="`[fleet] tariff`")
    link_bytes_per_second: int = setting(
        parsed(parse_speed),
        'how fast they fetch: `"64 kbit/s"`, `"2 MB/s"`',
        default=0,
        shown="none: no times are shown",
        key="link",
    )
    require: str = setting(
        matching(
            r"[a-z0-9][a-z0-9._-]*[:@][a-z0-9][a-z0-9._-]*",
            "NAME:VERSION",
            "write it as fan:3, or fan@champion",
        ),
        "`NAME:VERSION` or `NAME@ALIAS`: the least version every device must hold before a later "
        "one is sent",
        default="",
        shown="none",
    )
    success: Decimal = setting(
        parsed(parse_share),
        "share of a stage's devices that must run the release before the next stage begins; a "
        "silent device is not a success",
        default=Decimal("0.95"),
        shown='`"95%"`',
    )
    max_failures: Decimal = setting(
        parsed(parse_share),
        "share of a stage's devices that may fail; beyond it the rollout is stopped and undone",
        default=Decimal("0.02"),
        shown='`"2%"`',
    )
    soak_seconds: int = setting(
        parsed(parse_time),
        'how long a stage lasts at least: `"30m"`, `"2h"`, `"1d"`',
        default=0,
        shown="none",
        key="soak",
    )


def _groups(node: Node) -> Mapping[str, DeviceGroup]:
    found = {}
    for name, each in node.items():
        if len(name) > MAX_NAME or not _NAME.fullmatch(name):
            hint = f"lower-case letters, digits and single - _ between them, at most {MAX_NAME}"
            raise InvalidContent(each.where, f"{name!r} is not a name of a device group", hint=hint)
        found[name] = read_table(each, DeviceGroup, name=name)
    return found


@settings_table
class DeploySettings:
    """``[deploy]``: where and to whom."""

    hub: str = setting(
        optional(
            matching(
                r"[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?",
                "a host name",
                "write it as NAME.azure-devices.net; keys stay out of this file",
            )
        ),
        "host name of the IoT hub (`NAME.azure-devices.net`); a connection string in the "
        "environment overrides it",
        default="",
    )
    retain: int = setting(
        integer(1, MAX_DEPLOYMENTS),
        "deployments kept per device group once a rollout is done, with the current one",
        default=2,
    )
    limit: int = setting(
        integer(1, 10_000),
        "deployments the hub takes in all; 10 on a free one",
        default=MAX_DEPLOYMENTS,
    )
    groups: Mapping[str, DeviceGroup] = setting(
        _groups, "device groups, each a table `[deploy.groups.NAME]`", factory=dict
    )


class UnknownGroup(MlpackError):
    """A device group that mlpack.toml does not have."""


def find_group(groups: Mapping[str, DeviceGroup], name: str) -> DeviceGroup:
    """Return the group called ``name``; raise :class:`UnknownGroup`."""
    if name not in groups:
        message, hint = unknown_group(name, groups)
        raise UnknownGroup(message, hint=hint)
    return groups[name]


def unknown_group(name: str, groups: Mapping[str, DeviceGroup]) -> tuple[str, str]:
    """Return the message and the hint if there is no group called ``name``."""
    if not groups:
        return (
            "mlpack.toml has no device group",
            f"add [deploy.groups.{name}] with target = \"tags.deviceGroup = '{name}'\"",
        )
    known = ", ".join(groups)
    return f"there is no device group {name!r}{nearest(name, groups)}", f"one of: {known}"


NODE_LABEL = "mlpack.io/device-group"
"""The label of nodes whose value is their device group, unless configured otherwise."""

SERVICES = ("ClusterIP", "NodePort", "LoadBalancer")
MAX_REPLICAS = 10_000

_KEY = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
)
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_HINT = "lower-case letters, digits and - between them"
kubernetes_name = matching(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", "a name of Kubernetes", _HINT)
_dotted = matching(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", "a name of Kubernetes", _HINT)


def node_labels(node: Node) -> Mapping[str, str]:
    """Read labels of a cluster's nodes."""
    found = node.text_map()
    for key, value in found.items():
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            hint = "as in Kubernetes: at most 63 letters, digits, - _ and ."
            raise InvalidContent(
                f"{node.where}.{key}", f"{key}={value} cannot be a label", hint=hint
            )
    if not found:
        hint = f'write {{ "{NODE_LABEL}" = "vans" }}'
        raise InvalidContent(node.where, "has no label", hint=hint)
    return found


@settings_table
class KubernetesSettings:
    """``[kubernetes]``: how a cluster runs the release."""

    namespace: str = setting(
        optional(kubernetes_name), "where the objects go", default="", shown="what `kubectl` uses"
    )
    replicas: int = setting(
        integer(maximum=MAX_REPLICAS),
        "pods, unless a device group is named: then one on each of its nodes",
        default=1,
    )
    service: str = setting(choice(*SERVICES), "or `NodePort`, `LoadBalancer`", default="ClusterIP")
    pull_secret: str = setting(
        optional(_dotted), "name of the Secret with the registry's login", default="", shown="none"
    )
    secrets: tuple[str, ...] = setting(
        listed(_dotted), "names of Secrets whose keys become variables of the module", default=()
    )
    broker: Mapping[str, str] = setting(
        node_labels,
        "labels of the MQTT broker's pods, the only ones it may then reach at that port",
        factory=dict,
        shown="any address",
    )
    runtime_class: str = setting(
        optional(_dotted),
        'as `"nvidia"`, if K3s needs one for GPUs',
        default="",
        shown="the cluster's own",
    )
    groups: Mapping[str, Mapping[str, str]] = setting(
        tables(node_labels),
        'labels of each device group\'s nodes: `vans = { "site" = "depot-3" }`',
        factory=dict,
        shown=f"`{NODE_LABEL}=NAME`",
    )


@settings_table
class AciSettings:
    """``[aci]``: how Azure Container Instances runs the release."""

    location: str = setting(
        text, "region of Azure Container Instances", default="", shown="the resource group's"
    )
    identity: str = setting(
        optional(
            matching(
                r"/subscriptions/[^/]+/resource[gG]roups/[^/]+/providers/"
                r"Microsoft\.ManagedIdentity/userAssignedIdentities/[^/]+",
                "the resource id of a user-assigned identity",
                "az identity show -g GROUP -n NAME --query id prints it",
                show=False,
            )
        ),
        "resource id of the user-assigned identity that pulls from the registry",
        default="",
        shown="none",
    )
    dns_label: str = setting(
        optional(kubernetes_name),
        "the address is then `LABEL.REGION.azurecontainer.io`",
        default="",
        shown="none",
    )
    subnet: str = setting(
        text,
        "resource id of a subnet, which makes the address private",
        default="",
        shown="none: a public address",
    )
