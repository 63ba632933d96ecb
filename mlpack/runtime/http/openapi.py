"""``GET /swagger.json``: the module's API as an OpenAPI 3 document.

Azure ML's servers have it under the same path, with the same ``?version=``: ``3`` (or ``3.0``)
and ``3.1``. The document is ``openapi.json``, valid in both versions, with the model's own parts
filled in here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..codec import accepted_types
from ..oip_tensors import DTYPES
from ..scorer import JSON
from ..signature import DATATYPES, Tensor
from ..tensors import DATA, DEVICE

if TYPE_CHECKING:
    from ..identity import ModelIdentity
    from ..scorer import Scorer
    from ..scoring_service import ScoringService

Schema = Mapping[str, object]

VERSIONS = {"3": "3.0.3", "3.0": "3.0.3", "3.1": "3.1.0"}
"""OpenAPI's versions by the value of ``?version=``."""

_MAX_EXAMPLE = 64
"""Elements of an example."""

_ANY: Schema = {"description": "Any JSON value that the scoring script takes."}
_NONE: Mapping[str, Schema] = {}
_NUMBER: Schema = {"type": "number"}
_BYTES: Schema = {"type": "string", "format": "binary"}


def routes(service: ScoringService) -> list[Route]:
    """Return the route of the document."""
    document = describe(service.identity, service.scorer)

    async def swagger(request: Request) -> Response:
        version = request.query_params.get("version", "3")
        if version not in VERSIONS:
            message = f"unknown version {version[:20]}; known: {', '.join(VERSIONS)}"
            return _json(404, {"message": message, "field": "version"})
        return _json(200, {"openapi": VERSIONS[version], **document})

    return [Route("/swagger.json", swagger, methods=["GET"])]


def describe(identity: ModelIdentity, scorer: Scorer) -> dict[str, Any]:
    """Return the document except for ``openapi``, the version of OpenAPI."""
    document: dict[str, Any]
    document = orjson.loads(Path(__file__).with_name("openapi.json").read_bytes())
    about = f"Scores with the model {identity.name}, version {identity.version}."
    document["info"] = {
        "title": identity.name,
        "version": identity.version,
        "description": about,
    }
    components = document["components"]
    components["parameters"]["ModelName"]["schema"]["enum"] = [identity.name]
    components["parameters"]["ModelVersion"]["schema"]["enum"] = [identity.version]
    _fill_score(document, scorer)
    if scorer.signature:
        inputs = [each for each in scorer.signature.inputs if each.kind in DATATYPES]
        outputs = [each.name for each in scorer.signature.outputs if each.kind in DATATYPES]
        _fill_infer(components["schemas"]["InferRequest"], inputs, outputs)
    return document


def _fill_score(document: dict[str, Any], scorer: Scorer) -> None:
    taken = _service_input(scorer)
    document["components"]["schemas"]["ServiceInput"] = taken
    score = document["paths"]["/score"]
    content = {kind: {"schema": _BYTES} for kind in accepted_types(scorer)}
    content[JSON] = {"schema": {"$ref": "#/components/schemas/ServiceInput"}}
    # A script may take an empty body.
    score["post"]["requestBody"] = {"required": taken is not _ANY, "content": content}
    if scorer.raw:
        score["options"]["responses"]["200"] = score["post"]["responses"]["200"]
    if scorer.generic:
        del score["get"]


def _service_input(scorer: Scorer) -> Schema:
    if scorer.fields:
        return _fields_schema(scorer.fields, scorer.ranges)
    if scorer.generic and scorer.signature is not None:
        return _inputs_schema(scorer.signature.inputs)
    return _ANY


def _fields_schema(fields: Sequence[str], ranges: Mapping[str, Sequence[float]]) -> Schema:
    """Return the schema of ``{"params": [...]}``; ranges are usual, not required."""
    described = [
        f"{each} (from {ranges[each][0]:g} to {ranges[each][1]:g})" if each in ranges else each
        for each in fields
    ]
    numbers = _list(_NUMBER, len(fields), len(fields))
    about = {"description": f"In this order: {', '.join(described)}.", "x-fields": list(fields)}
    usual = [ranges[each][2] if each in ranges else 0 for each in fields]
    return {**_object({"params": {**numbers, **about}}), "example": {"params": usual}}


def _inputs_schema(inputs: Sequence[Tensor]) -> Schema:
    """Return the schema of a model's inputs by name; of a single one also as ``data``."""
    required = [each for each in inputs if not each.optional]
    optional = {each.name: _nested(each) for each in inputs if each.optional}
    if DEVICE not in (each.name for each in inputs):
        optional[DEVICE] = {"description": "The device's id, which predictions repeat."}
    schema = _closed({each.name: _nested(each) for each in required}, optional)
    examples = {each.name: _example(each) for each in required}
    if len(required) == 1 and DATA not in (each.name for each in inputs):
        schema = {"anyOf": [_closed({DATA: _nested(required[0])}, optional), schema]}
        examples = {DATA: examples[required[0].name]}
    return schema if None in examples.values() else {**schema, "example": examples}


def _fill_infer(schema: dict[str, Any], inputs: Sequence[Tensor], outputs: Sequence[str]) -> None:
    """Restrict an inference request to the model's inputs and outputs."""
    properties = schema["properties"]
    if outputs:
        properties["outputs"]["items"]["properties"]["name"] = _one_of(outputs)
    if not inputs:
        return
    listed = [_infer_input(each) for each in inputs]
    items = listed[0] if len(listed) == 1 else {"oneOf": listed}
    required = [each for each in inputs if not each.optional]
    properties["inputs"] = _list(items, len(required), len(listed))
    values = {each.name: _example(each) for each in required}
    if None not in values.values():
        schema["example"] = {
            "inputs": [
                {
                    "name": each.name,
                    "datatype": DATATYPES[each.kind],
                    "shape": [size if isinstance(size, int) else 1 for size in each.shape],
                    "data": value if isinstance(value := values[each.name], list) else [value],
                }
                for each in required
            ]
        }


def _infer_input(tensor: Tensor) -> Schema:
    sizes = ", ".join("?" if size is None else str(size) for size in tensor.shape)
    count = len(tensor.shape)
    shape = _list({"type": "integer", "minimum": 0}, count, count)
    properties: dict[str, Schema] = {
        "name": _one_of([tensor.name]),
        "datatype": _one_of([DATATYPES[tensor.kind]]),
        "shape": {**shape, "description": f"[{sizes}]"},
    }
    optional: dict[str, Schema] = {
        "parameters": {"$ref": "#/components/schemas/Parameters"},
        "data": {"$ref": "#/components/schemas/TensorData"},
    }
    return _object(properties, optional)


def element(datatype: str) -> Schema:
    """Return the schema of one element of a tensor, with the range of its type.

    >>> element("UINT8")
    {'type': 'integer', 'minimum': 0, 'maximum': 255}
    """
    if datatype == "BYTES":
        return {"type": "string"}
    dtype = np.dtype(DTYPES[datatype])
    if dtype.kind == "b":
        return {"type": "boolean"}
    if datatype == "FP64":
        return _NUMBER
    if dtype.kind == "f":
        # Every number that rounds to a finite one of the type is taken.
        about = np.finfo(dtype)
        half_a_step = math.ldexp(1.0, about.maxexp - about.nmant - 2)
        most = math.nextafter(float(about.max) + half_a_step, 0)
        return {**_NUMBER, "minimum": -most, "maximum": most}
    limits = np.iinfo(dtype)
    return {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}


def _nested(tensor: Tensor) -> Schema:
    """Return the schema of a tensor as nested lists."""
    datatype = DATATYPES.get(tensor.kind)
    if datatype is None or not tensor.ranked:
        return {"description": f"A value of {tensor}."}
    schema = element(datatype)
    for size in reversed(tensor.shape):
        # A tensor without elements is refused.
        schema = _list(schema, size, size) if isinstance(size, int) else _list(schema, 1)
    return schema


def _example(tensor: Tensor) -> object:
    """Return a small tensor of zeros as JSON; ``None`` if it is large or not in JSON."""
    shape = [size if isinstance(size, int) else 1 for size in tensor.shape]
    if tensor.kind not in DATATYPES or math.prod(shape) > _MAX_EXAMPLE:
        return None
    zero = {"BYTES": "", "BOOL": False}.get(DATATYPES[tensor.kind], 0)
    return np.full(shape, zero, dtype=object).tolist()


def _object(properties: Mapping[str, Schema], optional: Mapping[str, Schema] = _NONE) -> Schema:
    """Return the schema of an object that has ``properties`` and may have ``optional`` ones."""
    made: dict[str, object] = {"type": "object", "properties": {**properties, **optional}}
    # OpenAPI 3.0 allows no empty list here.
    return {**made, "required": list(properties)} if properties else made


def _closed(properties: Mapping[str, Schema], optional: Mapping[str, Schema]) -> Schema:
    """Return the schema of an object that has no other properties."""
    return {**_object(properties, optional), "additionalProperties": False}


def _list(items: Schema, least: int, most: int | None = None) -> Schema:
    made: dict[str, object] = {"type": "array", "items": items}
    if least:
        made["minItems"] = least
    return made if most is None else {**made, "maxItems": most}


def _one_of(names: Sequence[str]) -> Schema:
    return {"type": "string", "enum": list(names)}


def _json(status: int, value: object) -> Response:
    return Response(orjson.dumps(value), status, media_type=JSON)
