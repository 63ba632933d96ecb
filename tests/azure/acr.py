"""A local double of a registry in Azure: ACR Tasks, checked, with a real Docker that builds.

It speaks what azure.mgmt.containerregistrytasks 1.0.0b1 and azure.storage.blob 12 send
(api-version 2025-03-01-preview), says no to anything else, and writes down each fault
it finds. Logins for devices are :mod:`tests.doubles.arm`'s.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import docker

from tests.doubles import arm
from tests.doubles.authority import Answer, Request, Tokens, as_json, served
from tests.e2e.wire import Certificate

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
GROUP, REGISTRY = "edge", "contoso"
API = "2025-03-01-preview"
SECRET = "c2VjcmV0LXNpZ25hdHVyZQ"
SCOPE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
    f"/providers/Microsoft.ContainerRegistry/registries/{REGISTRY}"
)
UPLOAD, LOG = "/account/tasks-source/20261120/context.tar.gz", "/account/logs/ca1.txt"
_DATE = "Fri, 20 Nov 2026 17:00:00 GMT"


@dataclass
class Double:
    """What the double was told, and what it found wrong."""

    host: str
    """The registry that runs push to, where a real one has NAME.azurecr.io."""

    daemon: str
    fail_with: str = ""
    """Ends runs as Failed, with these words."""

    faults: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    contexts: list[bytes] = field(default_factory=list)
    runs: list[dict[str, object]] = field(default_factory=list)
    log: bytes = b""
    polls: int = 0
    ended: bool = False
    url: str = ""
    digest: str = ""
    cancelled: bool = False
    used_agent: bool = False
    """Whether runs get an agent that has images of other registries."""

    tokens: Tokens = field(default_factory=Tokens)
    denied: set[str] = field(default_factory=set)
    """Ends of paths that the login has no right to."""

    throttled: list[int] = field(default_factory=list)
    """``Retry-After`` of the next answers, which are 429."""

    @cached_property
    def logins(self) -> arm.Logins:
        """The registry's scope maps and tokens."""
        return arm.Logins(SCOPE, self.host)

    @property
    def registry(self) -> str:
        """The resource as the command line names it."""
        return f"{SUBSCRIPTION}/{GROUP}/{REGISTRY}"

    def answer(self, asked: Request) -> Answer:
        """Route one request; whatever is not as documented is a fault and a 400."""
        self.requests.append(f"{asked.method} {asked.path}")
        try:
            if asked.path == "/identity":
                return self.tokens.answer(asked)
            if asked.path.startswith("/account/"):
                return self._blob(asked.method, asked.path, asked.query, asked.headers, asked.body)
            return self._manage(asked)
        except AssertionError as error:
            self.faults.append(f"{asked.method} {asked.path}: {error}")
            return arm.error(400, "BadRequest", str(error))

    def _manage(self, asked: Request) -> Answer:
        path = asked.path
        allowed = self.tokens.allows(asked.headers.get("authorization", ""), self.url)
        _must(allowed, "no token, or another")
        if self.throttled:
            after = {"Retry-After": str(self.throttled.pop())}
            return arm.error(429, "TooManyRequests", "Too many requests.", after)
        if any(path.endswith(each) for each in self.denied):
            return arm.error(403, "AuthorizationFailed", "The client has no authorization.")
        version = asked.query.get("api-version")
        _must(dict(asked.query) == {"api-version": version}, f"query {dict(asked.query)}")
        if version == arm.API:
            found = self.logins.answer(asked, self.url) if path.startswith(SCOPE) else None
            return found or arm.error(404, "ResourceNotFound", path)
        _must(version == API, f"api-version {version}")
        return self._task(asked)

    def _task(self, asked: Request) -> Answer:
        path = asked.path
        if not path.startswith(SCOPE):
            return arm.error(404, "ResourceNotFound", path)
        match asked.method, path.removeprefix(SCOPE):
            case "POST", "/listBuildSourceUploadUrl":
                _must(not asked.body, "a body")
                relative = UPLOAD.removeprefix("/account/")
                return as_json(200, {"relativePath": relative, "uploadUrl": self._signed(UPLOAD)})
            case "POST", "/scheduleRun":
                _must("json" in asked.headers.get("content-type", ""), "no JSON")
                document = asked.json()
                _must(isinstance(document, dict), "no object")
                assert isinstance(document, dict)
                return self._schedule(document)
            case "POST", "/runs/ca1/listLogSasUrl":
                return as_json(200, {"logLink": self._signed(LOG)})
            case "POST", "/runs/ca1/cancel":
                self.cancelled = True
                return 200, {}, b""
            case "GET", "/runs/ca1":
                return self._run()
        return arm.error(404, "NotFound", path)

    def _schedule(self, asked: dict[str, object]) -> Answer:
        known = {
            "type": "DockerBuildRequest",
            "isPushEnabled": True,
            "sourceLocation": UPLOAD.removeprefix("/account/"),
            "dockerFilePath": "Dockerfile",
            "timeout": 3600,
        }
        _must({key: asked.get(key) for key in known} == known, f"asked for {asked}")
        _must(set(asked) == {*known, "imageNames", "platform"}, f"asked for {sorted(asked)}")
        self.runs.append(asked)
        self.log, self.polls, self.ended = b"", 0, False
        return as_json(200, self._described("Queued"))

    def _run(self) -> Answer:
        self.polls += 1
        if self.polls == 1:
            return as_json(200, self._described("Running"))
        if not self.ended:
            self.ended = True
            self.digest = self._build() if not self.fail_with else ""
        if self.fail_with:
            return as_json(200, self._described("Failed", runErrorMessage=self.fail_with))
        repository, _, tag = self._names()[0].partition(":")
        image = {"registry": self.host, "repository": repository, "tag": tag, "digest": self.digest}
        return as_json(200, self._described("Succeeded", outputImages=[image]))

    def _names(self) -> list[str]:
        names = self.runs[-1]["imageNames"]
        assert isinstance(names, list)
        return names

    def _build(self) -> str:
        """Build the uploaded context with a real Docker and push it, as a run's agent does."""
        client = docker.DockerClient(base_url=self.daemon)
        name = f"{self.host}/{self._names()[0]}"
        platform = self.runs[-1]["platform"]
        assert isinstance(platform, dict)
        try:
            # Each run has an agent of its own: what another registry gave is not known to it.
            if not self.used_agent:
                client.images.prune(filters={"dangling": False})
            _, lines = client.images.build(
                fileobj=io.BytesIO(self.contexts[-1]),
                custom_context=True,
                encoding="gzip",
                platform=f"{platform['os'].lower()}/{platform['architecture']}",
                nocache=True,
                tag=name,
                rm=True,
            )
            said = [str(line.get("stream", "")).strip() for line in lines]
            self.log += "".join(f"{line}\r\n" for line in said if line).encode()
            pushed = client.images.push(name, stream=True, decode=True)
            [digest] = [line["aux"]["Digest"] for line in pushed if "Digest" in line.get("aux", {})]
            return str(digest)
        finally:
            client.close()

    def _described(self, status: str, **more: object) -> dict[str, object]:
        properties = {"runId": "ca1", "status": status, "runType": "QuickRun", **more}
        return {"id": f"{SCOPE}/runs/ca1", "name": "ca1", "properties": properties}

    def _signed(self, path: str) -> str:
        return f"{self.url}{path}?sv=2026-02-06&sr=b&sp=rcw&sig={SECRET}"

    def _blob(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
    ) -> Answer:
        _must(query.get("sig") == SECRET, "no signature, or another")
        _must("authorization" not in headers, "a token went to the storage")
        if (method, path) == ("PUT", UPLOAD):
            _must(headers.get("x-ms-blob-type") == "BlockBlob", "no block blob")
            _check_context(body)
            self.contexts.append(body)
            return 201, {"ETag": '"0x1"', "Last-Modified": _DATE}, b""
        if path == LOG and method in ("GET", "HEAD"):
            return self._read_log(method, headers)
        return 404, {"x-ms-error-code": "BlobNotFound"}, b""

    def _read_log(self, method: str, headers: Mapping[str, str]) -> Answer:
        if not self.log:
            return 404, {"x-ms-error-code": "BlobNotFound"}, b""
        known = {"ETag": '"0x1"', "Last-Modified": _DATE, "x-ms-blob-type": "AppendBlob"}
        if method == "HEAD":
            return 200, {**known, "Content-Length": str(len(self.log))}, b""
        first, _, last = headers["x-ms-range"].removeprefix("bytes=").partition("-")
        part = self.log[int(first) : int(last) + 1]
        span = f"bytes {first}-{int(first) + len(part) - 1}/{len(self.log)}"
        return 206, {**known, "Content-Range": span}, part


def _check_context(body: bytes) -> None:
    """A context is gzip, holds a Dockerfile and plain files, and nothing that leaves it."""
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(body)), mode="r:") as archive:
        members = archive.getmembers()
    names = [member.name for member in members]
    _must("Dockerfile" in names, "no Dockerfile")
    for member in members:
        parts = member.name.split("/")
        _must(member.isfile() or member.isdir(), f"{member.name} is no file")
        _must(".." not in parts and parts[0] != "", f"{member.name} leaves the context")
        _must(parts[0] in ("Dockerfile", "model"), f"{member.name} is not of the release")


def _must(right: bool, fault: str) -> None:
    if not right:
        raise AssertionError(fault)


@contextmanager
def started(double: Double, folder: Path) -> Iterator[Certificate]:
    """Serve ``double`` on https://localhost until the block ends."""
    certificate = Certificate.made(folder)
    with served(double.answer, certificate) as url:
        double.url = url
        yield certificate
