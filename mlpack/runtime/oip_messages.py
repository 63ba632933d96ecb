"""Requests and responses of the Open Inference Protocol v2, parsed and serialized.

The protocol is https://github.com/kserve/open-inference-protocol (REST); tensors after the JSON
are Triton's extension ``binary_tensor_data``, whose header ``Inference-Header-Content-Length``
gives the length of the JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

import orjson

from .http_errors import BadRequest
from .json_arrays import reading
from .oip_tensors import DTYPES, Array, as_tensor, from_bytes, from_json, to_bytes, to_json
from .signature import DATATYPES, Signature, Tensor

JSON_LENGTH = "Inference-Header-Content-Length"
INPUTS = "inputs"
"""The member of a request that lists its tensors."""

_UNSUPPORTED = ("classification", "shared_memory_region")
_MOST_DIGITS = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRequest:
    """The tensors of a request, and the outputs it asks for."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, bool | None] = field(default_factory=dict)
    """Requested outputs, and whether as bytes (``None``: by ``binary``); empty for all outputs."""

    binary: bool = False
    """Whether outputs are returned as bytes by default."""

    id: str | None = None


@dataclass(frozen=True, slots=True)
class InferResponse:
    """The body of a response; ``json_length`` is ``None`` if no bytes follow the JSON."""

    body: bytes
    json_length: int | None


def parse_request(
    body: bytes, header: str | None, signature: Signature | None, *, allow_nan: bool = False
) -> InferRequest:
    """Parse a request; ``header`` is the value of :data:`JSON_LENGTH`.

    Without a signature all tensors are accepted. Raises :class:`BadRequest`.
    """
    length = _json_length(header, len(body))
    view = memoryview(body)

    def read(document: object) -> InferRequest:
        rest = _BinaryData(view[length:])
        return from_document(document, signature, rest, allow_nan=allow_nan)

    return reading(view[:length], read, allow_nan=allow_nan)


def is_request(document: object, signature: Signature) -> bool:
    """Return whether a JSON request over any transport is one of this protocol."""
    return (
        isinstance(document, dict)
        and isinstance(document.get(INPUTS), list)
        and all(isinstance(each, dict) and "datatype" in each for each in document[INPUTS])
        and all(each.name != INPUTS for each in signature.inputs)
    )


def from_document(
    document: object,
    signature: Signature | None,
    rest: _BinaryData | None = None,
    *,
    allow_nan: bool = False,
) -> InferRequest:
    """Return the request of a parsed ``document``; ``rest`` are the bytes after it.

    Raises :class:`BadRequest`, and :class:`~.json_arrays.Inexact`.
    """
    if not isinstance(document, dict):
        raise BadRequest("the request is not a JSON object")
    rest = rest or _BinaryData(memoryview(b""))
    parameters = _parameters(document, "the request")
    inputs = _inputs(document, rest, signature, allow_nan=allow_nan)
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


def make_response(
    request: InferRequest, results: Mapping[str, object], name: str, version: str
) -> InferResponse:
    """Return the response with the requested outputs.

    Raises :class:`BadRequest` if a requested output does not exist or is not a tensor.
    """
    listed: list[Mapping[str, object]] = []
    blobs: list[bytes] = []
    for output in request.outputs or results:
        if output not in results:
            raise BadRequest(f"outputs: the model did not return {output}", field="outputs")
        tensor = as_tensor(results[output])
        if tensor is None:
            if output in request.outputs:
                raise BadRequest(
                    f"outputs: {output} is not a tensor; use POST /score", field="outputs"
                )
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
    return InferResponse(b"".join([text, *blobs]), len(text) if blobs else None)


def metadata(tensors: Sequence[Tensor]) -> list[Mapping[str, object]]:
    """Return tensors as in model metadata, without those that have no datatype in the protocol.

    A dimension of any length is -1; an input with a default has ``"optional": true``, as in
    Triton's model configuration.
    """
    return [
        {
            "name": each.name,
            "datatype": DATATYPES[each.kind],
            "shape": [size if isinstance(size, int) else -1 for size in each.shape],
            **({"optional": True} if each.optional else {}),
        }
        for each in tensors
        if each.kind in DATATYPES
    ]


class _BinaryData:
    """The bytes after the JSON, taken tensor by tensor."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._place = 0

    def take(self, size: int) -> memoryview:
        left = len(self._data) - self._place
        if size > left:
            raise BadRequest(f"binary_data_size is {size}, but the body has only {left} more bytes")
        self._place += size
        return self._data[self._place - size : self._place]

    def require_end(self) -> None:
        left = len(self._data) - self._place
        if left:
            raise BadRequest(
                f"the last {left} bytes of the body belong to no input", field="inputs"
            )


def _json_length(header: str | None, size: int) -> int:
    if header is None:
        return size
    digits = header.isascii() and header.isdigit() and len(header) <= _MOST_DIGITS
    if not digits or not 0 < int(header) <= size:
        raise BadRequest(
            f"{JSON_LENGTH} is {header[:40]!r}, but must be a number from 1 to the body's {size}",
            field=JSON_LENGTH,
        )
    return int(header)


def _inputs(
    document: Mapping[str, object],
    rest: _BinaryData,
    signature: Signature | None,
    *,
    allow_nan: bool,
) -> Mapping[str, Array]:
    known = None if signature is None else {each.name: each for each in signature.inputs}
    found: dict[str, Array] = {}
    for place, name, entry in _entries(document, INPUTS):
        if known is not None and name not in known:
            inputs = ", ".join(known)
            raise BadRequest(
                f"{place}: the model has no input {name}; it has {inputs}", field=place
            )
        try:
            expected = None if known is None else known[name]
            found[name] = _tensor(entry, rest, expected, allow_nan=allow_nan)
        except BadRequest as error:
            raise BadRequest(f"{place} ({name}): {error}", field=name) from error
    required = () if signature is None else signature.required
    missing = [each.name for each in required if each.name not in found]
    if missing or (known is None and not found):
        raise BadRequest(f"inputs has no {', '.join(missing) or 'tensor'}", field="inputs")
    return found


def _tensor(
    entry: Mapping[str, object], rest: _BinaryData, expected: Tensor | None, *, allow_nan: bool
) -> Array:
    datatype, shape = entry.get("datatype"), _shape(entry.get("shape"))
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise BadRequest(f"datatype must be one of {', '.join(DTYPES)}")
    if expected is not None:
        _require_fit(datatype, shape, expected)
    size = _parameters(entry, "the input").get("binary_data_size")
    if size is None:
        return from_json(entry.get("data"), datatype, shape, allow_nan=allow_nan)
    if not _is_count(size):
        raise BadRequest("binary_data_size is not a number of bytes")
    if "data" in entry:
        raise BadRequest("the tensor has both data and binary_data_size")
    return from_bytes(rest.take(size), datatype, shape)


def _require_fit(datatype: str, shape: Sequence[int], expected: Tensor) -> None:
    wanted = DATATYPES.get(expected.kind)
    if wanted is None:
        raise BadRequest(f"{expected.kind} has no datatype in this protocol; use POST /score")
    if datatype != wanted or not expected.takes(shape):
        dimensions = [size if isinstance(size, int) else -1 for size in expected.shape]
        raise BadRequest(f"got {datatype} {list(shape)}, the model takes {wanted} {dimensions}")


def _outputs(
    document: Mapping[str, object], signature: Signature | None
) -> Mapping[str, bool | None]:
    known = None if signature is None else {each.name for each in signature.outputs}
    found: dict[str, bool | None] = {}
    for place, name, entry in _entries(document, "outputs"):
        # Without known outputs only the response shows it.
        if known and name not in known:
            raise BadRequest(f"{place}: the model has no output {name}", field=place)
        found[name] = _flag(_parameters(entry, place), "binary_data", place)
    return found


def _entries(
    document: Mapping[str, object], key: str
) -> Iterator[tuple[str, str, Mapping[str, object]]]:
    """Yield the tensors listed at ``key``: the place in the list, the name, and the members."""
    listed = [] if document.get(key) is None else document[key]
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise BadRequest(f"{key} is not a list of objects", field=key)
    taken = set[str]()
    for number, each in enumerate(listed):
        place, name = f"{key}[{number}]", each.get("name")
        if not isinstance(name, str):
            raise BadRequest(f"{place} has no name", field=place)
        if name in taken:
            raise BadRequest(f"{place}: {name} appears twice", field=place)
        taken.add(name)
        yield place, name, each


def _shape(value: object) -> list[int]:
    if not isinstance(value, list):
        raise BadRequest("shape is not a list")
    sizes = [each for each in value if _is_count(each)]
    if len(sizes) != len(value):
        raise BadRequest("shape has values that are not whole numbers from 0")
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
