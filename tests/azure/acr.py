"""A local double of ACR Tasks: the REST API over HTTPS, checked, with a real Docker that builds.

It speaks what azure.mgmt.containerregistrytasks 1.0.0b1 and azure.storage.blob 12 send
(api-version 2025-03-01-preview), says no to anything else, and writes down each fault
it finds. A token is given out as App Service does it, which azure.identity asks.
"""

from __future__ import annotations

import gzip
import io
import json
import ssl
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import docker

from tests.e2e.wire import Certificate

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
GROUP, REGISTRY = "edge", "contoso"
API = "2025-03-01-preview"
TOKEN, HEADER, SECRET = "local-token", "identity-header", "c2VjcmV0LXNpZ25hdHVyZQ"
SCOPE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
    f"/providers/Microsoft.ContainerRegistry/registries/{REGISTRY}"
)
UPLOAD, LOG = "/account/tasks-source/20261120/context.tar.gz", "/account/logs/ca1.txt"
_DATE = "Fri, 20 Nov 2026 17:00:00 GMT"

Answer = tuple[int, dict[str, str], bytes]


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

    @property
    def registry(self) -> str:
        """The resource as the command line names it."""
        return f"{SUBSCRIPTION}/{GROUP}/{REGISTRY}"

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Route one request; whatever is not as documented is a fault and a 400."""
        split = urlsplit(target)
        query = {key: value[0] for key, value in parse_qs(split.query).items()}
        self.requests.append(f"{method} {split.path}")
        try:
            if split.path == "/identity":
                return self._identity(headers, query)
            if split.path.startswith("/account/"):
                return self._blob(method, split.path, query, headers, body)
            return self._manage(method, split.path, query, headers, body)
        except AssertionError as error:
            self.faults.append(f"{method} {target.partition('?')[0]}: {error}")
            return _json(400, {"error": {"code": "BadRequest", "message": str(error)}})

    def _identity(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Answer:
        _must(headers.get("x-identity-header") == HEADER, "the identity header is another")
        _must(query.get("resource") == self.url, f"a token for {query.get('resource')}")
        held = {"access_token": TOKEN, "token_type": "Bearer", "resource": self.url}
        return _json(200, {**held, "expires_on": "4102444800"})

    def _manage(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
    ) -> Answer:
        _must(headers.get("authorization") == f"Bearer {TOKEN}", "no token, or another")
        _must(query == {"api-version": API}, f"query {dict(query)}")
        if not path.startswith(SCOPE):
            return _json(404, {"error": {"code": "ResourceNotFound", "message": path}})
        match method, path.removeprefix(SCOPE):
            case "POST", "/listBuildSourceUploadUrl":
                _must(not body, "a body")
                relative = UPLOAD.removeprefix("/account/")
                return _json(200, {"relativePath": relative, "uploadUrl": self._signed(UPLOAD)})
            case "POST", "/scheduleRun":
                _must("json" in headers.get("content-type", ""), "no JSON")
                return self._schedule(json.loads(body))
            case "POST", "/runs/ca1/listLogSasUrl":
                return _json(200, {"logLink": self._signed(LOG)})
            case "POST", "/runs/ca1/cancel":
                self.cancelled = True
                return 200, {}, b""
            case "GET", "/runs/ca1":
                return self._run()
        return _json(404, {"error": {"code": "NotFound", "message": path}})

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
        return _json(200, self._described("Queued"))

    def _run(self) -> Answer:
        self.polls += 1
        if self.polls == 1:
            return _json(200, self._described("Running"))
        if not self.ended:
            self.ended = True
            self.digest = self._build() if not self.fail_with else ""
        if self.fail_with:
            return _json(200, self._described("Failed", runErrorMessage=self.fail_with))
        repository, _, tag = self._names()[0].partition(":")
        image = {"registry": self.host, "repository": repository, "tag": tag, "digest": self.digest}
        return _json(200, self._described("Succeeded", outputImages=[image]))

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


def _json(status: int, document: object) -> Answer:
    return (
        status,
        {"Content-Type": "application/json; charset=utf-8"},
        json.dumps(document).encode(),
    )


@contextmanager
def started(double: Double, folder: Path) -> Iterator[Certificate]:
    """Serve ``double`` on https://localhost until the block ends."""
    certificate = Certificate.made(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def handle_one(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            headers = {key.lower(): value for key, value in self.headers.items()}
            status, known, content = double.answer(self.command, self.path, headers, body)
            self.send_response(status)
            for key, value in {"Content-Length": str(len(content)), **known}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = handle_one

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain, certificate.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    double.url = f"https://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield certificate
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
