"""Requests and answers of the Open Inference Protocol v2: bytes to values, values to bytes.

The protocol is https://github.com/kserve/open-inference-protocol (REST); tensors
behind the JSON are Triton's extension ``binary_tensor_data``, whose header
``Inference-Header-Content-Length`` says how long the JSON is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

import orjson

from ..problems import BadRequest
from ..signature import Signature, Tensor
from .oip_tensors import DTYPES, KINDS, Array, as_tensor, from_bytes, from_json, to_bytes, to_json

JSON_LENGTH = "Inference-Header-Content-Length"
_UNSUPPORTED = ("classification", "shared_memory_region")
_MOST_DIGITS = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRequest:
    """What is to be inferred."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, bool | None] = field(default_factory=dict)
    """Names asked for, and whether as bytes where that is said; empty for all there are."""

    binary: bool = False
    """Whether outputs are wanted as bytes where nothing else is said."""

    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """The body of an answer; the length of its JSON where bytes follow it, else ``None``."""

    body: bytes
    json_length: int | None


def parse_request(body: bytes, header: str | None, signature: Signature | None) -> InferRequest:
    """Read a request; ``header`` is the value of :data:`JSON_LENGTH`. Raise :class:`BadRequest`.

    Without a signature any tensors are taken.
    """
    length = _json_length(header, len(body))
    view = memoryview(body)
    document = _document(view[:length])
    parameters = _parameters(document, "the request")
    rest = _Rest(view[length:])
    inputs = _inputs(document, rest, signature)
    rest.require_end()
    identity = document.get("id")
    if identity is not None and not isinstance(identity, str):
        raise BadRequest("id is not a text", field="id")
    return InferRequest(
        inputs=inputs,
        outputs=_outputs(document, signature),
        binary=_flag(parameters, "binary_data_output", "parameters") or False,
        id=identity,
    )


def make_answer(
    request: InferRequest, results: Mapping[str, object], name: str, version: str
) -> Message:
    """The answer with the outputs asked for; raise :class:`BadRequest` where one is no tensor."""
    listed: list[Mapping[str, object]] = []
    blobs: list[bytes] = []
    for output in request.outputs or results:
        if output not in results:
            raise BadRequest(f"outputs: the model gave no {output}", field="outputs")
        tensor = as_tensor(results[output])
        if tensor is None:
            if output in request.outputs:
                raise BadRequest(f"outputs: {output} is no tensor: POST /score", field="outputs")
            continue
        datatype, array = tensor
        described: dict[str, object] = {
            "name": output,
            "shape": list(array.shape),
            "datatype": datatype,
        }
        asked = request.outputs.get(output)
        if request.binary if asked is None else asked:
            blobs.append(to_bytes(array))
            described["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            described["data"] = to_json(array)
        listed.append(described)
    document: dict[str, object] = {"model_name": name, "model_version": version}
    if request.id is not None:
        document["id"] = request.id
    document["outputs"] = listed
    text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return Message(b"".join([text, *blobs]), len(text) if blobs else None)


def metadata(tensors: Sequence[Tensor]) -> list[Mapping[str, object]]:
    """Tensors as model metadata lists them; those without a datatype in the protocol are left out.

    A dimension of any length is -1.
    """
    return [
        {
            "name": each.name,
            "datatype": KINDS[each.kind],
            "shape": [size if isinstance(size, int) else -1 for size in each.shape],
        }
        for each in tensors
        if each.kind in KINDS
    ]


class _Rest:
    """What follows the JSON, taken tensor by tensor."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._place = 0

    def take(self, size: int) -> memoryview:
        left = len(self._data) - self._place
        if size > left:
            raise BadRequest(f"binary_data_size is {size}, and {left} bytes are left in the body")
        self._place += size
        return self._data[self._place - size : self._place]

    def require_end(self) -> None:
        left = len(self._data) - self._place
        if left:
            raise BadRequest(f"{left} bytes of the body belong to no input", field="inputs")


def _json_length(header: str | None, size: int) -> int:
    if header is None:
        return size
    digits = header.isascii() and header.isdigit() and len(header) <= _MOST_DIGITS
    if not digits or not 0 < int(header) <= size:
        raise BadRequest(
            f"{JSON_LENGTH} is {header[:40]!r}, and must be a number from 1 to the body's {size}",
            field=JSON_LENGTH,
        )
    return int(header)


def _document(text: memoryview) -> Mapping[str, object]:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the request is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise BadRequest("the request is not a JSON object")
    return document


def _inputs(
    document: Mapping[str, object], rest: _Rest, signature: Signature | None
) -> Mapping[str, Array]:
    known = None if signature is None else {each.name: each for each in signature.inputs}
    found: dict[str, Array] = {}
    for place, entry in _entries(document, "inputs"):
        name = _name(entry, place)
        if name in found:
            raise BadRequest(f"{place}: {name} is given twice", field=place)
        if known is not None and name not in known:
            raise BadRequest(f"{place}: the model has no input {name}", field=place)
        try:
            found[name] = _tensor(entry, rest, None if known is None else known[name])
        except BadRequest as error:
            raise BadRequest(f"{place} ({name}): {error}", field=name) from error
    missing = [] if known is None else [name for name in known if name not in found]
    if missing or not found:
        raise BadRequest(f"inputs has no {', '.join(missing) or 'tensor'}", field="inputs")
    return found


def _tensor(entry: Mapping[str, object], rest: _Rest, expected: Tensor | None) -> Array:
    datatype, shape = entry.get("datatype"), _shape(entry.get("shape"))
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise BadRequest(f"datatype is none of {', '.join(DTYPES)}")
    if expected is not None:
        _require_fit(datatype, shape, expected)
    size = _parameters(entry, "the input").get("binary_data_size")
    if size is None:
        return from_json(entry.get("data"), datatype, shape)
    if not _is_count(size):
        raise BadRequest("binary_data_size is not a number of bytes")
    if "data" in entry:
        raise BadRequest("it has both data and binary_data_size")
    return from_bytes(rest.take(size), datatype, shape)


def _require_fit(datatype: str, shape: Sequence[int], expected: Tensor) -> None:
    wanted = KINDS.get(expected.kind)
    if wanted is None:
        raise BadRequest(f"{expected.kind} has no datatype in this protocol: POST /score")
    fits = len(shape) == len(expected.shape) and all(
        not isinstance(want, int) or want == has
        for has, want in zip(shape, expected.shape, strict=True)
    )
    if datatype != wanted or not fits:
        dimensions = [size if isinstance(size, int) else -1 for size in expected.shape]
        raise BadRequest(f"it is {datatype} {list(shape)}, the model takes {wanted} {dimensions}")


def _outputs(
    document: Mapping[str, object], signature: Signature | None
) -> Mapping[str, bool | None]:
    known = None if signature is None else {each.name for each in signature.outputs}
    found: dict[str, bool | None] = {}
    for place, entry in _entries(document, "outputs"):
        name = _name(entry, place)
        # Where the outputs are not known beforehand, only the answer can tell.
        if known and name not in known:
            raise BadRequest(f"{place}: the model has no output {name}", field=place)
        if name in found:
            raise BadRequest(f"{place}: {name} is asked for twice", field=place)
        found[name] = _flag(_parameters(entry, place), "binary_data", place)
    return found


def _entries(document: Mapping[str, object], key: str) -> list[tuple[str, Mapping[str, object]]]:
    listed = document.get(key)
    if listed is None:
        return []
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise BadRequest(f"{key} is not a list of objects", field=key)
    return [(f"{key}[{number}]", each) for number, each in enumerate(listed)]


def _name(entry: Mapping[str, object], place: str) -> str:
    name = entry.get("name")
    if not isinstance(name, str):
        raise BadRequest(f"{place} has no name", field=place)
    return name


def _shape(value: object) -> list[int]:
    if not isinstance(value, list):
        raise BadRequest("shape is not a list")
    sizes = [each for each in value if _is_count(each)]
    if len(sizes) != len(value):
        raise BadRequest("shape holds what is not a whole number from 0")
    return sizes


def _parameters(entry: Mapping[str, object], place: str) -> Mapping[str, object]:
    found = entry.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise BadRequest(f"parameters of {place} is not an object", field="parameters")
    for name in _UNSUPPORTED:
        if name in found:
            raise BadRequest(f"{place}: {name} is not supported", field="parameters")
    return found


def _flag(parameters: Mapping[str, object], name: str, place: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRequest(f"{place}: {name} is neither true nor false", field=name)
    return value


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
