"""Who may use the registry: one user with a password (RFC 7617), or everyone."""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mlpack.serve.errors import Refused

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
