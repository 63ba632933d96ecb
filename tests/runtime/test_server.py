"""The runtime as a process, alone and under its shipped name: start, load, signals, end."""

from __future__ import annotations

import http.client
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime import models
from tests.support import free_port

RUNTIME = Path(__file__).resolve().parents[2] / "mlpack" / "runtime"


class Server:
    """One process, and requests to it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log

    def connect(self, timeout: float = 60) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, path: str = "/score", body: bytes | None = b"{}") -> tuple[int, bytes]:
        connection = self.connect()
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    def wait(self) -> Server:
        deadline = time.monotonic() + 60
        while True:
            try:
                assert self.ask("/", None) == (200, b"Healthy")
                return self
            except ConnectionError:
                assert self.process.poll() is None, self.said()
                assert time.monotonic() < deadline, self.said()
                time.sleep(0.02)

    def said(self) -> str:
        return self._log.read_text()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.said().splitlines()]

    def requests(self) -> int:
        """How many are in the log."""
        return sum(line["message"] == "request" for line in self.lines())

    def messages(self, level: str) -> list[str]:
        return [line["message"] for line in self.lines() if line["level"] == level]

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout)


Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the runtime as a base does: alone, under its shipped name."""
    packages = tmp_path / "packages"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(RUNTIME, packages / "mlpack_runtime", ignore=ignored)
    running: list[subprocess.Popen[bytes]] = []

    def begin(script: str = "", **environment: str) -> Server:
        app, port = tmp_path / "app", free_port()
        app.mkdir(exist_ok=True)
        if script:
            (app / "score.py").write_text(script)
        log = tmp_path / f"log-{port}.txt"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlpack_runtime"],
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": str(packages),
                    "AML_APP_ROOT": str(app),
                    "AZUREML_MODEL_DIR": str(app),
                    "MLPACK_HOST": "127.0.0.1",
                    "MLPACK_PORT": str(port),
                    "MLPACK_DRAIN": "0.1",
                    **environment,
                },
                cwd=tmp_path,
                stdout=out,
                stderr=out,
            )
        running.append(process)
        return Server(process, port, log)

    yield begin
    for process in running:
        process.kill()
        process.wait()


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


SCRIPT = """
import time
from pathlib import Path
def init(): pass
def run(data):
    if data == "loop":
        while True: pass
    if data == "sleep": time.sleep(1000)
    if data == "swallow":
        while True:
            try: time.sleep(1000)
            except Exception: pass
    if data == "exit": sys.exit(7)
    if data == "interrupt": raise KeyboardInterrupt
    if data == "key": raise KeyError("a secret")
    if data.startswith("for "): time.sleep(float(data[4:]))
    if data.startswith("until "):
        Path(data[6:] + ".begun").touch()
        while not Path(data[6:]).exists(): time.sleep(0.01)
    return data
"""


def test_it_runs_alone_and_ends_when_asked(start: Start, tmp_path: Path) -> None:
    models.doubled(tmp_path / "app" / "model.onnx")
    server = start().wait()
    assert server.ask(body=b'{"data": [[0, 0, 0, 1]]}') == (200, b'{"result":[[0.0,0.0,0.0,2.0]]}')
    assert server.stop() == 0
    said = server.messages("info")
    assert said[0] == "model.onnx runs on cpu"
    assert said[1].startswith("ready on port")
    assert said[2] == "request"
    assert said[3].startswith("stopping")
    [line] = [line for line in server.lines() if line["message"] == "request"]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/score", 200)
    assert {"time", "ms", "queue_ms", "run_ms", "bytes", "id"} < line.keys()
    assert "data" not in line


@pytest.mark.parametrize(
    ("script", "environment", "message"),
    [
        ("", {}, "holds 0 ONNX models"),
        (
            "def init(): raise RuntimeError('no such thing')\ndef run(a): pass\n",
            {},
            "no such thing",
        ),
        ("def init(): pass\n", {}, "has no function run()"),
        ("import os, sys\nsys.exit(0)\n", {}, "SystemExit"),
        (SCRIPT, {"MLPACK_PORT": "99999"}, "MLPACK_PORT='99999' is not"),
        (SCRIPT, {"MLPACK_HOST": "no.such.host.invalid"}, "cannot listen on no.such.host"),
    ],
)
def test_what_cannot_be_served_ends_with_one_line(
    script: str, environment: dict[str, str], message: str, start: Start
) -> None:
    server = start(script, **environment)
    assert server.process.wait(60) == 1
    [line] = server.lines()
    assert line["level"] == "error"
    assert message in line["message"]
    assert ("traceback" in line) == ("raise RuntimeError" in script or "SystemExit" in message)


def test_a_port_that_is_taken(start: Start) -> None:
    server = start(SCRIPT).wait()
    other = start(SCRIPT, MLPACK_PORT=str(server.port))
    assert other.process.wait(60) == 1
    assert "cannot listen on 127.0.0.1 port" in other.messages("error")[0]
    assert server.stop() == 0


def test_no_request_ends_it(start: Start) -> None:
    server = start(SCRIPT).wait()
    for bad in (b"exit", b"interrupt", b"key"):
        status, body = server.ask(body=bad)
        assert status == 500
        assert b"scoring failed with" in body
        assert b"secret" not in body
        assert server.ask(body=b"good") == (200, b'"good"')
    assert "a secret" in server.said()
    assert server.stop() == 0


@pytest.mark.parametrize("hang", [b"loop", b"sleep", b"swallow"])
def test_a_script_that_takes_too_long_is_interrupted(hang: bytes, start: Start) -> None:
    # Time enough for a short run of a busy machine.
    server = start(SCRIPT, MLPACK_TIMEOUT="2").wait()
    assert server.ask(body=hang)[0] == 504
    assert server.ask(body=b"good") == (200, b'"good"')
    assert server.ask("/", None)[0] == 200
    assert server.stop() == 0


# A script that does not let itself be interrupted, as one that hangs in C code does.
STUBBORN = """
import time
def init(): pass
def run(data):
    while data == "hang":
        try: time.sleep(1000)
        except BaseException: pass
    return data
"""


def test_a_hang_shows_and_does_not_keep_it_from_ending(start: Start) -> None:
    server = start(STUBBORN, MLPACK_TIMEOUT="0.3", MLPACK_GRACE="1").wait()
    assert server.ask(body=b"hang")[0] == 504
    deadline = time.monotonic() + 60
    while server.ask("/", None) != (503, b"scoring hangs"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert server.ask("/v2/health/live", None)[0] == 503
    assert server.stop() == 1
    assert "scoring does not end" in server.said()


def test_what_is_in_work_is_finished(start: Start) -> None:
    server = start(SCRIPT).wait()
    connections = [server.connect() for _ in range(3)]
    for connection in connections:
        connection.request("POST", "/score", b"for 0.7")
    time.sleep(0.3)
    assert server.ask("/", None) == (200, b"Healthy")
    server.process.send_signal(signal.SIGTERM)
    for connection in connections:
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b'"for 0.7"')
    assert server.process.wait(30) == 0


def test_health_is_answered_while_a_run_lasts(start: Start, tmp_path: Path) -> None:
    server = start(SCRIPT).wait()
    ended = tmp_path / "ended"
    connection = server.connect()
    connection.request("POST", "/score", f"until {ended}")
    eventually(ended.with_suffix(".begun").exists)
    for _ in range(20):
        assert server.ask("/", None) == (200, b"Healthy")
    assert select.select([connection.sock], [], [], 0)[0] == [], "it is still running"
    ended.touch()
    assert connection.getresponse().status == 200
    connection.close()
    assert server.stop() == 0


def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    server = start(SCRIPT, MLPACK_DRAIN="100").wait()
    server.process.send_signal(signal.SIGINT)
    eventually(lambda: server.ask("/", None) == (503, b"stopping"))
    assert server.ask(body=b"still") == (200, b'"still"')
    assert server.stop(signal.SIGINT) == 0


class Load(threading.Thread):
    """Requests one after the other until no connection can be made any more."""

    def __init__(self, server: Server, sent: str, keep: bool, stopping: threading.Event) -> None:
        super().__init__()
        self._server, self._sent, self._keep, self._stopping = server, sent, keep, stopping
        self.answered, self.lost = 0, ""

    def run(self) -> None:
        while True:
            connection = self._server.connect(5)
            try:
                connection.connect()
                connection.sock.settimeout(60)
            except OSError:  # refused, or not taken any more
                if not self._stopping.is_set():
                    self.lost = "refused while it was serving"
                return
            try:
                self._ask(connection)
            except (OSError, http.client.HTTPException) as error:
                self.lost = repr(error)
                return
            finally:
                connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        while True:
            connection.request("POST", "/score", self._sent)
            answer = connection.getresponse()
            content = answer.read()
            if (answer.status, content) != (200, f'"{self._sent}"'.encode()):
                self.lost = f"{answer.status} {content!r}"
            self.answered += 1
            if not self._keep or answer.will_close:
                return


@pytest.mark.parametrize("sent", ["for 0.001", "short"])
def test_a_stop_under_load_loses_no_request(sent: str, start: Start) -> None:
    server = start(SCRIPT, MLPACK_DRAIN="0.5").wait()
    stopping = threading.Event()
    clients = [Load(server, sent, keep, stopping) for keep in (True, False) * 6]
    for client in clients:
        client.start()
    eventually(lambda: all(client.answered > 5 or client.lost for client in clients))
    stopping.set()
    assert server.stop() == 0
    for client in clients:
        client.join(60)
    assert [client.lost for client in clients if client.lost] == []
    answered = sum(client.answered for client in clients)
    assert answered == server.requests()


def send_large(server: Server, head: str, chunk: bytes, count: int) -> bytes:
    """Send a request without end in sight, as long as the server takes it; the answer's head."""
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        connection.sendall(head.encode())
        try:
            for _ in range(count):
                connection.sendall(chunk)
        except ConnectionError:
            pass
        return connection.recv(4096)


@pytest.mark.parametrize("length", ["Content-Length: 1073741824", "Transfer-Encoding: chunked"])
def test_a_body_of_a_gigabyte_is_refused(length: str, start: Start) -> None:
    server = start(SCRIPT, MLPACK_MAX_BODY="1000000").wait()
    before = peak(server)
    chunk = bytes(1 << 20)
    if "chunked" in length:
        chunk = b"%x\r\n%s\r\n" % (len(chunk), chunk)
    head = f"POST /score HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n"
    assert send_large(server, head, chunk, 1024).startswith(b"HTTP/1.1 413 ")
    assert peak(server) - before < 16 << 10
    assert server.ask(body=b"good") == (200, b'"good"')
    assert server.stop() == 0


def peak(server: Server) -> int:
    """The most memory the process has had, in KiB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])


def test_a_body_that_never_comes(start: Start) -> None:
    server = start(SCRIPT, MLPACK_TIMEOUT="2").wait()
    head = b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123"
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        connection.sendall(head)
        assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")
    for sent in (head, b"POST /score", b"nonsense\r\n\r\n", b"\x16\x03\x01\x02"):
        with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
            connection.sendall(sent)
    assert server.ask(body=b"good") == (200, b'"good"')
    assert server.stop() == 0
