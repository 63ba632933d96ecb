"""A pod's container (Kubernetes API, ``Container``), and what may be done to it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from mlpack.model.edge import ALL_GPUS
from mlpack.render.container import tmp_bytes
from mlpack.render.kubernetes.workload import PORT, PORT_NAME, Workload

LIVE, READY = "/v2/health/live", "/v2/health/ready"
START_SECONDS = 600
"""How long a model may take to load; a liveness probe alone would end it before."""

RELEASE_PATH = "/mnt/release"
"""Where the release is, where it is an image volume."""

_PERIOD = 2


def resources(*, gpus: int = 0, memory: int = 0, cpus: Decimal = Decimal(0)) -> dict[str, object]:
    """``resources`` of a container; empty where nothing is bounded.

    What is bounded is asked for, too: a pod that gets all it may use is the last to be
    evicted. NVIDIA's device plugin counts whole graphics processors; they can be limited
    only (Kubernetes, *Schedule GPUs*), and there is no way to ask for all of a node's.

    >>> resources(gpus=1)
    {'limits': {'nvidia.com/gpu': 1}}
    >>> resources(memory=512_000_000, cpus=Decimal("0.5"))["requests"]
    {'cpu': '500m', 'memory': '512000000'}
    """
    bounded: dict[str, object] = {}
    if cpus:
        bounded["cpu"] = f"{int(cpus * 1000)}m"
    if memory:
        bounded["memory"] = str(memory)
    limits = {**bounded, **({"nvidia.com/gpu": gpus} if gpus else {})}
    return {**({"requests": bounded} if bounded else {}), **({"limits": limits} if limits else {})}


def container(workload: Workload) -> dict[str, object]:
    """The container that scores: /tmp alone is writable, and no privilege is left."""
    settings, volume = workload.settings, workload.volume
    found: dict[str, object] = {
        "name": "scoring",
        "image": str(volume.base if volume else workload.image),
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": PORT_NAME, "containerPort": PORT, "protocol": "TCP"}],
    }
    if env := _env(workload):
        found["env"] = [{"name": name, "value": _literal(value)} for name, value in env.items()]
    if workload.cluster.secrets:
        found["envFrom"] = [{"secretRef": {"name": name}} for name in workload.cluster.secrets]
    gpus = 1 if settings.gpu == ALL_GPUS else settings.gpu
    if bounds := resources(gpus=gpus, memory=settings.memory, cpus=settings.cpus):
        found["resources"] = bounds
    mounts: list[dict[str, object]] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108
    if volume:
        mounts.append({"name": "release", "mountPath": RELEASE_PATH, "readOnly": True})
    return {
        **found,
        "startupProbe": {**_probe(READY), "failureThreshold": START_SECONDS // _PERIOD},
        "livenessProbe": {**_probe(LIVE, period=10), "failureThreshold": 3},
        "readinessProbe": {**_probe(READY, period=5), "failureThreshold": 2},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def volumes(workload: Workload) -> list[dict[str, object]]:
    """The pod's volumes: /tmp in memory, and the release where it is an image volume."""
    limit = str(tmp_bytes(workload.rebuilt))
    found: list[dict[str, object]] = [
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": limit}}
    ]
    if workload.volume:
        image = {"reference": str(workload.image), "pullPolicy": "IfNotPresent"}
        found.append({"name": "release", "image": image})
    return found


def _env(workload: Workload) -> Mapping[str, str]:
    gpu = {"MLPACK_PROVIDERS": "cuda,cpu"} if workload.settings.gpu else {}
    release = workload.volume.env if workload.volume else {}
    return {**release, **gpu, **workload.settings.env}


def _literal(value: str) -> str:
    """A text that stays what it is: Kubernetes would put a variable's value for ``$(NAME)``."""
    return value.replace("$(", "$$(")


def _probe(path: str, period: int = _PERIOD) -> dict[str, object]:
    return {
        "httpGet": {"path": path, "port": PORT_NAME},
        "periodSeconds": period,
        "timeoutSeconds": 2,
    }
