"""HTTPS servers on loopback that a private authority vouches for, and tokens to call them with.

A double is a function from :class:`Request` to :data:`Answer`; :func:`served` is what carries it.
The certificates are those of :class:`tests.e2e.wire.Certificate`.
"""

from __future__ import annotations

import json
import secrets
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.e2e.wire import Certificate

Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers, body."""

HIDDEN = frozenset({"authorization", "x-identity-header"})
"""Headers that hold secrets."""


@dataclass(frozen=True)
class Request:
    """One request, whole."""

    method: str
    target: str
    """Path and query as they were sent."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""

    body: bytes = b""

    @cached_property
    def path(self) -> str:
        """The path, without percent signs."""
        return unquote(urlsplit(self.target).path)

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The query; a key that is there twice has its last value."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def shown(self) -> Mapping[str, str]:
        """The headers without secrets."""
        return {
            key: f"{value.partition(' ')[0]} …" if key in HIDDEN else value
            for key, value in self.headers.items()
        }

    def json(self) -> object:
        """The body as JSON; raise :class:`ValueError` where it is none."""
        return json.loads(self.body)


def as_json(status: int, document: object, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer with a JSON body."""
    known = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    return status, known, json.dumps(document).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave in one piece at once: in two, each answer may wait for 40 ms.
    disable_nagle_algorithm = True
    wbufsize = -1
    double: Callable[[Request], Answer]

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def handle_one(self) -> None:
        headers = {key.lower(): value for key, value in self.headers.items()}
        asked = Request(self.command, self.path, headers, self._body(headers))
        status, known, content = type(self).double(asked)
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **known}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(headers.get("content-length") or 0))
        found = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that trust nobody, or hang up, are part of the tests."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def served(answer: Callable[[Request], Answer], certificate: Certificate) -> Iterator[str]:
    """Serve ``answer`` over TLS until the block ends; the value is ``https://localhost:PORT``."""
    handler = type("Handler", (_Handler,), {"double": staticmethod(answer)})
    server = _Server(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain, certificate.key)
    # Hands are shaken in each connection's own thread, so that no client stops the others.
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"https://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Tokens:
    """A managed identity's token endpoint, as App Service has one and azure-identity looks for.

    Set ``IDENTITY_ENDPOINT`` to ``{url}/identity`` and ``IDENTITY_HEADER`` to :attr:`header`.
    """

    header: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)
    lifetime: int = 3600
    issued: dict[str, tuple[str, float]] = field(default_factory=dict, repr=False)
    """Audience and end of each token, by token."""

    def answer(self, asked: Request) -> Answer:
        """Give a token for the resource that is asked for."""
        if asked.headers.get("x-identity-header") != self.header:
            return as_json(401, {"error": "invalid_client"})
        resource = asked.query.get("resource", "")
        if not resource:
            return as_json(400, {"error": "invalid_resource"})
        token, ends = secrets.token_urlsafe(24), time.time() + self.lifetime
        self.issued[token] = (resource.rstrip("/"), ends)
        return as_json(
            200,
            {
                "access_token": token,
                "token_type": "Bearer",
                "resource": resource,
                "expires_on": str(int(ends)),
            },
        )

    def allows(self, authorization: str, resource: str) -> bool:
        """Whether a header holds a token for ``resource`` that has not ended."""
        kind, _, token = authorization.partition(" ")
        audience, ends = self.issued.get(token, ("", 0.0))
        return kind == "Bearer" and audience == resource.rstrip("/") and time.time() < ends
