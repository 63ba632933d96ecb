"""The Open Inference Protocol v2 over HTTP: what KServe's and Triton's clients speak.

Errors are ``{"error": "…"}``; bodies may hold tensors as bytes (:mod:`.oip_messages`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..problems import BadRequest, Problem
from ..tensors import from_octets
from .body import read_body
from .oip_messages import JSON_LENGTH, InferRequest, make_answer, metadata, parse_request

if TYPE_CHECKING:
    from ..module import Module

SERVER = {"name": "mlpack_runtime", "version": "1", "extensions": ["binary_tensor_data"]}
"""What is said of the server itself."""

_SMALL = 64 * 1024
"""Bytes of a body that are read in no time; more are read on another thread."""


def routes(module: Module) -> list[Route]:
    """The protocol's paths, those of the model with and without a version."""
    protocol = _Protocol(module)
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
    """The answers of one module."""

    def __init__(self, module: Module) -> None:
        self._module = module

    async def server(self, _: Request) -> Response:
        return _json(200, SERVER)

    async def live(self, _: Request) -> Response:
        live = self._module.live
        return _json(200 if live else 503, {"live": live})

    async def ready(self, _: Request) -> Response:
        # The protocol's text says "live" here, too; KServe's clients read "ready".
        ready = self._module.ready
        return _json(200 if ready else 503, {"live": self._module.live, "ready": ready})

    async def model(self, _: Request) -> Response:
        scorer, identity = self._module.scorer, self._module.identity
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
        ready = self._module.ready
        return _json(200 if ready else 503, {"name": self._module.identity.name, "ready": ready})

    async def infer(self, request: Request) -> Response:
        module = self._module
        if not module.scorer.tensors:
            raise BadRequest(f"{module.identity.name} takes no tensors: POST /score")
        asked = await self._read(request)
        results = await module.infer(asked.inputs)
        answer = make_answer(asked, results, module.identity.name, module.identity.version)
        if answer.json_length is None:
            return Response(answer.body, media_type="application/json")
        headers = {JSON_LENGTH: str(answer.json_length)}
        return Response(answer.body, headers=headers, media_type="application/octet-stream")

    async def _read(self, request: Request) -> InferRequest:
        signature = self._module.scorer.signature
        body = await read_body(request.headers, request.receive, self._module)
        header = request.headers.get(JSON_LENGTH)
        if header == "0" and signature is not None:
            # Triton's "raw binary request": nothing but the only input, answered in bytes.
            return InferRequest(inputs=from_octets(body, {}, signature), binary=True)
        if len(body) > _SMALL:
            return await run_in_threadpool(parse_request, body, header, signature)
        return parse_request(body, header, signature)

    def of_model(
        self, handler: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """``handler`` for the one model there is; 404 for others; errors as the protocol's."""
        known = self._module.identity

        async def handle(request: Request) -> Response:
            asked = request.path_params
            if asked["name"] != known.name:
                return error(404, f"there is no model {asked['name']}: it is {known.name}")
            if asked.get("version", known.version) != known.version:
                return error(404, f"there is no version {asked['version']}: it is {known.version}")
            try:
                return await handler(request)
            except Problem as problem:
                return error(problem.status, problem.message, problem.headers)

        return handle


def error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """What the protocol answers where something is wrong."""
    return _json(status, {"error": message}, headers)


def _json(status: int, value: object, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, media_type="application/json")
