"""A release on a cluster as Kubernetes' objects: what runs, and how it is reached."""

from __future__ import annotations

from mlpack.render.kubernetes.container import container, volumes
from mlpack.render.kubernetes.network import policy
from mlpack.render.kubernetes.workload import PORT_NAME, Workload

HISTORY = 2
"""Releases a cluster can go back to; their images stay on the nodes anyhow."""

Manifest = dict[str, object]


def manifests(workload: Workload) -> tuple[Manifest, ...]:
    """The objects, in the order they are applied: who may be reached before what runs."""
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
