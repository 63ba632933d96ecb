"""A network, a proxy, a certificate or a disk that fails is called that, and no requirement."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mlpack.base.mmdebstrap import DebianRequest, unpack
from mlpack.base.network_failure import UV, Unreachable, network_failure
from mlpack.base.python import NoPackages, WheelTarget, resolve
from mlpack.base.wheels import Interpreter
from mlpack.oci.descriptor import Platform
from tests.base.doubles import World
from tests.support import free_port

TARGET = WheelTarget(Platform("linux", "amd64"), Interpreter("python", (3, 11), 36, "opt"))


def failure(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Unreachable:
    """What resolving says with these variables."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"UV_NO_CACHE": "1", "UV_HTTP_RETRIES": "0", **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Unreachable) as caught:
        resolve([Requirement("numpy")], TARGET)
    assert "requirement" not in f"{caught.value} {caught.value.hint}"
    assert "wheel" not in f"{caught.value} {caught.value.hint}"
    return caught.value


@contextmanager
def answering(status: int, certificate: Path | None = None) -> Iterator[int]:
    """A server that answers everything, tunnels too, with ``status``; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_CONNECT = do_GET  # named after the HTTP method

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def self_signed(path: Path, *, days: int) -> Path:
    """Write a key and its certificate for localhost, which is good for ``days`` from yesterday."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    end = datetime.now(UTC) + timedelta(days=days)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(end - timedelta(days=30))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


def test_a_port_that_nobody_listens_on(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    index = f"http://user:secret@127.0.0.1:{port}/simple"
    found = failure(monkeypatch, UV_DEFAULT_INDEX=index)
    assert f"127.0.0.1:{port}: it cannot be reached" in str(found)
    assert "secret" not in str(found)
    assert "UV_DEFAULT_INDEX" in found.hint


def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    found = failure(monkeypatch, UV_DEFAULT_INDEX="https://no-such-host.invalid/simple")
    assert "no-such-host.invalid: its name cannot be resolved" in str(found)


@pytest.mark.parametrize(("days", "why"), [(-5, "expired"), (5, "not trusted here")])
def test_certificates(days: int, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(200, self_signed(tmp_path / "both.pem", days=days)) as port:
        found = failure(monkeypatch, UV_DEFAULT_INDEX=f"https://localhost:{port}/simple")
    assert f"localhost:{port}: its certificate" in str(found)
    assert why in str(found)
    assert "SSL_CERT_FILE" in found.hint


def test_plain_http_where_tls_was_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(200) as port:
        found = failure(monkeypatch, UV_DEFAULT_INDEX=f"https://localhost:{port}/simple")
    assert "does not answer with TLS" in str(found)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (401, "refuses"),
        (403, "refuses"),
        (407, "proxy"),
        (429, "it fails"),
        (500, "it fails"),
        (502, "it fails"),
        (503, "it fails"),
    ],
)
def test_an_index_that_answers_with(status: int, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(status) as port:
        found = failure(monkeypatch, UV_DEFAULT_INDEX=f"http://localhost:{port}/simple")
    assert why in str(found)
    assert f"localhost:{port}" in str(found)


@pytest.mark.parametrize("status", [403, 407])
def test_a_proxy_that_refuses(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(status) as port:
        found = failure(
            monkeypatch,
            HTTPS_PROXY=f"http://127.0.0.1:{port}",
            UV_DEFAULT_INDEX="https://pypi.example/simple",
        )
    assert "the proxy cannot be used" in str(found)
    assert "https_proxy" in found.hint


def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        index = f"http://127.0.0.1:{port}/simple"
        found = failure(monkeypatch, UV_DEFAULT_INDEX=index, UV_HTTP_TIMEOUT="1")
    assert "does not answer in time" in str(found)
    assert "UV_HTTP_TIMEOUT" in found.hint


def test_uv_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "UV_OFFLINE" in failure(monkeypatch, UV_OFFLINE="1").hint


def test_a_full_disk() -> None:
    written = "error: Failed to write to the cache\n  cause: No space left on device (os error 28)"
    found = network_failure(written, UV)
    assert found is not None
    assert "the disk is full" in str(found)


def test_requirements_that_no_wheel_meets_are_called_that(world: World) -> None:
    with pytest.raises(NoPackages) as refused:
        resolve([Requirement("timed-out-connection-refused")], TARGET)
    assert "requirements.in" in refused.value.hint


@pytest.mark.parametrize(
    ("mirror", "why"),
    [
        ("http://127.0.0.1:{port}/debian", "it cannot be reached"),
        ("http://no-such-host.invalid/debian", "its name cannot be resolved"),
    ],
)
def test_apt(mirror: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    request = DebianRequest(
        suite="bookworm",
        architecture="amd64",
        packages=("libc6",),
        mirror=mirror.format(port=free_port()),
    )
    with pytest.raises(Unreachable) as caught:
        unpack(request, tmp_path, lambda _: None)
    assert why in str(caught.value)
    assert "[base] mirror" in caught.value.hint
