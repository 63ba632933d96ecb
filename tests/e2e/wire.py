"""A registry of our own, certificates for it, and a proxy that counts what passes."""

from __future__ import annotations

import functools
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.engines import needs, run
from tests.support import free_port, lasting_folder, unavailable

START_SECONDS = 60
LEAF_BYTES, INTERMEDIATE_BYTES = 1228, 795
"""DER bytes of the chain :data:`mlpack.plan.engines.PER_CONNECTION` was measured with."""

_LOGGED = re.compile(r'"(GET|HEAD|POST|PUT|PATCH) (\S+) HTTP/[\d.]+" (\d{3}) (\d+)')


@dataclass(frozen=True, slots=True)
class Count:
    """TCP payload that passed a proxy, in bytes."""

    sent: int = 0
    """From the client."""

    received: int = 0
    connections: int = 0

    @property
    def total(self) -> int:
        """Both directions."""
        return self.sent + self.received


class CountingProxy:
    """Relays TCP to ``target`` on the loopback address, and counts.

    ``delay`` seconds pass before either side hears what the other said, as on any link.
    """

    def __init__(self, target: int, delay: float) -> None:
        self._target = target
        self._delay = delay
        self._lock = threading.Lock()
        self._sent = self._received = self._connections = self._open = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    @classmethod
    @contextmanager
    def started(cls, target: int, *, delay: float = 0) -> Iterator[CountingProxy]:
        """Relay until the block ends."""
        proxy = cls(target, delay)
        threading.Thread(target=proxy._accept, daemon=True).start()
        try:
            yield proxy
        finally:
            # Closing alone does not wake a thread that waits in accept.
            with suppress(OSError):
                proxy._listener.shutdown(socket.SHUT_RDWR)
            proxy._listener.close()

    def take(self, *, wait: float = 5.0) -> Count:
        """What passed since the last call, once all connections are closed."""
        deadline = time.monotonic() + wait
        while self._open and time.monotonic() < deadline:
            time.sleep(0.01)
        with self._lock:
            found = Count(self._sent, self._received, self._connections)
            self._sent = self._received = self._connections = 0
        return found

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            with self._lock:
                self._connections += 1
                self._open += 1
            threading.Thread(target=self._relay, args=(client, server), daemon=True).start()

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        up = threading.Thread(target=self._pump, args=(client, server, True), daemon=True)
        up.start()
        self._pump(server, client, False)
        up.join()
        client.close()
        server.close()
        with self._lock:
            self._open -= 1

    def _pump(self, source: socket.socket, sink: socket.socket, upward: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                with self._lock:
                    if upward:
                        self._sent += len(data)
                    else:
                        self._received += len(data)
                time.sleep(self._delay)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        if not upward:
            # The server is done: what the client still says reaches nobody.
            with suppress(OSError):
                source.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Certificate:
    """A chain for the loopback address, and the authority that signed it."""

    ca: Path
    chain: Path
    key: Path

    @classmethod
    def made(cls, folder: Path, *names: str) -> Certificate:
        """An EC leaf and intermediate, each filled up to the size of the measured ones.

        The leaf is for ``names``, too (``*.blob.localhost``).
        """
        needs("openssl")
        folder.mkdir(parents=True)
        _sign(folder, "ca", "", 0)
        _sign(folder, "intermediate", "ca", INTERMEDIATE_BYTES)
        _sign(folder, "leaf", "intermediate", LEAF_BYTES, names)
        chain = folder / "chain.pem"
        chain.write_text(
            (folder / "leaf.crt").read_text() + (folder / "intermediate.crt").read_text()
        )
        # podman looks for whole key pairs beside an authority: it stands alone.
        ca = folder / "authority" / "ca.crt"
        ca.parent.mkdir()
        (folder / "ca.crt").rename(ca)
        return cls(ca, chain, folder / "leaf.key")

    @property
    def bytes(self) -> int:
        """DER bytes of the chain."""
        folder = self.chain.parent
        return sum(_der_bytes(folder / f"{name}.crt") for name in ("leaf", "intermediate"))


@functools.cache
def local_certificate() -> Certificate:
    """The certificate of all doubles on localhost and ``*.blob.localhost``."""
    return Certificate.made(lasting_folder() / "pki", "*.blob.localhost")


def _der_bytes(certificate: Path) -> int:
    command = ["openssl", "x509", "-in", str(certificate), "-outform", "DER"]
    return len(subprocess.run(command, check=True, capture_output=True).stdout)


def _sign(folder: Path, name: str, signer: str, wanted: int, names: tuple[str, ...] = ()) -> None:
    key, made = folder / f"{name}.key", folder / f"{name}.crt"
    run("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", str(key))
    fill = 200 if wanted else 0
    # A signature is 70 to 72 bytes: try until the size is met.
    for _ in range(50):
        _sign_once(folder, name, signer, fill, names)
        if not wanted or (size := _der_bytes(made)) == wanted:
            return
        fill += wanted - size
    raise AssertionError(f"no certificate of {wanted} bytes")


def _sign_once(folder: Path, name: str, signer: str, fill: int, names: tuple[str, ...]) -> None:
    authority = name != "leaf"
    lines = [
        f"basicConstraints=critical,CA:{'TRUE' if authority else 'FALSE'}",
        "keyUsage=critical," + ("keyCertSign,cRLSign" if authority else "digitalSignature"),
        ",".join(["subjectAltName=IP:127.0.0.1,DNS:localhost", *(f"DNS:{each}" for each in names)]),
    ]
    lines += [f"nsComment={'x' * fill}"] if fill else []
    (folder / "extensions").write_text("\n".join(lines))
    key, request = folder / f"{name}.key", folder / "request"
    subject = ["-subj", f"/CN=mlpack test {name}"]
    run("openssl", "req", "-new", "-key", str(key), *subject, "-out", str(request))
    by = ["-signkey", str(key)]
    if signer:
        by = ["-CA", str(folder / f"{signer}.crt"), "-CAkey", str(folder / f"{signer}.key")]
    made = ["-out", str(folder / f"{name}.crt"), "-extfile", str(folder / "extensions")]
    asked = ["-req", "-in", str(request), "-days", "30", "-set_serial", "1"]
    run("openssl", "x509", *asked, *by, *made)


class DockerRegistry:
    """Debian's docker-registry, with a log that says what each answer's body weighed."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._log = folder / f"{port}.log"
        self._read = 0

    @classmethod
    @contextmanager
    def started(
        cls, folder: Path, certificate: Certificate | None = None
    ) -> Iterator[DockerRegistry]:
        """Serve what is in ``folder``; several may serve the same one."""
        needs("docker-registry")
        folder.mkdir(parents=True, exist_ok=True)
        registry = cls(folder, free_port())
        settings = folder / f"{registry.port}.yml"
        settings.write_text(_settings(folder, registry.port, certificate))
        command = ["/usr/bin/docker-registry", "serve", str(settings)]
        with registry._log.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            registry._wait(process)
            yield registry
        finally:
            process.terminate()
            process.wait(timeout=START_SECONDS)

    def bodies(self) -> int:
        """Bytes of the bodies of all answers to GET since the last call."""
        with self._log.open() as log:
            log.seek(self._read)
            lines = log.read()
            self._read = log.tell()
        found = _LOGGED.findall(lines)
        return sum(
            int(size) for method, _, status, size in found if (method, status[0]) == ("GET", "2")
        )

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            if process.poll() is not None or time.monotonic() > deadline:
                unavailable(f"docker-registry did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.05)


def _settings(folder: Path, port: int, certificate: Certificate | None) -> str:
    lines = [
        "version: 0.1",
        "log: {level: error}",
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}",
        "validation: {manifests: {urls: {allow: ['^https://example\\.invalid/']}}}",
        "http:",
        f"  addr: 127.0.0.1:{port}",
        # Without a secret of its own, two on one folder would not read each other's uploads.
        "  secret: for-tests",
    ]
    if certificate:
        lines.append(f"  tls: {{certificate: {certificate.chain}, key: {certificate.key}}}")
    return "\n".join(lines) + "\n"
