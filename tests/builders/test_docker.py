"""A Docker daemon that will not: one line says what, whatever the libraries between say."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mlpack.project.directory import ProjectDirectory
from tests.support import make_project, run, tiny_onnx

pytest.importorskip("docker")

STEPS = [
    {"stream": "Step 1/4 : FROM registry.example.com/edge/base@sha256:0\n"},
    {"stream": "\n"},
    {
        "errorDetail": {"message": "unauthorized:\n log in first"},
        "error": "unauthorized:\n log in first",
    },
]


class Daemon(ThreadingHTTPServer):
    """Speaks as much of Docker's API as a build needs, and fails the build as it is told."""

    daemon_threads = True

    def __init__(self, build: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.build = build

    def handle_error(self, request: object, client_address: object) -> None:
        """Hanging up is part of the play."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Daemon

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.endswith("/version"):
            self._say(200, {"ApiVersion": "1.41", "MinAPIVersion": "1.12"})
        elif path.endswith("/images/json"):
            self._say(200, [])
        else:
            self._say(200, {"Id": f"sha256:{'0' * 64}", "RepoTags": []})

    def do_POST(self) -> None:
        self._read()
        if not self.path.partition("?")[0].endswith("/build"):
            self._send(200, json.dumps({"stream": "Loaded image: x:1"}).encode())
        elif self.server.build == "hang up":
            self.close_connection = True
        elif self.server.build == "refuse":
            self._say(500, {"message": "no space\nleft on device"})
        else:
            self._send(200, b"".join(json.dumps(each).encode() + b"\r\n" for each in STEPS))

    def _read(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        else:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _say(self, status: int, document: object) -> None:
        self._send(status, json.dumps(document).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def daemon(build: str) -> Iterator[str]:
    """Such a daemon while the block runs; yields its address."""
    server = Daemon(build)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    made = make_project(tmp_path / "fan")
    model = tiny_onnx(tmp_path / "model.onnx")
    assert run("-C", str(made.root), "register", str(model)).exit_code == 0
    return made


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            "fail",
            "docker build: unauthorized: log in first "
            r"\(after: Step 1/4 : FROM registry.example.com/edge/base@sha256:0\)",
        ),
        ("refuse", "docker .*: no space left on device"),
        (
            "hang up",
            r"the Docker daemon at tcp://127.0.0.1:\d+ went away \(Remote end closed.*\)",
        ),
    ],
)
def test_a_build_that_fails_is_one_line(
    project: ProjectDirectory, monkeypatch: pytest.MonkeyPatch, build: str, message: str
) -> None:
    before = dict(project.layout.tags())
    with daemon(build) as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        done = run("-C", str(project.root), "build", "fan", "--builder", "docker")
    assert done.exit_code == 1
    error, hint = done.stderr.splitlines()
    assert re.fullmatch(f"error: {message}", error), error
    assert hint.startswith("hint: ")
    assert "--builder oci" in hint
    assert dict(project.layout.tags()) == before


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("tcp://127.0.0.1:1", "Connection refused"),
        ("bogus", "Invalid bind address format: port is required: bogus"),
    ],
)
def test_a_daemon_that_is_not_there_is_one_line(
    project: ProjectDirectory, monkeypatch: pytest.MonkeyPatch, place: str, reason: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", place)
    done = run("-C", str(project.root), "build", "fan", "--builder", "docker")
    assert done.exit_code == 1
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: no Docker daemon answers at ")
    assert error.endswith(f"({reason})")
    assert "--builder oci" in hint
