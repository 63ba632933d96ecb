"""A double of Azure ML: one workspace and one registry of models, with their storage.

It answers what azure-ai-ml 1.35 sends to register, list, tag and fetch models, keeps what it is
told, and refuses what Azure refuses: another api-version, a version whose path changes, a path
without files, properties that change. Every token and signature is checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.doubles.arm import error
from tests.doubles.authority import Answer, Request, Tokens, as_json
from tests.doubles.blob import Container, refused

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
GROUP, WORKSPACE, REGISTRY = "ml", "lab", "edge-models"
_AT = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers"
_ML = "Microsoft.MachineLearningServices"
SCOPE = f"{_AT}/{_ML}/workspaces/{WORKSPACE}"
REGISTRY_SCOPE = f"/mferp/managementfrontend{_AT}/{_ML}/registries/{REGISTRY}"
DISCOVERY = f"/registrymanagement/v1.0/registries/{REGISTRY}/discovery"
STORE = "workspaceblobstore"
_VERSION = re.compile(r"/models/([^/]+)/versions(?:/([^/]+))?")
_WHO = {"createdBy": "someone", "createdByType": "User", "lastModifiedBy": "someone"}
_SYSTEM = {**_WHO, "createdAt": "2026-11-20T00:00:00Z", "lastModifiedAt": "2026-11-20T00:00:00Z",
           "lastModifiedByType": "User"}  # fmt: skip
API = {"models": "2023-08-01-preview", "datastores": "2024-10-01-preview"}
REGISTRY_API = "2021-10-01-dataplanepreview"

Versions = dict[tuple[str, str], dict[str, object]]


@dataclass
class AzureML:
    """What the workspace and the registry hold, and what was asked of them."""

    url: str = ""
    tokens: Tokens = field(default_factory=Tokens)
    models: Versions = field(default_factory=dict)
    shared: Versions = field(default_factory=dict)
    """The registry's."""

    container: Container = field(default_factory=lambda: Container("labaccount", "models"))
    requests: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    denied: set[str] = field(default_factory=set)
    throttled: list[int] = field(default_factory=list)
    by_role: bool = False
    """Whether the caller may read and write the storage without a signature."""

    @property
    def workspace(self) -> str:
        """The workspace as the command line names it."""
        return f"{SUBSCRIPTION}/{GROUP}/{WORKSPACE}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs to take this for Azure, but for the authority."""
        return {
            "MLPACK_AZURE_ENDPOINT": self.url,
            "ARM_CLOUD_METADATA_URL": f"{self.url}/metadata/endpoints?api-version=2019-05-01",
            "REGISTRY_DISCOVERY_ENDPOINT_URL": f"{self.url}/",
            "IDENTITY_ENDPOINT": f"{self.url}/identity",
            "IDENTITY_HEADER": self.tokens.header,
        }

    def share(self, name: str, version: str, files: Mapping[str, bytes], **properties: str) -> None:
        """Put a model into the registry."""
        at = f"shared/{name}/{version}/{name}"
        self.container.blobs |= {f"{at}/{path}": content for path, content in files.items()}
        uri = f"https://{self._storage}/{self.container.name}/{at}"
        self.shared[(name, version)] = {"modelUri": uri, "properties": properties, "tags": {}}

    @property
    def _storage(self) -> str:
        return f"{self.container.account}.blob.{urlsplit(self.url).netloc}"

    def answer(self, asked: Request) -> Answer:
        """Answer one request, to the management API or to the storage."""
        if asked.headers.get("host", "").startswith(f"{self.container.account}.blob."):
            self.requests.append(f"{asked.method} blob {asked.path}")
            return self._stored(asked)
        self.requests.append(f"{asked.method} {asked.path}")
        if asked.path == "/identity":
            return self.tokens.answer(asked)
        if asked.path == "/metadata/endpoints":
            return as_json(200, [self._cloud()])
        if not self.tokens.allows(asked.headers.get("authorization", ""), self.url):
            return error(401, "AuthenticationFailed", "no token, or another")
        if self.throttled:
            after = {"Retry-After": str(self.throttled.pop())}
            return error(429, "TooManyRequests", "Too many requests.", after)
        if any(asked.path.endswith(each) for each in self.denied):
            return error(403, "AuthorizationFailed", "The client has no authorization.")
        found = self._routed(asked)
        if found is None:
            self.faults.append(f"{asked.method} {asked.target}")
        return found or error(404, "ResourceNotFound", f"{asked.path} was not found")

    def _stored(self, asked: Request) -> Answer:
        """By a signature, or by a role of the caller's own where it has one."""
        authorization = asked.headers.get("authorization", "")
        if not authorization:
            return self.container.answer(asked)
        known = self.tokens.allows(authorization, "https://storage.azure.com")
        if not (known and self.by_role):
            return refused(403, "AuthorizationPermissionMismatch")
        return self.container.answer(asked, trusted=True)

    def _cloud(self) -> dict[str, object]:
        return {
            "name": "Double",
            "portal": "https://portal.double.localhost",
            "resourceManager": self.url,
            "authentication": {"loginEndpoint": self.url},
            "suffixes": {"storage": urlsplit(self.url).netloc},
        }

    def _routed(self, asked: Request) -> Answer | None:
        version = asked.query.get("api-version", "")
        if asked.path == DISCOVERY:
            return self._discovery()
        if asked.path.startswith(REGISTRY_SCOPE) and version == REGISTRY_API:
            return self._registry(asked, asked.path.removeprefix(REGISTRY_SCOPE))
        path = asked.path.removeprefix(SCOPE)
        if path == asked.path:
            return error(404, "ResourceNotFound", "The workspace was not found.")
        if API.get(path.split("/")[1]) != version:
            return None
        if path.startswith(f"/datastores/{STORE}"):
            return self._datastore(asked, path)
        return self._model(asked, path, self.models)

    def _discovery(self) -> Answer:
        return as_json(
            200,
            {
                "registryName": REGISTRY,
                "subscriptionId": SUBSCRIPTION,
                "resourceGroup": GROUP,
                "primaryRegion": "westeurope",
                "primaryRegionResourceProviderUri": f"{self.url}/",
                "registryFqdns": {},
            },
        )

    def _registry(self, asked: Request, path: str) -> Answer | None:
        if asked.method == "POST" and path.startswith("/datarefs/"):
            return self._dataref(asked)
        return self._model(asked, path, self.shared) if asked.method == "GET" else None

    def _dataref(self, asked: Request) -> Answer | None:
        document = asked.json()
        uri = document.get("blobUri") if isinstance(document, dict) else None
        if uri not in {each["modelUri"] for each in self.shared.values()}:
            return error(400, "UserError", "no such blob")
        sas = f"https://{self._storage}/{self.container.name}?{self.container.sas('rl')}"
        credential = {"credentialType": "SAS", "sasUri": sas}
        return as_json(
            200, {"blobReferenceForConsumption": {"blobUri": uri, "credential": credential}}
        )

    def _datastore(self, asked: Request, path: str) -> Answer | None:
        if asked.method == "POST" and path.endswith("/listSecrets"):
            return as_json(200, {"secretsType": "Sas", "sasToken": self.container.sas("rwl")})
        if asked.method != "GET" or path != f"/datastores/{STORE}":
            return None
        properties = {
            "datastoreType": "AzureBlob",
            "accountName": self.container.account,
            "containerName": self.container.name,
            "endpoint": urlsplit(self.url).netloc,
            "protocol": "https",
            "isDefault": True,
            "credentials": {"credentialsType": "Sas"},
        }
        return as_json(200, {"id": SCOPE + path, "name": STORE, "properties": properties})

    def _model(self, asked: Request, path: str, held: Versions) -> Answer | None:
        found = _VERSION.fullmatch(path)
        if found is None:
            name = path.removeprefix("/models/")
            known = [version for each, version in held if each == name]
            latest = {"latestVersion": known[-1]} if known else {}
            if asked.method != "GET" or "/" in name:
                return None
            return as_json(200, {"name": name, "properties": latest}) if known else _absent(name)
        name, version = found[1], found[2] or ""
        if not version:
            return self._versions(name, held) if asked.method == "GET" else None
        if asked.method == "PUT":
            return self._put(asked, name, version)
        if asked.method != "GET":
            return None
        if (name, version) not in held:
            return _absent(f"{name}:{version}")
        return as_json(200, _shown(name, version, held[name, version]))

    def _versions(self, name: str, held: Versions) -> Answer:
        listed = [_shown(*key, value) for key, value in held.items() if key[0] == name]
        return as_json(200, {"value": listed}) if listed else _absent(name)

    def _put(self, asked: Request, name: str, version: str) -> Answer:
        document = asked.json()
        properties = document.get("properties") if isinstance(document, dict) else None
        if not isinstance(properties, dict):
            return error(400, "UserError", "no properties")
        uri, before = str(properties.get("modelUri")), self.models.get((name, version))
        if before and before["modelUri"] != uri:
            return error(400, "UserError", "Asset paths cannot be updated.")
        if wrong := self._wrong(uri, properties, before):
            return error(400, "UserError", wrong)
        self.models[name, version] = properties
        return as_json(200 if before else 201, _shown(name, version, properties))

    def _wrong(
        self, uri: str, properties: Mapping[str, object], before: Mapping[str, object] | None
    ) -> str:
        place = re.fullmatch(
            rf"azureml://subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/workspaces/{WORKSPACE}"
            rf"/datastores/{STORE}/paths/(LocalUpload/[0-9a-f]+/.+)",
            uri,
            re.IGNORECASE,
        )
        if place is None or not any(each.startswith(place[1]) for each in self.container.blobs):
            return f"there is nothing at {uri}"
        for kind in ("tags", "properties"):
            found = properties.get(kind) or {}
            if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
                return f"{kind} are texts"
            held = before.get(kind) if before and kind == "properties" else None
            if isinstance(held, dict) and not held.items() <= found.items():
                return "properties of a version cannot be changed"
        return ""


def _absent(what: str) -> Answer:
    return error(404, "UserError", f"Not found: {what}")


def _shown(name: str, version: str, properties: Mapping[str, object]) -> dict[str, object]:
    return {
        "id": f"{SCOPE}/models/{name}/versions/{version}",
        "name": version,
        "type": f"{_ML}/workspaces/models/versions",
        "properties": {"flavors": {}, "isArchived": False, **properties},
        "systemData": _SYSTEM,
    }
