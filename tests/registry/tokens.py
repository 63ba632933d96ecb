"""A token service on a port of its own, over TLS: signs what docker-registry itself checks.

It speaks as the services of Docker Hub, GHCR and Harbor do (GET with Basic, *Token
Authentication Specification* of distribution), and as ACR does (POST with a refresh token).
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt

from tests.registry.registry import certificate

SERVICE, ISSUER = "registry.tests", "tokens.tests"
LEEWAY_SECONDS = 60
"""How long after its end docker-registry still takes a token."""


@dataclass
class Asked:
    """One request for a token."""

    method: str
    query: dict[str, list[str]]
    login: str


@dataclass
class Rules:
    """Who may do what."""

    passwords: dict[str, str] = field(default_factory=dict)
    refresh: dict[str, str] = field(default_factory=dict)
    """Identity tokens, and whose they are."""

    readers: set[str] = field(default_factory=lambda: {""})
    """Who gets ``pull`` only, whatever is asked for; ``""`` is everybody, as with Docker Hub."""

    posts: bool = True
    """Whether POST is known: Harbor's service answers 405."""

    seconds: float = 300
    """How long a token holds."""


class TokenService(ThreadingHTTPServer):
    """The service, its rules, and what it was asked."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.rules = Rules()
        self.asked: list[Asked] = []
        self.ca = certificate(folder)
        self.key = (folder / "server.key").read_bytes()
        chain = ssl.PEM_cert_to_DER_cert((folder / "server.pem").read_text())
        self.certificate = base64.b64encode(chain).decode()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        self.socket = context.wrap_socket(self.socket, server_side=True)

    @property
    def config(self) -> str:
        """The lines of docker-registry's config that send clients here."""
        realm = f"https://127.0.0.1:{self.server_address[1]}/token"
        return (
            f"auth: {{token: {{realm: '{realm}', service: {SERVICE}, issuer: {ISSUER}, "
            f"rootcertbundle: {self.ca}}}}}\n"
        )

    def token(self, user: str, scopes: list[str]) -> str:
        """What ``user`` may do of ``scopes``, signed."""
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            allowed = [
                each
                for each in actions.split(",")
                if each == "pull" or user not in self.rules.readers
            ]
            access.append({"type": kind, "name": name, "actions": allowed})
        now = time.time()
        claims = {
            "iss": ISSUER,
            "sub": user,
            "aud": SERVICE,
            "nbf": int(now) - 10,
            "iat": int(now),
            "exp": int(now + self.rules.seconds),
            "jti": uuid.uuid4().hex,
            "access": access,
        }
        return jwt.encode(claims, self.key, "ES256", headers={"x5c": [self.certificate]})

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that does not trust us is part of the play."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: TokenService

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        packed = self.headers.get("Authorization", "").removeprefix("Basic ")
        login = base64.b64decode(packed).decode()
        self.server.asked.append(Asked("GET", query, login))
        user, _, password = login.partition(":")
        known = self.server.rules.passwords.get(user) == password if login else True
        self._answer(user if known else None, query.get("scope", []), "token")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = parse_qs(body)
        self.server.asked.append(Asked("POST", form, ""))
        if not self.server.rules.posts:
            self._say(405, {})
            return
        user = self.server.rules.refresh.get(form.get("refresh_token", [""])[0])
        asked = form.get("grant_type") == ["refresh_token"] and form.get("service") == [SERVICE]
        scopes = " ".join(form.get("scope", [])).split()
        self._answer(user if asked else None, scopes, "access_token")

    def _answer(self, user: str | None, scopes: list[str], name: str) -> None:
        if user is None:
            self._say(401, {"errors": [{"code": "UNAUTHORIZED"}]})
        else:
            self._say(200, {name: self.server.token(user, scopes), "expires_in": 60})

    def _say(self, status: int, document: dict[str, object]) -> None:
        body = json.dumps(document).encode()
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def token_service(folder: Path) -> Iterator[TokenService]:
    """The service while the block runs."""
    folder.mkdir(parents=True)
    server = TokenService(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
