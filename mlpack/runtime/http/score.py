"""``POST /score`` and the health of a module, as Azure ML's images answer them.

Behaviour: azureml-inference-server-http 1.5.1, ``server/routes.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from secrets import token_hex
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ..answers import to_json
from ..module import record
from ..problems import Failed, LongHeader, Problem
from ..scorer import JSON, Payload, Reply
from .body import read_body
from .metrics import exposition

if TYPE_CHECKING:
    from ..module import Module

PATH = "/score"
_METHODS = ("GET", "OPTIONS", "POST")
_IDS = ("x-request-id", "x-ms-request-id", "x-ms-client-request-id")
_MOST_ID = 100
"""Characters of a request's id, as Azure ML's server allows."""

_log = logging.getLogger("mlpack_runtime")


def routes(module: Module) -> list[Route]:
    """What this part answers."""

    async def metrics(request: Request) -> Response:
        kind, text = exposition(module, request.headers.get("accept", ""))
        return Response(text, media_type=kind, headers={"content-type": kind})

    endpoint = Score(module)
    return [
        Route(PATH, endpoint, methods=endpoint.methods),
        Route("/metrics", metrics, methods=["GET"]),
    ]


def healthy(module: Module) -> Response:
    """Azure ML's word for it, or 503 with the reason."""
    if module.ready:
        return PlainTextResponse("Healthy")
    reason = "stopping" if module.live else "scoring hangs"
    return PlainTextResponse(reason, 503)


class Score:
    """An ASGI application for ``/score``; Starlette's own requests and responses cost more."""

    def __init__(self, module: Module) -> None:
        self._module = module
        # A script may read arguments from the address; a model alone has no use for them.
        self.methods = ("OPTIONS", "POST") if module.scorer.generic else _METHODS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await respond(send, await self.reply(scope, receive))

    async def reply(self, scope: Scope, receive: Receive) -> Reply:
        """The answer to one request."""
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        ids: dict[str, str] = {}
        try:
            ids = _ids(headers)
            content = await read_body(headers, receive, self._module)
            payload = Payload(
                content=content,
                content_type=headers.get("content-type", JSON),
                headers=headers,
                method=scope["method"],
                path=scope["path"],
                query=scope["query_string"].decode("latin-1"),
            )
            if payload.method == "OPTIONS" and not self._module.scorer.raw:
                return Reply(content_type="text/html; charset=utf-8", headers=ids)
            return _success(await self._module.score(payload), ids)
        except Problem as problem:
            return refusal(problem, ids)


def _success(found: object, ids: dict[str, str]) -> Reply:
    described = record.get()
    headers = {"x-ms-run-function-failed": "False", **ids}
    if described is not None and "run_ms" in described:
        headers["x-ms-run-fn-exec-ms"] = f"{described['run_ms']:.3f}"
    if isinstance(found, Reply):
        return Reply(
            status=found.status,
            content=found.content,
            content_type=found.content_type,
            headers={**headers, **found.headers},
        )
    try:
        return Reply(content=to_json(found), headers=headers)
    except (TypeError, ValueError, RecursionError) as error:
        _log.error("the result is not JSON", exc_info=error)
        message = f"the result of scoring is not JSON ({type(error).__name__})"
        raise Failed(message) from error


def refusal(problem: Problem, ids: dict[str, str] | None = None) -> Reply:
    """A problem as an answer."""
    return Reply(
        status=problem.status,
        content=to_json(problem.to_json()),
        headers={"x-ms-run-function-failed": "False", **(ids or {}), **problem.headers},
    )


async def respond(send: Send, reply: Reply, *, close: bool = False) -> None:
    """Send a whole answer."""
    headers = [
        (b"content-type", reply.content_type.encode("latin-1")),
        (b"content-length", b"%d" % len(reply.content)),
        *_encoded(reply.headers.items()),
    ]
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.content})


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(k.encode("latin-1"), v.encode("latin-1", "replace")) for k, v in headers]


def _ids(headers: dict[str, str]) -> dict[str, str]:
    """Azure ML's names of a request, as they are given back; one is made up where none came."""
    for name in _IDS:
        if len(headers.get(name, "")) > _MOST_ID:
            raise LongHeader(f"{name} must not exceed {_MOST_ID} characters", field=name)
    own = headers.get("x-request-id") or token_hex(16)
    described = record.get()
    if described is not None:
        described["id"] = own
    found = {"x-request-id": own}
    legacy = headers.get("x-ms-request-id") or headers.get("x-ms-client-request-id")
    if legacy:
        found["x-ms-request-id"] = legacy
        found["x-ms-client-request-id"] = headers.get("x-ms-client-request-id") or legacy
    return found
