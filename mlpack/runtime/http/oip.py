"""The Open Inference Protocol v2 over HTTP, the protocol of KServe's and Triton's clients.

Errors are ``{"error": "…"}``; bodies may have tensors as bytes (:mod:`.oip_messages`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..http_errors import BadRequest, HttpError
from ..oip_messages import JSON_LENGTH, InferRequest, make_response, metadata, parse_request
from ..tensors import from_octets
from .body import read_body

if TYPE_CHECKING:
    from ..scoring_service import ScoringService

SERVER = {"name": "mlpack_runtime", "version": "1", "extensions": ["binary_tensor_data"]}
"""The server's own metadata."""

_SMALL = 64 * 1024
"""Bytes of a body from which on it is parsed on another thread."""


def routes(service: ScoringService) -> list[Route]:
    """Return the protocol's routes; those of the model with and without a version."""
    protocol = _Protocol(service)
    found = [
        Route("/v2", protocol.server, methods=["GET"]),
        Route("/v2/health/live", protocol.live, methods=["GET"]),
        Route("/v2/health/ready", protocol.ready, methods=["GET"]),
    ]
    for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        found += [
            Route(model, protocol.of_model(protocol.model), methods=["GET"]),
            Route(f"{model}/ready", protocol.of_model(protocol.model_ready), methods=["GET"]),
            Route(f"{model}/infer", protocol.of_model(protocol.infer), methods=["POST"]),
        ]
    return found


class _Protocol:
    """The handlers for one module."""

    def __init__(self, service: ScoringService) -> None:
        self._service = service

    async def server(self, _: Request) -> Response:
        return _json(200, SERVER)

    async def live(self, _: Request) -> Response:
        live = self._service.live
        return _json(200 if live else 503, {"live": live})

    async def ready(self, _: Request) -> Response:
        # The specification has "live" here, too; KServe's clients read "ready".
        ready = self._service.ready
        return _json(200 if ready else 503, {"live": self._service.live, "ready": ready})

    async def model(self, _: Request) -> Response:
        scorer, identity = self._service.scorer, self._service.identity
        signature = scorer.signature if scorer.tensors else None
        described = {
            "name": identity.name,
            "versions": [identity.version],
            "platform": "onnx_onnxv1" if scorer.generic else "python",
            "inputs": metadata(signature.inputs) if signature else [],
            "outputs": metadata(signature.outputs) if signature else [],
        }
        return _json(200, described)

    async def model_ready(self, _: Request) -> Response:
        ready = self._service.ready
        return _json(200 if ready else 503, {"name": self._service.identity.name, "ready": ready})

    async def infer(self, request: Request) -> Response:
        service = self._service
        if not service.scorer.tensors:
            raise BadRequest(f"{service.identity.name} takes no tensors; use POST /score")
        asked = await self._read(request)
        results = await service.infer(asked.inputs)
        made = make_response(asked, results, service.identity.name, service.identity.version)
        if made.json_length is None:
            return Response(made.body, media_type="application/json")
        headers = {JSON_LENGTH: str(made.json_length)}
        return Response(made.body, headers=headers, media_type="application/octet-stream")

    async def _read(self, request: Request) -> InferRequest:
        signature = self._service.scorer.signature
        parse = partial(parse_request, allow_nan=self._service.settings.allow_nan)
        body = await read_body(request.headers, request.receive, self._service)
        header = request.headers.get(JSON_LENGTH)
        if header == "0" and signature is not None:
            # Triton's "raw binary request": bytes of the only input in, bytes out.
            return InferRequest(inputs=from_octets(body, {}, signature), binary=True)
        if len(body) > _SMALL:
            return await run_in_threadpool(parse, body, header, signature)
        return parse(body, header, signature)

    def of_model(
        self, handler: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Wrap ``handler``: 404 for any other model, and errors in the protocol's form."""
        known = self._service.identity

        async def handle(request: Request) -> Response:
            asked = request.path_params
            if asked["name"] != known.name:
                return error(404, f"unknown model {asked['name']}; the model is {known.name}")
            if asked.get("version", known.version) != known.version:
                return error(404, f"unknown version {asked['version']}; it is {known.version}")
            try:
                return await handler(request)
            except HttpError as problem:
                return error(problem.status, problem.message, problem.headers)

        return handle


def error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error in the protocol's form."""
    return _json(status, {"error": message}, headers)


def _json(status: int, value: object, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, media_type="application/json")
