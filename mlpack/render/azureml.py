"""A release on an online endpoint of Azure ML: the files that ``az ml`` takes.

Their forms are the YAML schemas of ``az ml online-endpoint`` and ``az ml online-deployment``, and
InstanceType, a custom resource of the cluster that Azure ML's extension defines. The release is a
custom container: Azure ML adds neither model nor code to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from mlpack.oci.descriptor import Reference
from mlpack.render.kubernetes import (
    LIVE,
    PORT,
    READY,
    START_SECONDS,
    InvalidManifest,
    left_out,
    object_name,
)
from mlpack.settings.azureml import AzureMLSettings, InstanceType
from mlpack.settings.edge import ALL_GPUS, ModuleSettings

SCORE = "/score"
NAME_HINT = "3 to 32 letters, digits and single -, a letter first"
MAX_NAMES = 62
"""Characters of endpoint and deployment together, on a cluster."""

MAX_SECONDS, MAX_MANAGED_SECONDS = 300, 180
"""Azure ML's limits of a request, on a cluster and on a managed endpoint."""

RUNTIME_SECONDS = 60.0
"""How long the runtime takes for a request at most, unless MLPACK_TIMEOUT says otherwise."""

_NAME = re.compile(r"(?=.{3,32}$)[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)*")
_SCHEMAS = "https://azuremlschemas.azureedge.net/latest"
_MEBIBYTE = 1024**2
_PERIOD = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineRelease:
    """One release as a deployment of an online endpoint."""

    module: str
    image: Reference
    model: str
    version: str
    settings: ModuleSettings = field(default_factory=ModuleSettings)
    place: AzureMLSettings = field(default_factory=AzureMLSettings)

    def __post_init__(self) -> None:
        if self.image.digest is None:
            raise InvalidManifest(f"{self.image} is not pinned to a digest")
        if "MLPACK_PORT" in self.settings.env:
            raise InvalidManifest(
                "[module] env MLPACK_PORT moves the port from where Azure ML looks",
                hint=f"leave it out; the module answers on {PORT}",
            )
        _require_place(self.place)
        _require_names(self)
        if self.place.compute:
            _require_instance(self)

    @property
    def endpoint(self) -> str:
        """The endpoint's name."""
        return self.place.endpoint or object_name(self.module)

    @property
    def deployment(self) -> str:
        """The deployment's name: each release has its own, so that traffic moves between them."""
        return self.place.deployment or object_name(f"release-{self.version}")

    @property
    def gpus(self) -> int:
        """How many GPUs an instance asks for."""
        return 1 if self.settings.gpu == ALL_GPUS else self.settings.gpu


def endpoint(requested: OnlineRelease) -> dict[str, object]:
    """Return the endpoint, which stays the same from release to release.

    It names no traffic: Azure ML refuses shares of deployments that do not exist yet.
    """
    compute = requested.place.compute
    return {
        "$schema": f"{_SCHEMAS}/{'kubernetes' if compute else 'managed'}OnlineEndpoint.schema.json",
        "name": requested.endpoint,
        **({"compute": f"azureml:{compute}"} if compute else {}),
        "auth_mode": "key",
        "tags": {"mlpack-model": requested.model},
    }


def deployment(requested: OnlineRelease) -> dict[str, object]:
    """Return the deployment that runs the release."""
    place = requested.place
    kind = "kubernetes" if place.compute else "managed"
    found: dict[str, object] = {
        "$schema": f"{_SCHEMAS}/{kind}OnlineDeployment.schema.json",
        "name": requested.deployment,
        "endpoint_name": requested.endpoint,
        "type": kind,
        "tags": {
            "mlpack-release": f"{requested.model}:{requested.version}",
            "mlpack-digest": str(requested.image.digest),
        },
        "environment": {
            "image": str(requested.image),
            "inference_config": {
                "liveness_route": {"port": PORT, "path": LIVE},
                "readiness_route": {"port": PORT, "path": READY},
                "scoring_route": {"port": PORT, "path": SCORE},
            },
        },
    }
    if env := _env(requested):
        found["environment_variables"] = env
    if place.instance_type:
        found["instance_type"] = place.instance_type
    found["instance_count"] = place.instances
    # Without it, a cluster's deployment is scaled between one instance and one.
    found["scale_settings"] = {"type": "default"}
    found["request_settings"] = {"request_timeout_ms": _timeout_ms(requested)}
    found["liveness_probe"] = {**_probe(START_SECONDS // _PERIOD), "initial_delay": 30}
    found["readiness_probe"] = _probe(3)
    if place.compute and (resources := _resources(requested)):
        found["resources"] = resources
    return found


def instance_type(requested: InstanceType) -> dict[str, object]:
    """Return an instance type, for ``kubectl apply``; GPUs can be limited only."""
    each = _bounds(requested.cpus, requested.memory)
    gpus = {"nvidia.com/gpu": requested.gpus} if requested.gpus else {}
    return {
        "apiVersion": "amlarc.azureml.com/v1alpha1",
        "kind": "InstanceType",
        "metadata": {"name": requested.name},
        "spec": {
            **({"nodeSelector": dict(requested.nodes)} if requested.nodes else {}),
            "resources": {"limits": {**each, **gpus}, "requests": each},
        },
    }


def warnings(requested: OnlineRelease) -> Iterator[str]:
    """Yield a warning for each setting that means nothing there."""
    settings = requested.settings
    yield from left_out(settings)
    if settings.port != PORT:
        yield "[module] port is for devices: an endpoint has an address of its own"
    if not requested.place.compute and (settings.memory or settings.cpus):
        yield "[module] memory and cpus mean nothing on a managed endpoint: an instance is a VM"


def _require_place(place: AzureMLSettings) -> None:
    if place.compute and place.instance_type != place.instance_type.lower():
        raise InvalidManifest(
            f"[azureml] instance_type = {place.instance_type!r} is not one of a cluster",
            hint="kubectl get instancetype lists them; for a managed endpoint leave compute out",
        )
    if place.compute:
        return
    if not place.instance_type:
        raise InvalidManifest(
            "[azureml] names neither compute nor instance_type",
            hint="name the attached Kubernetes compute, or for a managed endpoint the size of "
            'its VMs: instance_type = "Standard_DS3_v2"',
        )
    if place.instance_types:
        raise InvalidManifest(
            "[azureml.instance_types] are for a cluster, and [azureml] names no compute",
            hint='add compute = "NAME", the name of the attached Kubernetes compute',
        )


def _require_names(requested: OnlineRelease) -> None:
    for key in ("endpoint", "deployment"):
        name = getattr(requested, key)
        if not _NAME.fullmatch(name):
            raise InvalidManifest(
                f"{name!r} cannot be the name of Azure ML's {key}",
                hint=f"set [azureml] {key}: {NAME_HINT}",
            )
    together = len(requested.endpoint) + len(requested.deployment)
    if requested.place.compute and together > MAX_NAMES:
        raise InvalidManifest(
            f"the endpoint {requested.endpoint!r} and the deployment {requested.deployment!r} "
            f"have {together} characters, and a cluster takes {MAX_NAMES}",
            hint="set a shorter [azureml] endpoint or deployment",
        )


def _require_instance(requested: OnlineRelease) -> None:
    """Refuse what no instance of the type can give."""
    settings, place, gpus = requested.settings, requested.place, requested.gpus
    if bool(settings.memory) != bool(settings.cpus):
        one, other = ("memory", "cpus") if settings.memory else ("cpus", "memory")
        raise InvalidManifest(
            f"[module] has {one} and no {other}: Azure ML takes both or neither",
            hint=f"add {other}, or leave {one} out for all of the instance type",
        )
    known = place.instance_types.get(place.instance_type or _DEFAULT)
    if gpus and not place.instance_type and known is None:
        raise InvalidManifest(
            "the release wants a GPU, and the cluster's default instance type has none",
            hint="set [azureml] instance_type to one that has",
        )
    if known is None:
        return
    asked = {"gpus": gpus, "memory": settings.memory, "cpus": settings.cpus}
    for key, wanted in asked.items():
        if wanted > getattr(known, key):
            raise InvalidManifest(
                f"the release asks for more {key} ({wanted}) than [azureml.instance_types."
                f"{known.name}] gives ({getattr(known, key)})",
                hint="ask for less in [module], or set another [azureml] instance_type",
            )


_DEFAULT = "defaultinstancetype"
"""The instance type of a deployment that names none; a cluster may define its own."""


def _env(requested: OnlineRelease) -> dict[str, str]:
    gpu = {"MLPACK_PROVIDERS": "cuda,cpu"} if requested.settings.gpu else {}
    return {**gpu, **requested.settings.env}


def _timeout_ms(requested: OnlineRelease) -> int:
    """Return how long Azure ML waits: a second more than the runtime, whose answer says why."""
    written = requested.settings.env.get("MLPACK_TIMEOUT", str(RUNTIME_SECONDS))
    limit = MAX_SECONDS if requested.place.compute else MAX_MANAGED_SECONDS
    try:
        seconds = float(written)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= limit:
        raise InvalidManifest(
            f"[module] env MLPACK_TIMEOUT={written!r} is not 0 to {limit} seconds, which is what "
            "Azure ML waits for an answer",
            hint=f'write it as "{RUNTIME_SECONDS:.0f}", which is the default',
        )
    return min(int(seconds * 1000) + 1000, limit * 1000)


def _probe(failures: int) -> dict[str, object]:
    return {"initial_delay": 10, "period": _PERIOD, "timeout": 2, "failure_threshold": failures}


def _resources(requested: OnlineRelease) -> dict[str, object]:
    """Return requests and limits, the same; empty for all of the instance type."""
    settings = requested.settings
    if not settings.memory:
        return {}
    each = _bounds(settings.cpus, settings.memory)
    # Text, as the schema has it; the cluster reads a number.
    gpus = {"nvidia.com/gpu": str(requested.gpus)} if requested.gpus else {}
    return {"requests": each, "limits": {**each, **gpus}}


def _bounds(cpus: Decimal, memory: int) -> Mapping[str, str]:
    """Return processors and memory as Azure ML reads them: a number and its unit.

    >>> _bounds(Decimal("0.5"), 512_000_000)
    {'cpu': '500m', 'memory': '489Mi'}
    """
    return {"cpu": f"{int(cpus * 1000)}m", "memory": f"{-(-memory // _MEBIBYTE)}Mi"}
