"""``mlpack render --target kubernetes --apply``: objects to a cluster, by its official client."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlpack.errors import MlpackError

MANAGER = "mlpack"
"""Whom the cluster notes as the owner of the fields (server-side apply)."""

_CALLS = {
    "Deployment": ("AppsV1Api", "deployment"),
    "DaemonSet": ("AppsV1Api", "daemon_set"),
    "Service": ("CoreV1Api", "service"),
    "NetworkPolicy": ("NetworkingV1Api", "network_policy"),
}
_SECONDS = 30


class NoCluster(MlpackError):
    """A cluster that is not named, or not reached."""

    hint = "set KUBECONFIG, or name one of its contexts with --context"


class Refused(MlpackError):
    """An object the cluster did not take; those before it are applied."""


@dataclass(frozen=True)
class Applied:
    """One object the cluster took."""

    kind: str
    namespace: str
    name: str
    created: bool
    dry_run: bool

    def __str__(self) -> str:
        said = "created" if self.created else "configured"
        return (
            f"{self.kind} {self.namespace}/{self.name} {said}{' (dry run)' if self.dry_run else ''}"
        )

    def to_json(self) -> dict[str, object]:
        """The object as ``--json`` prints it."""
        return {
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "created": self.created,
            "dry_run": self.dry_run,
        }


@dataclass(frozen=True)
class Cluster:
    """A cluster as a kubeconfig names it."""

    config: Path
    context: str = ""

    @cached_property
    def _named(self) -> Mapping[str, Any]:
        """The context: the one asked for, or the current one."""
        config = _client().config
        if not self.config.is_file():
            raise NoCluster(f"there is no kubeconfig {self.config}")
        try:
            found, current = config.list_kube_config_contexts(str(self.config))
        except (config.ConfigException, TypeError, KeyError, ValueError) as error:
            raise NoCluster(f"{self.config}: {error}") from error
        if not self.context:
            return dict(current)
        for each in found:
            if each["name"] == self.context:
                return dict(each)
        names = ", ".join(each["name"] for each in found)
        raise NoCluster(f"{self.config} has no context {self.context!r}", hint=f"one of: {names}")

    @property
    def name(self) -> str:
        """The context's name."""
        return str(self._named["name"])

    @property
    def namespace(self) -> str:
        """Where objects go that name no namespace."""
        return str(self._named.get("context", {}).get("namespace") or "default")

    def open(self) -> Any:  # noqa: ANN401  # the client has no types
        """A client; close it."""
        config = _client().config
        try:
            return config.new_client_from_config(str(self.config), context=self.name)
        except (config.ConfigException, OSError, ValueError) as error:
            raise NoCluster(f"{self.config}: {error}") from error


def apply(
    documents: Iterable[Mapping[str, object]], cluster: Cluster, *, dry_run: bool = False
) -> tuple[Applied, ...]:
    """Give the cluster every document by server-side apply, as ``kubectl apply --server-side``.

    Fields that others own are left to them: a conflict is refused, not forced. With
    ``dry_run`` the cluster checks everything and keeps nothing. Raises :class:`NoCluster`
    and :class:`Refused`.
    """
    with cluster.open() as client:
        return tuple(_applied(client, cluster, each, dry_run) for each in documents)


def _applied(
    client: Any,  # noqa: ANN401
    cluster: Cluster,
    document: Mapping[str, object],
    dry_run: bool,
) -> Applied:
    kubernetes = _client()
    metadata: Any = document["metadata"]
    kind, name = str(document["kind"]), str(metadata["name"])
    namespace = str(metadata.get("namespace") or cluster.namespace)
    group, noun = _CALLS[kind]
    call = getattr(
        getattr(kubernetes.client, group)(client), f"patch_namespaced_{noun}_with_http_info"
    )
    options = {"dry_run": "All"} if dry_run else {}
    try:
        _, status, _ = call(
            name,
            namespace,
            dict(document),
            field_manager=MANAGER,
            field_validation="Strict",
            _content_type="application/apply-patch+yaml",
            _request_timeout=_SECONDS,
            **options,
        )
    except kubernetes.client.ApiException as error:
        raise _refused(f"{kind} {namespace}/{name}", error) from error
    except OSError as error:
        raise NoCluster(f"{cluster.name}: {error}") from error
    except Exception as error:  # urllib3's errors are no OSErrors
        if type(error).__module__.startswith("urllib3"):
            reason = getattr(error, "reason", error)
            raise NoCluster(f"{cluster.name} does not answer: {reason}") from error
        raise
    return Applied(kind, namespace, name, created=status == 201, dry_run=dry_run)


def _refused(what: str, error: Any) -> Refused:  # noqa: ANN401
    try:
        said = str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        said = str(error.reason)
    hints = {
        401: "log in to the cluster anew",
        403: "the account may not patch these objects: ask for that right in the namespace",
        404: "does the namespace exist?",
        409: "another tool owns these fields: leave them to it, or take them over with "
        "kubectl apply --server-side --force-conflicts -f FILE",
    }
    return Refused(
        f"{what} is refused ({error.status}): {' '.join(said.split())}",
        hint=hints.get(error.status, ""),
    )


def _client() -> Any:  # noqa: ANN401
    try:
        import kubernetes
        import kubernetes.client
        import kubernetes.config
    except ImportError as error:
        raise MlpackError(
            "--apply needs the client of Kubernetes",
            hint="pip install 'mlpack-edge[kubernetes]', or pipe the output into: "
            "kubectl apply --server-side -f -",
        ) from error
    return kubernetes
