"""A real registry (docker-registry) on loopback, ended by its process id."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import free_port, require, unavailable

PROGRAM = Path("/usr/bin/docker-registry")
USER, PASSWORD = "edge", "s3cret-word"
_BCRYPT = "$2b$04$6uNWvefSOM1auNqMsKFyGuj0dBHXKmRPODDQykyjNMfayv3Y/wpFC"
START_SECONDS = 60


@dataclass(frozen=True)
class Registry:
    """Where it listens, and where its files lie."""

    host: str
    folder: Path
    ca: Path | None = None


@contextmanager
def running(
    folder: Path, *, login: bool = False, tls: bool = False, auth: str = ""
) -> Iterator[Registry]:
    """Start a registry with its data in ``folder``; with ``login`` it wants USER and PASSWORD.

    ``auth`` is another way to log in, as its config has it.
    """
    require(PROGRAM)
    folder.mkdir(parents=True)
    port = free_port()
    ca = certificate(folder) if tls else None
    (folder / "config.yml").write_text(_config(folder, port, login, tls) + auth)
    command = [str(PROGRAM), "serve", str(folder / "config.yml")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait(process, port, folder)
        yield Registry(f"127.0.0.1:{port}", folder, ca)
    finally:
        process.terminate()
        process.wait(timeout=START_SECONDS)


def _config(folder: Path, port: int, login: bool, tls: bool) -> str:
    lines = [
        "version: 0.1",
        "log: {level: warn}",
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}",
        "http:",
        f"  addr: 127.0.0.1:{port}",
        "  secret: only-for-tests",
    ]
    if tls:
        lines.append(f"  tls: {{certificate: {folder}/server.pem, key: {folder}/server.key}}")
    if login:
        (folder / "htpasswd").write_text(f"{USER}:{_BCRYPT}\n")
        lines.append(f"auth: {{htpasswd: {{realm: tests, path: {folder}/htpasswd}}}}")
    return "\n".join(lines) + "\n"


def certificate(folder: Path) -> Path:
    """A certificate authority of our own, and a certificate of it for 127.0.0.1; the CA's path."""
    openssl = require(Path(shutil.which("openssl") or "/usr/bin/openssl"))
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    _run(
        *(str(openssl), "req", "-x509", *curve, "-days", "2", "-subj", "/CN=tests"),
        *("-addext", "basicConstraints=critical,CA:TRUE"),
        *("-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.pem"),
    )
    _run(
        *(str(openssl), "req", "-x509", *curve, "-days", "2", "-subj", "/CN=127.0.0.1"),
        *("-CA", f"{folder}/ca.pem", "-CAkey", f"{folder}/ca.key"),
        *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:registry.test"),
        *("-addext", "basicConstraints=critical,CA:FALSE"),
        *("-keyout", f"{folder}/server.key", "-out", f"{folder}/server.pem"),
    )
    return folder / "ca.pem"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _wait(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                unavailable(f"docker-registry did not start: {(folder / 'log').read_text()}")
            time.sleep(0.05)
