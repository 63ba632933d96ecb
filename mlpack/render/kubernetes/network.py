"""Who a module may be asked by, and whom it may reach (``NetworkPolicy``)."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from mlpack.render.kubernetes.workload import PORT, InvalidManifest, Workload

MQTT_PORT, MQTT_TLS_PORT = 1883, 8883
DNS_PORT = 53


def policy(workload: Workload) -> dict[str, object]:
    """In: the scoring port. Out: name resolution, and what the module's variables name."""
    out: list[dict[str, object]] = [{"ports": [_port(DNS_PORT, "UDP"), _port(DNS_PORT)]}]
    env = workload.settings.env
    if broker := env.get("MQTT_BROKER", ""):
        out.append(_broker(broker, secure=bool(env.get("MQTT_CA")), pods=workload.cluster.broker))
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


def _broker(said: str, *, secure: bool, pods: Mapping[str, str]) -> dict[str, object]:
    """As the runtime reads ``MQTT_BROKER``: ``host[:port]``, or ``mqtts://host[:port]``."""
    address = said if "://" in said else f"{'mqtts' if secure else 'mqtt'}://{said}"
    host, port = _split("MQTT_BROKER", said, address)
    tls = address.startswith("mqtts://") or secure
    ports = [_port(port or (MQTT_TLS_PORT if tls else MQTT_PORT))]
    if pods:
        peer = {"namespaceSelector": {}, "podSelector": {"matchLabels": dict(pods)}}
        return {"to": [peer], "ports": ports}
    return {**_to(host), "ports": ports}


def _scorer(url: str) -> dict[str, object]:
    host, port = _split("SCORING_URL", url, url)
    return {**_to(host), "ports": [_port(port or (443 if url.startswith("https:") else 80))]}


def _split(name: str, said: str, address: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host:
        raise InvalidManifest(f"[module] env {name}={said!r} names no host")
    return host, port


def _to(host: str) -> dict[str, object]:
    """A policy can name addresses and pods, not hosts: for a name, any address will do."""
    try:
        address = ip_address(host)
    except ValueError:
        return {}
    return {"to": [{"ipBlock": {"cidr": f"{address}/{address.max_prefixlen}"}}]}


def _port(number: int, protocol: str = "TCP") -> dict[str, object]:
    return {"protocol": protocol, "port": number}
