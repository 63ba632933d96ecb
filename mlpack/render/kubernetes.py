"""A release on a cluster as Kubernetes' objects: what runs, and who reaches whom.

The container is Kubernetes' ``Container``: nothing but /tmp is writable, and no privilege is left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from ipaddress import ip_address
from urllib.parse import urlsplit

from mlpack.errors import MlpackError, page
from mlpack.iotedge.module import tmp_bytes
from mlpack.iotedge.secrets import Passwords, secret_problems
from mlpack.oci.descriptor import Node, Platform, Reference
from mlpack.settings.edge import ALL_GPUS, ModuleSettings
from mlpack.settings.targets import KubernetesSettings

PORT = 5001
"""Where the runtime in a release listens."""

PORT_NAME = "score"
_SERVICE_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")


class InvalidManifest(MlpackError, ValueError):
    """An object that a cluster would refuse, or run wrongly."""

    hint = f"correct the items above; what each setting becomes: {page('how-to/kubernetes')}"


def object_name(module: str) -> str:
    """Return the name of a module in the form of Kubernetes' names.

    >>> object_name("Fan_scorer.v2")
    'fan-scorer-v2'
    """
    return re.sub(r"[^a-z0-9]+", "-", module.lower()).strip("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageVolume:
    """The base as the container, and the release mounted into it."""

    base: Reference
    env: Mapping[str, str]
    """Variables of the release's config that the base's lacks, with paths below the mount."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One release on a cluster."""

    module: str
    image: Reference
    model: str
    version: str
    settings: ModuleSettings = field(default_factory=ModuleSettings)
    cluster: KubernetesSettings = field(default_factory=KubernetesSettings)
    group: str = ""
    """Device group: a pod on each of its nodes; empty for ``replicas`` pods anywhere."""

    nodes: Mapping[str, str] = field(default_factory=dict)
    """Labels of those nodes."""

    platform: Platform | None = None
    """The platform, if the image is for one only."""

    volume: ImageVolume | None = None
    rebuilt: int = 0
    """Bytes of its model that it rebuilds below /tmp when it starts."""

    def __post_init__(self) -> None:
        for each in (self.image, *((self.volume.base,) if self.volume else ())):
            if each.digest is None:
                raise InvalidManifest(
                    f"{each} is not pinned to a digest", hint="tags move; name it by its digest"
                )
        if not _SERVICE_NAME.fullmatch(self.name):
            raise InvalidManifest(
                f"{self.name!r} cannot be the name of a Service",
                hint="at most 63 letters, digits and -, a letter first: set [module] name",
            )
        if "MLPACK_PORT" in self.settings.env:
            raise InvalidManifest(
                "[module] env MLPACK_PORT moves the port from where probes and Service look",
                hint="set the Service's port with [module] port",
            )

    @property
    def name(self) -> str:
        """The name of every object; groups have their own, so that each may run another release."""
        return object_name(f"{self.module}-{self.group}" if self.group else self.module)

    @property
    def selector(self) -> dict[str, str]:
        """The labels that never change: a Deployment's selector cannot."""
        return {
            "app.kubernetes.io/name": object_name(self.module),
            "app.kubernetes.io/instance": self.name,
        }

    @property
    def metadata(self) -> dict[str, object]:
        """The metadata of every object."""
        labels = {
            **self.selector,
            "app.kubernetes.io/version": self.version,
            "app.kubernetes.io/component": "scoring",
            "app.kubernetes.io/managed-by": "mlpack",
            "mlpack.io/model": self.model,
        }
        if self.group:
            labels["mlpack.io/device-group"] = self.group
        place = {"namespace": self.cluster.namespace} if self.cluster.namespace else {}
        return {
            "name": self.name,
            **place,
            "labels": labels,
            "annotations": self.annotations,
        }

    @property
    def annotations(self) -> dict[str, str]:
        """The release, in full."""
        return {
            "mlpack.io/release": f"{self.model}:{self.version}",
            "mlpack.io/digest": str(self.image.digest),
        }


LIVE, READY = "/v2/health/live", "/v2/health/ready"
START_SECONDS = 600
"""How long a model may take to load; a liveness probe alone would end it before."""

RELEASE_PATH = "/mnt/release"
"""Where an image volume of the release is mounted."""

_PERIOD = 2


def resources(*, gpus: int = 0, memory: int = 0, cpus: Decimal = Decimal(0)) -> dict[str, object]:
    """Return ``resources`` of a container; empty if nothing is bounded.

    Limits are requests too: a pod that gets all it may use is the last to be evicted.
    NVIDIA's device plugin counts whole graphics processors; they can be limited only
    (Kubernetes, *Schedule GPUs*), and no pod can request all of a node's.

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
    """Return the container that scores: only /tmp is writable, and no privilege is left."""
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
    """Return the pod's volumes: /tmp in memory, and the release if it is an image volume."""
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
    """Escape ``$(NAME)``, for which Kubernetes would put a variable's value."""
    return value.replace("$(", "$$(")


def _probe(path: str, period: int = _PERIOD) -> dict[str, object]:
    return {
        "httpGet": {"path": path, "port": PORT_NAME},
        "periodSeconds": period,
        "timeoutSeconds": 2,
    }


HISTORY = 2
"""Releases a cluster can go back to; their images stay on the nodes anyhow."""

Manifest = dict[str, object]


def manifests(workload: Workload) -> tuple[Manifest, ...]:
    """Return the objects in the order they are applied: the network policy before what runs."""
    runs = _daemon_set(workload) if workload.group else _deployment(workload)
    return policy(workload), _service(workload), runs


def _deployment(workload: Workload) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": workload.metadata,
        "spec": {
            "replicas": workload.cluster.replicas,
            "revisionHistoryLimit": HISTORY,
            "selector": {"matchLabels": workload.selector},
            "strategy": {
                "type": "RollingUpdate",
                # The old one goes once the new one is ready, so that some pod always answers.
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
            },
            "template": _template(workload),
        },
    }


def _daemon_set(workload: Workload) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": workload.metadata,
        "spec": {
            "revisionHistoryLimit": HISTORY,
            "selector": {"matchLabels": workload.selector},
            "updateStrategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": "10%"},
            },
            "template": _template(workload),
        },
    }


def _template(workload: Workload) -> Manifest:
    """The pod: no root, no privilege, no token for the cluster's own API."""
    cluster = workload.cluster
    nodes = dict(workload.nodes)
    if workload.platform:
        nodes |= {
            "kubernetes.io/os": workload.platform.os,
            "kubernetes.io/arch": workload.platform.architecture,
        }
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if cluster.pull_secret:
        spec["imagePullSecrets"] = [{"name": cluster.pull_secret}]
    if cluster.runtime_class:
        spec["runtimeClassName"] = cluster.runtime_class
    if nodes:
        spec["nodeSelector"] = nodes
    labels = {
        **workload.selector,
        "app.kubernetes.io/version": workload.version,
        "mlpack.io/model": workload.model,
    }
    return {
        "metadata": {"labels": labels, "annotations": workload.annotations},
        "spec": {**spec, "containers": [container(workload)], "volumes": volumes(workload)},
    }


def _service(workload: Workload) -> Manifest:
    port = {
        "name": PORT_NAME,
        "port": workload.settings.port,
        "targetPort": PORT_NAME,
        "protocol": "TCP",
    }
    spec: Manifest = {
        "type": workload.cluster.service,
        "selector": workload.selector,
        "ports": [port],
    }
    if workload.group:
        # Each node has a pod of its own: readings stay on the node they come from.
        spec["internalTrafficPolicy"] = "Local"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": workload.metadata,
        "spec": spec,
    }


MQTT_PORT, MQTT_TLS_PORT = 1883, 8883
DNS_PORT = 53


def policy(workload: Workload) -> dict[str, object]:
    """In: the scoring port. Out: name resolution, and what the module's variables name."""
    out: list[dict[str, object]] = [{"ports": [_port(DNS_PORT, "UDP"), _port(DNS_PORT)]}]
    env = workload.settings.env
    name = "MQTT_BROKER" if env.get("MQTT_BROKER") else "MQTT_HOST"
    if broker := env.get(name, ""):
        if name == "MQTT_HOST" and env.get("MQTT_PORT"):
            broker = f"{broker}:{env['MQTT_PORT']}"
        secure = bool(env.get("MQTT_CA"))
        out.append(_broker((name, broker), secure=secure, pods=workload.cluster.broker))
    if url := env.get("SCORING_URL", ""):
        out.append(_scorer(url))
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": workload.metadata,
        "spec": {
            "podSelector": {"matchLabels": workload.selector},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [_port(PORT)]}],
            "egress": out,
        },
    }


def _broker(given: tuple[str, str], *, secure: bool, pods: Mapping[str, str]) -> dict[str, object]:
    """Read the broker as the runtime does: ``host[:port]``, or ``mqtts://host[:port]``."""
    name, written = given
    address = written
    if "://" not in written:
        address = f"{'mqtts' if secure else 'mqtt'}://{written}"
    host, port = _split(name, written, address)
    tls = address.startswith("mqtts://") or secure
    ports = [_port(port or (MQTT_TLS_PORT if tls else MQTT_PORT))]
    if pods:
        peer = {"namespaceSelector": {}, "podSelector": {"matchLabels": dict(pods)}}
        return {"to": [peer], "ports": ports}
    return {**_to(host), "ports": ports}


def _scorer(url: str) -> dict[str, object]:
    host, port = _split("SCORING_URL", url, url)
    return {**_to(host), "ports": [_port(port or (443 if url.startswith("https:") else 80))]}


def _split(name: str, written: str, address: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host:
        raise InvalidManifest(f"[module] env {name}={written!r} names no host")
    return host, port


def _to(host: str) -> dict[str, object]:
    """A policy can name addresses and pods, not hosts: a name allows any address."""
    try:
        address = ip_address(host)
    except ValueError:
        return {}
    return {"to": [{"ipBlock": {"cidr": f"{address}/{address.max_prefixlen}"}}]}


def _port(number: int, protocol: str = "TCP") -> dict[str, object]:
    return {"protocol": protocol, "port": number}


_BELONGS = "keep it in a Secret of the cluster and name that in [kubernetes] secrets"


def require_open(settings: ModuleSettings, hint: str = _BELONGS) -> None:
    """Raise :class:`InvalidManifest` if a variable of the module holds a secret in clear.

    The message does not repeat it; ``hint`` says where it belongs.
    """
    module = Node({"env": dict(settings.env)}, "module")
    found = tuple(secret_problems("module", module, Passwords.PLACEHOLDER))
    if found:
        where = ", ".join(each.path for each in found)
        raise InvalidManifest(
            f"{where}: holds a secret, which everyone who may see the manifest could read",
            hint=hint,
        )


def left_out(settings: ModuleSettings) -> Iterator[str]:
    """Yield a warning for each setting of ``[module]`` that only container engines know."""
    engine_only = {
        "options": settings.options,
        "ports": settings.ports,
        "mounts": settings.mounts,
        "twin": settings.twin,
    }
    for key, value in engine_only.items():
        if value:
            yield f"[module] {key} is for IoT Edge: nothing of it is in these manifests"
    if settings.gpu == ALL_GPUS:
        yield "[module] gpu = true asks for one GPU: a pod cannot ask for all of a node's"
