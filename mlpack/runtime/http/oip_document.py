"""The Open Inference Protocol v2 in this module's OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..signature import Signature, Tensor
from .oip_messages import JSON_LENGTH
from .oip_tensors import DTYPES, KINDS
from .schemas import BYTES, TEXT, TRUTH, Schema, answer, example, get, list_of, ref, shape_of

_SIZE: Schema = {"type": "integer", "minimum": 0}
_NAMES: Schema = {"type": "string", "enum": list(DTYPES)}


def protocol_paths(
    name: str, version: str, refusals: Mapping[str, object]
) -> Mapping[str, Mapping[str, object]]:
    """The operations of the protocol by path; ``refusals`` are the answers of a failed one."""
    unknown = {"404": answer("There is no such model or version.", ref("ProtocolError"))}
    not_now = {"503": answer("Not now.", ref("ServerState"))}
    model_not_now = {"503": answer("Not now.", ref("ModelState"))}
    found: dict[str, Mapping[str, object]] = {
        "/v2": {"get": get("v2", "The server.", ref("Server"))},
        "/v2/health/live": {"get": _plus(get("live", "Alive?", ref("ServerState")), not_now)},
        "/v2/health/ready": {"get": _plus(get("ready", "Ready?", ref("ServerState")), not_now)},
    }
    for suffix, ending, parameters in (
        ("", "", [_place("name", name)]),
        ("/versions/{version}", "Version", [_place("name", name), _place("version", version)]),
    ):
        place = f"/v2/models/{{name}}{suffix}"
        about = _plus(get(f"model{ending}", "The model.", ref("Model")), unknown)
        ready = get(f"modelReady{ending}", "Is the model ready?", ref("ModelState"))
        infer = {**_infer(f"infer{ending}"), "parameters": [*parameters, _header()]}
        found[place] = {"parameters": parameters, "get": about}
        found[f"{place}/ready"] = {
            "parameters": parameters,
            "get": _plus(ready, {**unknown, **model_not_now}),
        }
        found[f"{place}/infer"] = {"post": _plus(infer, {**unknown, **refusals})}
    return found


def protocol_schemas(signature: Signature | None) -> Mapping[str, Schema]:
    """The protocol's messages by name; requests have this model's inputs where they are known."""
    inputs = [each for each in signature.inputs if each.kind in KINDS] if signature else []
    outputs = [each for each in signature.outputs if each.kind in KINDS] if signature else []
    listed = _one_of(inputs)
    asked = shape_of(
        {"name": _choice([each.name for each in outputs]), "parameters": ref("Parameters")},
        optional=("parameters",),
    )
    request = {
        "id": TEXT,
        "parameters": ref("Parameters"),
        "inputs": list_of(listed, least=max(1, len(inputs)), most=len(inputs) or None),
        "outputs": list_of(asked),
    }
    tensor = shape_of({"name": TEXT, "datatype": _NAMES, "shape": list_of({"type": "integer"})})
    return {
        "ProtocolError": shape_of({"error": TEXT}),
        "Server": shape_of({"name": TEXT, "version": TEXT, "extensions": list_of(TEXT)}),
        "ServerState": shape_of({"live": TRUTH, "ready": TRUTH}, optional=("ready",)),
        "ModelState": shape_of({"name": TEXT, "ready": TRUTH}),
        "Model": shape_of(
            {
                "name": TEXT,
                "versions": list_of(TEXT),
                "platform": TEXT,
                "inputs": list_of(tensor),
                "outputs": list_of(tensor),
            }
        ),
        "Parameters": _parameters(),
        "TensorData": _tensor_data(),
        "InferRequest": {
            **shape_of(request, optional=("id", "parameters", "outputs")),
            **_example(inputs),
        },
        "InferAnswer": _infer_answer(),
    }


def _infer(operation: str) -> Mapping[str, object]:
    both = {
        "application/json": {"schema": ref("InferRequest")},
        # The JSON of a request followed by the bytes of its tensors.
        "application/octet-stream": {"schema": BYTES},
    }
    result = {
        "application/json": {"schema": ref("InferAnswer")},
        "application/octet-stream": {"schema": BYTES},
    }
    headers = {JSON_LENGTH: {"description": "Bytes of the JSON; tensors follow.", "schema": _SIZE}}
    return {
        "operationId": operation,
        "summary": "Score tensors.",
        "requestBody": {"required": True, "content": both},
        "responses": {
            "200": {"description": "The outputs.", "content": result, "headers": headers}
        },
    }


def _example(inputs: Sequence[Tensor]) -> Schema:
    given = [
        {
            "name": each.name,
            "datatype": KINDS[each.kind],
            "shape": [size if isinstance(size, int) else 1 for size in each.shape],
            "data": data if isinstance(data, list) else [data],
        }
        for each in inputs
        if (data := example(each)) is not None
    ]
    return {"example": {"inputs": given}} if given and len(given) == len(inputs) else {}


def _infer_answer() -> Schema:
    given = shape_of(
        {
            "name": TEXT,
            "datatype": _NAMES,
            "shape": list_of(_SIZE),
            "parameters": ref("Parameters"),
            "data": ref("TensorData"),
        },
        optional=("parameters", "data"),
    )
    named = {"model_name": TEXT, "model_version": TEXT, "id": TEXT, "outputs": list_of(given)}
    return shape_of(named, optional=("id",))


def _one_of(inputs: Sequence[Tensor]) -> Schema:
    """An input of a request: one of the model's, where those are known."""
    choices = [_input(each) for each in inputs]
    if not choices:
        return _given(TEXT, _NAMES, list_of(_SIZE))
    return choices[0] if len(choices) == 1 else {"oneOf": choices}


def _input(tensor: Tensor) -> Schema:
    sizes = ", ".join("any" if not isinstance(size, int) else str(size) for size in tensor.shape)
    count = len(tensor.shape)
    shape = {**list_of(_SIZE, least=count, most=count), "description": f"[{sizes}]"}
    return _given(_choice([tensor.name]), _choice([KINDS[tensor.kind]]), shape)


def _given(name: Schema, datatype: Schema, shape: Schema) -> Schema:
    return shape_of(
        {
            "name": name,
            "datatype": datatype,
            "shape": shape,
            "parameters": ref("Parameters"),
            "data": ref("TensorData"),
        },
        optional=("parameters", "data"),
    )


def _parameters() -> Schema:
    known = {
        "binary_data": {**TRUTH, "description": "Of an output asked for: as bytes."},
        "binary_data_output": {**TRUTH, "description": "Of a request: all outputs as bytes."},
        "binary_data_size": {**_SIZE, "description": "Of a tensor: its bytes behind the JSON."},
    }
    return {**shape_of(known, optional=tuple(known)), "additionalProperties": True}


def _tensor_data() -> Schema:
    about = "Elements row by row, flat or nested as the shape; null is a number that is not finite."
    return {**list_of({}), "description": about}


def _choice(names: Sequence[str]) -> Schema:
    return {"type": "string", "enum": list(names)} if names else TEXT


def _place(name: str, value: str) -> Mapping[str, object]:
    return {"name": name, "in": "path", "required": True, "schema": _choice([value])}


def _header() -> Mapping[str, object]:
    about = "Bytes of the JSON, where tensors follow it."
    schema = {"type": "integer", "minimum": 1}
    return {"name": JSON_LENGTH, "in": "header", "description": about, "schema": schema}


def _plus(operation: Mapping[str, object], responses: Mapping[str, object]) -> Mapping[str, object]:
    known = operation["responses"]
    assert isinstance(known, dict)  # noqa: S101  (made above)
    return {**operation, "responses": {**known, **responses}}
