"""A release on Azure Container Instances: the file ``az container create --file`` takes.

Its form is that of the service's REST API, ``ContainerGroups - Create Or Update``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_UP, Decimal

from mlpack.model.edge import ModuleRecipe, RegistryLogin
from mlpack.model.kubernetes import AciRecipe
from mlpack.oci.reference import Reference
from mlpack.render.kubernetes.container import LIVE, READY
from mlpack.render.kubernetes.workload import PORT, InvalidManifest, object_name

API_VERSION = "2023-05-01"
CPUS, MEMORY_BYTES = Decimal(1), 1_500_000_000
"""What the service gives where nothing is said."""

_TENTH = Decimal("0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerGroup:
    """One release as a container group of one container."""

    module: str
    image: Reference
    model: str
    version: str
    settings: ModuleRecipe = field(default_factory=ModuleRecipe)
    place: AciRecipe = field(default_factory=AciRecipe)
    login: RegistryLogin | None = None
    """Where no identity may pull: the user and password for the registry."""

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
                "[aci] dns_label names a public address, and in a subnet there is none",
                hint="leave one of dns_label and subnet out",
            )
        if self.settings.port != PORT:
            raise InvalidManifest(
                f"[module] port = {self.settings.port}: Azure Container Instances maps no ports",
                hint=f"leave it out; the module answers on {PORT}",
            )


def group(asked: ContainerGroup) -> dict[str, object]:
    """The document, for one YAML file."""
    place = asked.place
    name = object_name(asked.module)
    properties: dict[str, object] = {
        "sku": "Standard",
        "osType": "Linux",
        "restartPolicy": "Never" if asked.settings.restart == "never" else "Always",
        "containers": [{"name": name, "properties": _container(asked)}],
        "ipAddress": _address(place),
    }
    if credentials := _credentials(asked):
        properties["imageRegistryCredentials"] = [credentials]
    if place.subnet:
        properties["subnetIds"] = [{"id": place.subnet}]
    identity = {"type": "UserAssigned", "userAssignedIdentities": {place.identity: {}}}
    return {
        "apiVersion": API_VERSION,
        "name": name,
        **({"location": place.location} if place.location else {}),
        "tags": {
            "mlpack-release": f"{asked.model}:{asked.version}",
            "mlpack-digest": str(asked.image.digest),
        },
        **({"identity": identity} if place.identity else {}),
        "properties": properties,
        "type": "Microsoft.ContainerInstance/containerGroups",
    }


def _container(asked: ContainerGroup) -> dict[str, object]:
    settings = asked.settings
    gigabytes = Decimal(settings.memory or MEMORY_BYTES) / 10**9
    requests = {
        "cpu": float(settings.cpus or CPUS),
        "memoryInGB": float(gigabytes.quantize(_TENTH, rounding=ROUND_UP)),
    }
    env = [{"name": name, "value": value} for name, value in settings.env.items()]
    return {
        "image": str(asked.image),
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


def _address(place: AciRecipe) -> Mapping[str, object]:
    return {
        "type": "Private" if place.subnet else "Public",
        "ports": [{"port": PORT, "protocol": "TCP"}],
        **({"dnsNameLabel": place.dns_label} if place.dns_label else {}),
    }


def _credentials(asked: ContainerGroup) -> dict[str, object]:
    server = {"server": asked.image.registry}
    if asked.place.identity:
        return {**server, "identity": asked.place.identity}
    if asked.login:
        return {**server, "username": asked.login.username, "password": asked.login.password}
    return {}
