"""``[kubernetes]`` and ``[aci]``: where a release runs besides IoT Edge."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlpack.model.table import integer, table, text
from mlpack.oci.document import InvalidContent, Node

NODE_LABEL = "mlpack.io/device-group"
"""The label of nodes whose value is their device group, where nothing else is said."""

SERVICES = ("ClusterIP", "NodePort", "LoadBalancer")
MAX_REPLICAS = 10_000

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_DOTTED = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_KEY = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
)
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_IDENTITY = re.compile(
    r"/subscriptions/[^/]+/resource[gG]roups/[^/]+/providers/"
    r"Microsoft\.ManagedIdentity/userAssignedIdentities/[^/]+"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesRecipe:
    """``[kubernetes]``: how a cluster runs the release."""

    namespace: str = ""
    """Empty: whatever ``kubectl`` uses."""

    replicas: int = 1
    """Pods, where no device group is named; one per node of the group where one is."""

    service: str = "ClusterIP"
    pull_secret: str = ""
    """Name of the Secret the registry's login is in."""

    secrets: tuple[str, ...] = ()
    """Names of Secrets whose keys become variables of the module."""

    broker: Mapping[str, str] = field(default_factory=dict)
    """Labels of the MQTT broker's pods, where it runs in the cluster."""

    runtime_class: str = ""
    groups: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Labels of the nodes of each device group, by the group's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AciRecipe:
    """``[aci]``: how Azure Container Instances runs the release."""

    location: str = ""
    """Region; empty: the resource group's."""

    identity: str = ""
    """Resource id of the user-assigned identity that may pull from the registry."""

    dns_label: str = ""
    """Its address is then ``LABEL.REGION.azurecontainer.io``."""

    subnet: str = ""
    """Resource id of a subnet: the address is then private."""


KUBERNETES_KEYS = (
    "namespace", "replicas", "service", "pull_secret",
    "secrets", "broker", "runtime_class", "groups",
)  # fmt: skip
ACI_KEYS = ("location", "identity", "dns_label", "subnet")


def read_kubernetes(root: Node) -> KubernetesRecipe:
    """Read ``[kubernetes]`` of a whole ``mlpack.toml``."""
    node = table(root, "kubernetes", *KUBERNETES_KEYS)
    secrets, broker, groups = (node.get(key) for key in ("secrets", "broker", "groups"))
    service = text(node, "service", SERVICES[0])
    if service not in SERVICES:
        raise InvalidContent(f"{node.where}.service", f"is none of {', '.join(SERVICES)}")
    return KubernetesRecipe(
        namespace=_named(node, "namespace"),
        replicas=integer(node, "replicas", 1, maximum=MAX_REPLICAS),
        service=service,
        pull_secret=_named(node, "pull_secret", _DOTTED),
        secrets=tuple(_checked(each, _DOTTED) for each in secrets.elements()) if secrets else (),
        broker=_labels(broker) if broker else {},
        runtime_class=_named(node, "runtime_class", _DOTTED),
        groups={name: _labels(each) for name, each in groups.items()} if groups else {},
    )


def read_aci(root: Node) -> AciRecipe:
    """Read ``[aci]`` of a whole ``mlpack.toml``."""
    node = table(root, "aci", *ACI_KEYS)
    identity = text(node, "identity", "")
    if identity and not _IDENTITY.fullmatch(identity):
        raise InvalidContent(
            f"{node.where}.identity",
            "is not the resource id of a user-assigned identity",
            hint="az identity show -g GROUP -n NAME --query id prints it",
        )
    return AciRecipe(
        location=text(node, "location", ""),
        identity=identity,
        dns_label=_named(node, "dns_label"),
        subnet=text(node, "subnet", ""),
    )


def _named(node: Node, key: str, pattern: re.Pattern[str] = _NAME) -> str:
    found = node.get(key)
    return _checked(found, pattern) if found is not None and found.text() else ""


def _checked(node: Node, pattern: re.Pattern[str]) -> str:
    found = node.text()
    if not pattern.fullmatch(found):
        hint = "lower-case letters, digits and - between them"
        raise InvalidContent(node.where, f"{found!r} cannot be a name there", hint=hint)
    return found


def _labels(node: Node) -> Mapping[str, str]:
    found = node.text_map()
    for key, value in found.items():
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            hint = "as Kubernetes has them: at most 63 letters, digits, - _ and ."
            raise InvalidContent(
                f"{node.where}.{key}", f"{key}={value} cannot be a label", hint=hint
            )
    if not found:
        raise InvalidContent(
            node.where, "has no label", hint=f'write {{ "{NODE_LABEL}" = "vans" }}'
        )
    return found
