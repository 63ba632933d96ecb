"""HTTP around a scorer, as Azure ML's images answer: ``GET /`` and ``POST /score``.

The model is loaded before the port is opened, so whoever can connect can score.
"""

from __future__ import annotations

import logging
import threading

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from .scoring import BadRequest, Scorer, open_scorer
from .settings import NotServable, Settings

MOST_BODY = 64 * 1024 * 1024
"""Bytes of a request; more is refused before it is read whole."""

_GRACE_SECONDS = 10
_log = logging.getLogger("mlpack_runtime")


def serve(settings: Settings) -> int:
    """Load the model and answer requests until a signal; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        scorer = open_scorer(settings)
    except NotServable as error:
        _log.error("%s", error)
        return 1
    _log.info("ready on port %d, model %s", settings.port, settings.model_dir)
    uvicorn.run(
        application(scorer),
        host=settings.host,
        port=settings.port,
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    return 0


def application(scorer: Scorer) -> Starlette:
    """The ASGI application around ``scorer``."""
    one_at_a_time = threading.Lock()

    def score(body: bytes) -> Response:
        # Azure ML calls run() in one thread, and scripts are written for that.
        with one_at_a_time:
            return answer(scorer, body)

    async def ready(_: Request) -> Response:
        return PlainTextResponse("Healthy")

    async def post(request: Request) -> Response:
        body = await _body(request)
        if body is None:
            return _json(413, {"message": f"the request is larger than {MOST_BODY} bytes"})
        return await run_in_threadpool(score, body)

    routes = [
        Route("/", ready, methods=["GET"]),
        Route("/score", post, methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={404: _unknown, 405: _unknown})


def answer(scorer: Scorer, body: bytes) -> Response:
    """Score one request; the statuses and the form of an error are Azure ML's.

    200 with the result as JSON, 400 where the request makes no sense, 500 where scoring fails.
    """
    try:
        result = scorer.score(body)
        return _json(200, result)
    except BadRequest as error:
        return _json(400, {"message": str(error)})
    except Exception as error:
        # The log gets the whole of it, the caller the name: values may be confidential.
        _log.exception("scoring failed")
        message = f"scoring failed with {type(error).__name__}; the log of the module says more"
        return _json(500, {"message": message}, {"x-ms-run-function-failed": "True"})


def _json(status: int, value: object, headers: dict[str, str] | None = None) -> Response:
    content = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    return Response(content, status, headers, media_type="application/json")


async def _body(request: Request) -> bytes | None:
    """The request's body, or ``None`` where it is larger than allowed."""
    found = bytearray()
    try:
        async for chunk in request.stream():
            found += chunk
            if len(found) > MOST_BODY:
                return None
    except ClientDisconnect:
        return b""
    return bytes(found)


async def _unknown(request: Request, _: Exception) -> Response:
    path = request.url.path
    if path in ("/", "/score"):
        return _json(
            405, {"message": f"{request.method} {path} is not answered: POST /score, GET /"}
        )
    return _json(404, {"message": f"there is no {path}: POST /score, GET /"})
