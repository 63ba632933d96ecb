"""The ASGI application: all routes, and a line in the log and figures for each request."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import logs
from ..answers import to_json
from ..module import record
from ..problems import Problem
from ..scorer import JSON
from . import oip, openapi, page, score

if TYPE_CHECKING:
    from ..module import Module

_log = logging.getLogger("mlpack_runtime")


def application(module: Module) -> Starlette:
    """Everything that a module answers over HTTP."""
    routes = [
        *score.routes(module),
        *oip.routes(module),
        *openapi.routes(module),
        *page.routes(module),
    ]
    known = sorted({route.path for route in routes if "{" not in route.path})

    async def unknown(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        what = "is not answered" if status == 405 else "is not known"
        message = f"{request.method} {request.url.path} {what}: {', '.join(known)}"
        headers = getattr(error, "headers", None)
        if (request.url.path + "/").startswith("/v2/"):
            return oip.error(status, message, headers)
        return Response(to_json({"message": message}), status, headers, JSON)

    return Starlette(
        routes=routes,
        middleware=[Middleware(Recorder, module=module)],
        exception_handlers={404: unknown, 405: unknown, Problem: _problem},
    )


async def _problem(_: Request, error: Exception) -> Response:
    if not isinstance(error, Problem):
        raise error
    headers = dict(error.headers)
    return Response(to_json(error.to_json()), error.status, headers, JSON)


class Recorder:
    """Logs and counts requests; closes connections when the module is about to stop."""

    def __init__(self, app: ASGIApp, module: Module) -> None:
        self._app = app
        self._module = module
        self._info = module.settings.level <= logging.INFO
        self._debug = module.settings.level <= logging.DEBUG

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        described: dict[str, object] = {"status": 500, "bytes": 0}
        token = record.set(described)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                described["status"] = message["status"]
                if self._module.draining:
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            else:
                described["bytes"] = int(str(described["bytes"])) + len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            _log.error("a request could not be answered", exc_info=error)
            await score.respond(sending, score.refusal(Problem("the module's log says more")))
        finally:
            record.reset(token)
            self._note(scope, described, time.perf_counter() - start)

    def _note(self, scope: Scope, described: dict[str, object], seconds: float) -> None:
        status = int(str(described["status"]))
        route = scope.get("route")
        path = route.path if route is not None else "other"
        self._module.metrics.request(path, status, seconds)
        # Probes come every few seconds, for years, and a device's log is kept on flash memory.
        quiet = scope["method"] == "GET" and path != "/score" and status < 400
        if self._debug if quiet else self._info:
            logs.write(
                "debug" if quiet else "info",
                {
                    "message": "request",
                    "method": scope["method"],
                    "path": scope["path"],
                    "ms": round(seconds * 1000, 3),
                    **described,
                },
            )
