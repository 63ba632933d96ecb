"""A stateful double of Kubernetes' API server, as far as server-side apply of a few kinds goes.

It checks what it is sent against the API's schemas (package kubernetes-validate), as
``fieldValidation=Strict`` does.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from tests.doubles.authority import Answer, Request, as_json
from tests.e2e.wire import Certificate

PLURALS = {
    "deployments": "Deployment",
    "daemonsets": "DaemonSet",
    "services": "Service",
    "networkpolicies": "NetworkPolicy",
}
PLACE = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[a-z0-9.]+/v1))"
    r"/namespaces/(?P<namespace>[a-z0-9-]+)/(?P<plural>[a-z]+)/(?P<name>[a-z0-9-]+)"
)


@dataclass
class ApiServer:
    """What it holds, by namespace, kind and name; and who owns fields besides mlpack."""

    token: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)
    version: str = "1.33"
    namespaces: frozenset[str] = frozenset({"default", "edge"})
    objects: dict[tuple[str, str, str], Any] = field(default_factory=dict)
    owned: set[str] = field(default_factory=set)
    """Kinds that another field manager has changed."""

    seen: list[Request] = field(default_factory=list)

    def answer(self, asked: Request) -> Answer:
        """Answer as the API server does."""
        self.seen.append(asked)
        if asked.headers.get("authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized")
        found = PLACE.fullmatch(asked.path)
        if asked.method != "PATCH" or found is None:
            return _status(404, "the server could not find the requested resource")
        if asked.headers.get("content-type") != "application/apply-patch+yaml":
            return _status(415, f"{asked.headers.get('content-type')} is not supported")
        if not asked.query.get("fieldManager"):
            return _status(400, "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value")
        return self._apply(asked, found)

    def _apply(self, asked: Request, found: re.Match[str]) -> Answer:
        document: Any = yaml.safe_load(asked.body)
        kind, namespace = PLURALS[found["plural"]], found["namespace"]
        wanted = (found["core"] or found["group"], kind, found["name"])
        if (document["apiVersion"], document["kind"], document["metadata"]["name"]) != wanted:
            return _status(400, "the object does not match the address")
        if document["metadata"].get("namespace", namespace) != namespace:
            return _status(400, "the namespace of the object does not match the address")
        if namespace not in self.namespaces:
            return _status(404, f'namespaces "{namespace}" not found')
        try:
            kubernetes_validate.validate(document, self.version, strict=True)
        except kubernetes_validate.ValidationError as error:
            return _status(400, f"strict decoding error: {error.message}")
        if kind in self.owned and asked.query.get("force") != "true":
            return _status(409, 'Apply failed with 1 conflict: conflict with "kubectl"')
        key = (namespace, kind, found["name"])
        there = key in self.objects
        if asked.query.get("dryRun") != "All":
            self.objects[key] = document
        return as_json(200 if there else 201, document)


def kubeconfig(path: Path, url: str, server: ApiServer, certificate: Certificate) -> Path:
    """Write a kubeconfig with two contexts, ``edge`` (the current one) and ``locked-out``."""
    cluster = {"server": url, "certificate-authority": str(certificate.ca)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": cluster}],
        "users": [
            {"name": "operator", "user": {"token": server.token}},
            {"name": "stranger", "user": {"token": "none"}},
        ],
        "contexts": [
            {
                "name": "edge",
                "context": {"cluster": "local", "user": "operator", "namespace": "edge"},
            },
            {"name": "locked-out", "context": {"cluster": "local", "user": "stranger"}},
        ],
        "current-context": "edge",
    }
    path.write_text(yaml.safe_dump(document))
    return path


def _status(code: int, message: str) -> Answer:
    document = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
    return as_json(code, {**document, "message": message, "code": code})
