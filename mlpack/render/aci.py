"""A release on Azure Container Instances: the file ``az container create --file`` takes.

Its form is that of the service's REST API, ``ContainerGroups - Create Or Update``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_UP, Decimal

from mlpack.oci.descriptor import Reference
from mlpack.render.kubernetes import LIVE, PORT, READY, InvalidManifest, object_name
from mlpack.settings.edge import ModuleSettings, RegistryLogin
from mlpack.settings.targets import AciSettings

API_VERSION = "2023-05-01"
CPUS, MEMORY_BYTES = Decimal(1), 1_500_000_000
"""The service's defaults."""

_TENTH = Decimal("0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerGroup:
    """One release as a container group of one container."""

    module: str
    image: Reference
    model: str
    version: str
    settings: ModuleSettings = field(default_factory=ModuleSettings)
    place: AciSettings = field(default_factory=AciSettings)
    login: RegistryLogin | None = None
    """The user and password for the registry, if no identity may pull."""

    def __post_init__(self) -> None:
        if self.image.digest is None:
            raise InvalidManifest(f"{self.image} is not pinned to a digest")
        if self.settings.gpu:
            raise InvalidManifest(
                "Azure Container Instances has no GPUs (its GPU groups were retired in 2025)",
                hint="leave [module] gpu out, and build the release on a base without gpu",
            )
        if self.place.subnet and self.place.dns_label:
            raise InvalidManifest(
                "[aci] dns_label names a public address, and a subnet has none",
                hint="leave one of dns_label and subnet out",
            )
        if self.settings.port != PORT:
            raise InvalidManifest(
                f"[module] port = {self.settings.port}: Azure Container Instances maps no ports",
                hint=f"leave it out; the module answers on {PORT}",
            )


def group(requested: ContainerGroup) -> dict[str, object]:
    """Return the document, for one YAML file."""
    place = requested.place
    name = object_name(requested.module)
    properties: dict[str, object] = {
        "sku": "Standard",
        "osType": "Linux",
        "restartPolicy": "Never" if requested.settings.restart == "never" else "Always",
        "containers": [{"name": name, "properties": _container(requested)}],
        "ipAddress": _address(place),
    }
    if credentials := _credentials(requested):
        properties["imageRegistryCredentials"] = [credentials]
    if place.subnet:
        properties["subnetIds"] = [{"id": place.subnet}]
    identity = {"type": "UserAssigned", "userAssignedIdentities": {place.identity: {}}}
    return {
        "apiVersion": API_VERSION,
        "name": name,
        **({"location": place.location} if place.location else {}),
        "tags": {
            "mlpack-release": f"{requested.model}:{requested.version}",
            "mlpack-digest": str(requested.image.digest),
        },
        **({"identity": identity} if place.identity else {}),
        "properties": properties,
        "type": "Microsoft.ContainerInstance/containerGroups",
    }


def _container(requested: ContainerGroup) -> dict[str, object]:
    settings = requested.settings
    gigabytes = Decimal(settings.memory or MEMORY_BYTES) / 10**9
    requests = {
        "cpu": float(settings.cpus or CPUS),
        "memoryInGB": float(gigabytes.quantize(_TENTH, rounding=ROUND_UP)),
    }
    env = [{"name": name, "value": value} for name, value in settings.env.items()]
    return {
        "image": str(requested.image),
        "ports": [{"port": PORT, "protocol": "TCP"}],
        **({"environmentVariables": env} if env else {}),
        "resources": {"requests": requests},
        "livenessProbe": {**_probe(LIVE), "initialDelaySeconds": 30, "periodSeconds": 10},
        "readinessProbe": {**_probe(READY), "periodSeconds": 5},
    }


def _probe(path: str) -> dict[str, object]:
    return {
        "httpGet": {"path": path, "port": PORT, "scheme": "http"},
        "failureThreshold": 3,
        "timeoutSeconds": 2,
    }


def _address(place: AciSettings) -> Mapping[str, object]:
    return {
        "type": "Private" if place.subnet else "Public",
        "ports": [{"port": PORT, "protocol": "TCP"}],
        **({"dnsNameLabel": place.dns_label} if place.dns_label else {}),
    }


def _credentials(requested: ContainerGroup) -> dict[str, object]:
    server = {"server": requested.image.registry}
    if requested.place.identity:
        return {**server, "identity": requested.place.identity}
    if requested.login:
        return {
            **server,
            "username": requested.login.username,
            "password": requested.login.password,
        }
    return {}
