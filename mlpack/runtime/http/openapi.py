"""``GET /swagger.json``: what this module answers, as an OpenAPI 3 document.

Azure ML's servers have it under the same path, with the same ``?version=``:
``3`` (or ``3.0``) and ``3.1``. The document is within what both say alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .oip_document import protocol_paths, protocol_schemas
from .schemas import ANY, BYTES, TEXT, Schema, answer, by_name, get, readings, ref, shape_of

if TYPE_CHECKING:
    from ..identity import Identity
    from ..module import Module
    from ..scorer import Scorer

VERSIONS = {"3": "3.0.3", "3.0": "3.0.3", "3.1": "3.1.0"}
"""OpenAPI's versions by what ``?version=`` may say."""

_REFUSALS = {
    "400": "The request makes no sense; the message says why.",
    "406": "Accept has no type that the answer can be given in.",
    "408": "The body did not arrive in time.",
    "413": "The body is larger than MLPACK_MAX_BODY bytes.",
    "415": "The module does not take this content type.",
    "431": "A header is too long.",
    "500": "Scoring failed; the module's log says more.",
    "504": "Scoring took longer than MLPACK_TIMEOUT seconds.",
}
_QUERY = {
    "name": "arguments",
    "in": "query",
    "schema": {"type": "object", "additionalProperties": True},
}
_BUSY = "The queue is full, or the module is stopping: try again after Retry-After seconds."


def routes(module: Module) -> list[Route]:
    """The one path of this part."""
    document = describe(module.identity, module.scorer)

    async def swagger(request: Request) -> Response:
        asked = request.query_params.get("version", "3")
        if asked not in VERSIONS:
            message = f"version={asked[:20]} is not known: {', '.join(VERSIONS)}"
            return _json(404, {"message": message, "field": "version"})
        return _json(200, {"openapi": VERSIONS[asked], **document})

    return [Route("/swagger.json", swagger, methods=["GET"])]


def describe(identity: Identity, scorer: Scorer) -> Mapping[str, object]:
    """The document, but for ``openapi``, the version it is in."""
    about = f"Scores with the model {identity.name}, version {identity.version}."
    return {
        "info": {"title": identity.name, "version": identity.version, "description": about},
        "paths": {
            "/": {"get": _health()},
            "/score": _score(scorer),
            "/metrics": {"get": get("metrics", "Figures for Prometheus.", text=True)},
            "/swagger.json": {"get": _document()},
            **protocol_paths(identity.name, identity.version, refusals("ProtocolError")),
        },
        "components": {
            "schemas": {
                "ServiceInput": _service_input(scorer),
                "ServiceOutput": ANY,
                "Error": {
                    **shape_of({"message": TEXT, "field": TEXT}, optional=("field",)),
                    "description": "What is wrong, and with which part of the request.",
                },
                **protocol_schemas(scorer.signature),
            }
        },
    }


def refusals(schema: str) -> Mapping[str, object]:
    """The answers to what cannot be scored, by status, each with a body of ``schema``."""
    known = {status: answer(why, ref(schema)) for status, why in _REFUSALS.items()}
    seconds = {"schema": {"type": "integer", "minimum": 0}}
    busy = {**answer(_BUSY, ref(schema)), "headers": {"Retry-After": seconds}}
    return {**known, "503": busy}


def _score(scorer: Scorer) -> Mapping[str, object]:
    responses = {"200": answer("The result.", ref("ServiceOutput")), **refusals("Error")}
    preflight = {"200": {"description": "Nothing."}} if not scorer.raw else responses
    contents = {kind: {"schema": schema} for kind, schema in _kinds(scorer).items()}
    found: dict[str, object] = {
        "post": {
            "operationId": "RunMLService",
            "summary": "Score one request.",
            # A script decides what it makes of an empty body.
            "requestBody": {"required": _service_input(scorer) != ANY, "content": contents},
            "responses": responses,
        },
        "options": {
            "operationId": "ScoreOptions",
            "summary": "Nothing, unless the script answers raw requests.",
            "responses": {**refusals("Error"), **preflight},
        },
    }
    if not scorer.generic:
        found["get"] = {
            "operationId": "RunMLServiceByQuery",
            "summary": "Score the arguments of the address, which the script gets as JSON.",
            "parameters": [_QUERY],
            "responses": responses,
        }
    return found


def _kinds(scorer: Scorer) -> Mapping[str, Schema]:
    kinds: dict[str, Schema] = {"application/json": ref("ServiceInput")}
    if scorer.tensors:
        kinds |= {"application/octet-stream": BYTES, "application/x-npy": BYTES}
    if scorer.images:
        kinds |= {"image/jpeg": BYTES, "image/png": BYTES}
    return kinds


def _service_input(scorer: Scorer) -> Schema:
    if scorer.fields:
        return readings(scorer.fields, scorer.ranges)
    if scorer.generic and scorer.signature is not None:
        return by_name(scorer.signature.inputs)
    return ANY


def _health() -> Mapping[str, object]:
    found = get("ServiceHealthCheck", "Whether the module is up.", text=True)
    contents = {
        "text/plain": {"schema": {**TEXT, "example": "Healthy"}},
        "text/html": {"schema": TEXT},
    }
    about = "It is; a browser gets a page to try the model with."
    up = {"description": about, "content": contents}
    down = answer("It is stopping, or hangs.", TEXT, "text/plain")
    return {**found, "responses": {"200": up, "503": down}}


def _document() -> Mapping[str, object]:
    found = get("swagger", "This document.", {"type": "object"})
    known = {"type": "string", "enum": list(VERSIONS), "default": "3"}
    unknown = answer("There is no such version.", ref("Error"))
    return {
        **found,
        "parameters": [{"name": "version", "in": "query", "schema": known}],
        "responses": {"200": answer("OpenAPI 3.", {"type": "object"}), "404": unknown},
    }


def _json(status: int, value: object) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")
