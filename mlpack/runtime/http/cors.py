"""``AML_CORS_ORIGINS``: answers that browsers pass on to pages of other origins.

Behaviour: flask-cors 6.0.5, as azureml-inference-server-http 1.5.1 configures it, with two
differences: a pattern must match the whole origin, and a request without an origin gets no
headers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .score import PATH

_METHODS = ("GET", "POST")
_Headers = list[tuple[bytes, bytes]]


class Cors:
    """An ASGI application that adds the headers to the answers of another."""

    def __init__(self, app: ASGIApp, origins: Sequence[re.Pattern[str]]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        added = self._headers(scope) if scope["type"] == "http" else []

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *added]
            await send(message)

        # Scripts may answer the OPTIONS of /score themselves.
        if added and scope["method"] == "OPTIONS" and scope["path"] != PATH:
            headers = [(b"content-length", b"0")]
            await sending({"type": "http.response.start", "status": 200, "headers": headers})
            await sending({"type": "http.response.body", "body": b""})
        else:
            await self._app(scope, receive, sending if added else send)

    def _headers(self, scope: Scope) -> _Headers:
        """Return the headers of the answer; none if the request's origin is not allowed."""
        given = dict(scope["headers"])
        origin: bytes = given.get(b"origin", b"")
        text = origin.decode("latin-1")
        if not origin or not any(each.fullmatch(text) for each in self._origins):
            return []
        found = [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]
        asked = given.get(b"access-control-request-method", b"").decode("latin-1").upper()
        if scope["method"] == "OPTIONS" and asked in _METHODS:
            found.append((b"access-control-allow-methods", ", ".join(_METHODS).encode()))
            names = given.get(b"access-control-request-headers", b"").split(b",")
            if named := b", ".join(sorted(each.strip() for each in names if each.strip())):
                found.append((b"access-control-allow-headers", named))
        return found
