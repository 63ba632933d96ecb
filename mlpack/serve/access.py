"""Who may use the registry: one user with a password (RFC 7617), or everyone on this machine."""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mlpack.serve.errors import Refused
from mlpack.stores.exchange import is_loopback

CHALLENGE = {"www-authenticate": 'Basic realm="mlpack"'}


@dataclass(frozen=True)
class Login:
    """The one user."""

    user: str
    password: str = field(repr=False)

    def fits(self, authorization: str) -> bool:
        """Whether this header names the user and the password; compared in constant time."""
        scheme, _, sent = authorization.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            given = base64.b64decode(sent, validate=True)
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(given, f"{self.user}:{self.password}".encode())


class BasicAuth:
    """Passes only requests with the login; the others are challenged."""

    def __init__(self, app: ASGIApp, login: Login) -> None:
        self._app = app
        self._login = login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        given = Headers(scope=scope).get("authorization", "") if scope["type"] == "http" else ""
        if scope["type"] != "http" or self._login.fits(given):
            await self._app(scope, receive, send)
            return
        refused = Refused("UNAUTHORIZED", "this registry asks for its user and password")
        answer = JSONResponse(refused.to_json(), refused.status, headers=CHALLENGE)
        await answer(scope, receive, send)


class ThisMachine:
    """Passes what programs of this machine ask, and nothing that a web page has a browser ask.

    A registry without a user listens on the loopback address, where every browser of the
    machine can reach it: a page whose name leads there (DNS rebinding) says that name as
    ``Host``, and a page elsewhere that writes says where it is from as ``Origin``, which no
    container engine does. With a user neither has the password.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = Headers(scope=scope) if scope["type"] == "http" else None
        if headers is None or (is_loopback(_name(headers)) and "origin" not in headers):
            await self._app(scope, receive, send)
            return
        refused = Refused(
            "DENIED",
            "without a user this registry answers programs of this machine only; "
            "call it localhost or 127.0.0.1, or start it with --user",
        )
        await JSONResponse(refused.to_json(), refused.status)(scope, receive, send)


def _name(headers: Headers) -> str:
    """The name in ``Host``, without its port."""
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""
