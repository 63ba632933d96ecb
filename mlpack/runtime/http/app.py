"""The ASGI application: all routes, and a line in the log and figures for each request."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from .. import logs
from ..answers import to_json
from ..module import record
from ..problems import Problem
from ..scorer import JSON, Reply
from . import oip, openapi, page, score

if TYPE_CHECKING:
    from ..module import Module

_Handlers = Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]]

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
        message = f"{request.method} {request.url.path} {what}; there is {', '.join(known)}"
        headers = getattr(error, "headers", None)
        if (request.url.path + "/").startswith("/v2/"):
            return oip.error(status, message, headers)
        return Response(to_json({"message": message}), status, headers, JSON)

    return Application(module, routes, {404: unknown, 405: unknown, Problem: _problem})


async def _problem(_: Request, error: Exception) -> Response:
    if not isinstance(error, Problem):
        raise error
    headers = dict(error.headers)
    return Response(to_json(error.to_json()), error.status, headers, JSON)


class Application(Starlette):
    """Starlette, with what every request gets; ``/score`` goes past it, which halves its price."""

    def __init__(self, module: Module, routes: Sequence[Route], handlers: _Handlers) -> None:
        super().__init__(routes=routes, exception_handlers=handlers)
        self._module = module
        self._score = score.Score(module)
        self._info = module.settings.level <= logging.INFO
        self._debug = module.settings.level <= logging.DEBUG

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        start = time.perf_counter()
        described: dict[str, Any] = {}
        token = record.set(described)
        try:
            if scope["path"] == score.PATH and scope["method"] in self._score.methods:
                path = score.PATH
                status, size = await self._answer_score(scope, receive, send)
            else:
                status, size = await self._answer_other(scope, receive, send)
                route = scope.get("route")
                path = route.path if route is not None else "other"
        finally:
            record.reset(token)
            self._module.held -= described.get("received", 0)
        seconds = time.perf_counter() - start
        self._module.metrics.request(path, status, seconds)
        # Probes come every few seconds, for years, and a device's log is kept on flash memory.
        quiet = scope["method"] == "GET" and path != score.PATH and status < 400
        if self._debug if quiet else self._info:
            line = {
                "message": "request",
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "bytes": size,
                "ms": round(seconds * 1000, 3),
            }
            logs.write("debug" if quiet else "info", line | described)

    async def _answer_score(self, scope: Scope, receive: Receive, send: Send) -> tuple[int, int]:
        try:
            reply = await self._score.reply(scope, receive)
        except Exception as error:
            reply = _unforeseen(error)
        await score.respond(send, reply, close=self._module.draining)
        return reply.status, len(reply.content)

    async def _answer_other(self, scope: Scope, receive: Receive, send: Send) -> tuple[int, int]:
        status, size = 0, 0

        async def sending(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._module.draining:
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            await super().__call__(scope, receive, sending)
        except Exception as error:
            reply = _unforeseen(error)
            if not status:
                await score.respond(sending, reply)
        return status, size


def _unforeseen(error: Exception) -> Reply:
    _log.error("a request could not be answered", exc_info=error)
    return score.refusal(Problem("the request could not be answered; the module's log says more"))
