"""The ASGI application: all routes, and a log line and metrics for each request."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import telemetry
from ..codec import to_json
from ..http_errors import HttpError
from ..scorer import JSON
from . import body, oip, openapi, page, score
from .cors import Cors

if TYPE_CHECKING:
    from ..scoring_service import ScoringService

_Handlers = Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]]


def application(service: ScoringService) -> ASGIApp:
    """Return the application that serves everything over HTTP."""
    endpoint = score.ScoreEndpoint(service)

    async def metrics(request: Request) -> Response:
        accept = request.headers.get("accept", "")
        kind, text = telemetry.exposition(lambda: _families(service), accept)
        return Response(text, media_type=kind, headers={"content-type": kind})

    routes = [
        Route(score.PATH, endpoint, methods=endpoint.methods),
        Route("/metrics", metrics, methods=["GET"]),
        *oip.routes(service),
        *openapi.routes(service),
        *page.routes(service),
    ]
    known = sorted({route.path for route in routes if "{" not in route.path})

    async def unknown(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        what = "is not allowed" if status == 405 else "does not exist"
        message = f"{request.method} {request.url.path} {what}; paths: {', '.join(known)}"
        headers = getattr(error, "headers", None)
        if (request.url.path + "/").startswith("/v2/"):
            return oip.error(status, message, headers)
        return Response(to_json({"message": message}), status, headers, JSON)

    handlers: _Handlers = {404: unknown, 405: unknown, HttpError: _http_error}
    app = Application(service, endpoint, routes, handlers)
    origins = service.settings.cors_origins
    return Cors(app, origins) if origins else app


async def _http_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HttpError):
        raise error
    headers = dict(error.headers)
    return Response(to_json(error.to_json()), error.status, headers, JSON)


class Application(Starlette):
    """Starlette with logging and metrics; ``/score`` bypasses Starlette, which halves its price."""

    def __init__(
        self,
        service: ScoringService,
        endpoint: score.ScoreEndpoint,
        routes: Sequence[Route],
        handlers: _Handlers,
    ) -> None:
        super().__init__(routes=routes, exception_handlers=handlers)
        self._service = service
        self._score = endpoint
        self._level = service.settings.level

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        start = time.perf_counter()
        fields: dict[str, Any] = {}
        token = telemetry.record.set(fields)
        try:
            if scope["path"] == score.PATH and scope["method"] in self._score.methods:
                path = score.PATH
                status, size = await self._score.answer(scope, receive, send)
            else:
                status, size = await self._answer_other(scope, receive, send)
                route = scope.get("route")
                path = route.path if route is not None else "other"
        finally:
            telemetry.record.reset(token)
            self._service.body_bytes -= fields.pop(body.HELD, 0)
        seconds = time.perf_counter() - start
        self._service.metrics.request(path, status, seconds)
        # Probes come every few seconds, for years, and a device's log is kept on flash memory.
        quiet = scope["method"] == "GET" and path != score.PATH and status < 400
        if self._level <= (logging.DEBUG if quiet else logging.INFO):
            line = {
                "message": "request",
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "bytes": size,
                "ms": round(seconds * 1000, 3),
            }
            telemetry.write("debug" if quiet else "info", line | fields)

    async def _answer_other(self, scope: Scope, receive: Receive, send: Send) -> tuple[int, int]:
        status, size = 0, 0

        async def sending(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._service.draining:
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            await super().__call__(scope, receive, sending)
        except Exception as error:
            reply = score.unforeseen(error)
            if not status:
                await score.respond(sending, reply)
        return status, size


def _families(service: ScoringService) -> Iterator[Any]:
    """Return the service's metrics: its counters, its present state, and its model."""
    from prometheus_client.core import GaugeMetricFamily

    yield from service.metrics.families()
    yield GaugeMetricFamily("mlpack_queue_depth", "Requests that wait.", service.depth)
    about = "Time from the start of loading to ready."
    yield GaugeMetricFamily("mlpack_load_seconds", about, service.load_seconds)
    yield GaugeMetricFamily("mlpack_ready", "1 if ready.", float(service.ready))
    names = ["name", "version", "digest", "loaded"]
    model = GaugeMetricFamily("mlpack_model_info", "The model.", labels=names)
    model.add_metric([getattr(service.identity, name) for name in names], 1)
    yield model
