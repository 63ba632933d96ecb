"""Requests to tensors and back, from a model's signature; no model is needed for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import orjson
from numpy.lib import format as npy

from .problems import BadRequest, Unacceptable
from .scorer import Array
from .signature import Signature, Tensor

OCTETS = "application/octet-stream"
NPY = "application/x-npy"

_HEADER_BYTES = 10_000
"""Of an .npy file: far more than a plain array's, whose header is evaluated by Python's parser."""


def from_json(content: bytes, signature: Signature) -> dict[str, Array]:
    """Tensors by input name from ``{"data": …}`` (one input) or ``{"<input>": …, …}``.

    Raises :class:`BadRequest` saying what the model expects.
    """
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the request is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise BadRequest(f"the request is not a JSON object; the model takes {signature}")
    inputs = signature.inputs
    if len(inputs) == 1 and "data" in document and inputs[0].name not in document:
        return {inputs[0].name: to_array(document["data"], inputs[0], "data")}
    for each in inputs:
        if each.name not in document:
            message = f"the request has no {each.name}; the model takes {signature}"
            raise BadRequest(message, field=each.name)
    return {each.name: to_array(document[each.name], each) for each in inputs}


def to_array(value: object, expected: Tensor, field: str | None = None) -> Array:
    """JSON's ``value`` as the tensor ``expected`` describes; raise :class:`BadRequest`."""
    field = field or expected.name
    dtype = _dtype(expected)
    if dtype.hasobject:
        array = _texts(value, expected, field)
    else:
        try:
            found = np.asarray(value)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise BadRequest(f"the values do not fit {expected} ({error})", field=field) from error
        if mixes_truth(value, found):
            raise BadRequest(f"the values do not fit {expected}: not all are numbers", field=field)
        array = _convert(found, dtype, expected, field)
    return _fitting(array, expected, field)


def from_octets(
    content: bytes, headers: Mapping[str, str], signature: Signature
) -> dict[str, Array]:
    """The one input from its elements, little-endian, row by row.

    ``X-Tensor-Shape: 1,3,224,224`` says the shape; it may be left out where at
    most one dimension is free. Raises :class:`BadRequest`.
    """
    expected = only_input(signature, "x-tensor-name" in headers)
    dtype = _dtype(expected)
    if dtype.hasobject:
        raise BadRequest(f"{expected} cannot be given as raw bytes: send JSON")
    count, rest = divmod(len(content), dtype.itemsize)
    if rest:
        raise BadRequest(
            f"{len(content)} bytes are not a whole number of elements of {expected}",
            field=expected.name,
        )
    named = headers.get("x-tensor-shape")
    shape = _work_out(count, expected) if named is None else _parse_shape(named)
    if math.prod(shape) != count:
        raise BadRequest(
            f"{len(content)} bytes hold {count} elements, shape {list(shape)} has "
            f"{math.prod(shape)}",
            field=expected.name,
        )
    little = np.frombuffer(content, dtype.newbyteorder("<")).reshape(shape)
    return {expected.name: _fitting(little.astype(dtype, copy=False), expected, expected.name)}


def from_npy(content: bytes, signature: Signature) -> dict[str, Array]:
    """The one input from an ``.npy`` file; raise :class:`BadRequest`.

    Its elements may be of another type where the kind of number stays.
    """
    expected = only_input(signature, False)
    dtype = _dtype(expected)
    array = read_npy(content)
    if dtype.hasobject or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise BadRequest(f"{array.dtype} is not {expected}", field=expected.name)
    with np.errstate(over="ignore"):  # to infinity, which is refused like any other
        array = np.ascontiguousarray(array.astype(dtype, copy=False))
    return {expected.name: _fitting(array, expected, expected.name)}


def read_npy(content: bytes) -> Array:
    """The array of an ``.npy`` file, without a copy; raise :class:`BadRequest`.

    Nothing is unpickled. Source: numpy's format specification, versions 1.0 and 2.0.
    """
    import io

    file = io.BytesIO(content)
    try:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} is not read")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_column, dtype = read(file, max_header_size=_HEADER_BYTES)
        if dtype.hasobject or dtype.itemsize == 0 or min(shape, default=0) < 0:
            raise ValueError(f"{dtype} {shape} is not plain numbers")
        if file.tell() + math.prod(shape) * dtype.itemsize != len(content):
            raise ValueError("its size is not what its header says")
        array: Array = np.frombuffer(content, dtype, offset=file.tell())
        return array.reshape(shape, order="F" if by_column else "C")
    except Exception as error:  # numpy's reader of headers lets many kinds of error through
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadRequest(f"the request is no .npy file: {reason}") from error


def check(given: Mapping[str, Array], signature: Signature, *, allow_nan: bool) -> None:
    """Names, types, shapes and numbers of tensors; raise :class:`BadRequest`."""
    wanted = {each.name: each for each in signature.inputs}
    for name in given:
        if name not in wanted:
            message = f"the model has no input {name}; it takes {signature}"
            raise BadRequest(message, field=name)
    for name, expected in wanted.items():
        if name not in given:
            message = f"the request has no {name}; the model takes {signature}"
            raise BadRequest(message, field=name)
        array = given[name]
        if array.dtype != _dtype(expected):
            raise BadRequest(f"{array.dtype} is not {expected}", field=name)
        _fitting(array, expected, name)
        if not allow_nan and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BadRequest(f"{name} holds numbers that are not finite", field=name)


def only_input(signature: Signature, named: bool) -> Tensor:
    """The input of a request that can hold but one; raise :class:`BadRequest`."""
    if len(signature.inputs) != 1 or named:
        raise BadRequest(
            f"the model takes {signature}: send JSON or an Open Inference Protocol request, "
            "which name their tensors"
        )
    return signature.inputs[0]


def to_json(outputs: Mapping[str, object]) -> object:
    """The outputs as JSON values: the only one, or all by name."""
    values = {name: plain(value) for name, value in outputs.items()}
    return {"result": next(iter(values.values())) if len(values) == 1 else values}


def only_output(outputs: Mapping[str, object]) -> tuple[str, Array]:
    """The output of an answer that can hold but one; raise :class:`Unacceptable`."""
    [*names] = outputs
    value = outputs[names[0]]
    if len(names) != 1 or not isinstance(value, np.ndarray) or value.dtype.hasobject:
        raise Unacceptable(
            f"the outputs {', '.join(names)} are not one tensor of numbers: accept "
            "application/json, or send an Open Inference Protocol request"
        )
    return names[0], value


def to_octets(array: Array) -> bytes:
    """The elements, little-endian, row by row."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def to_npy(array: Array) -> bytes:
    """The array as an ``.npy`` file."""
    import io

    file = io.BytesIO()
    npy.write_array(file, array, allow_pickle=False)
    return file.getvalue()


def mixes_truth(value: object, array: Array) -> bool:
    """Whether true or false stand among the numbers of ``value``, which numpy makes 1 or 0 of."""
    if array.dtype.kind not in "iuf" or not ((array == 0) | (array == 1)).any():
        return False
    return any(type(each) is bool for each in np.asarray(value, dtype=object).flat)


def plain(value: object) -> object:
    """An output of onnxruntime (a tensor, or a sequence or map of them) as plain JSON values."""
    if isinstance(value, np.ndarray):
        # What JSON can hold is written from the array itself, many times as fast.
        return plain(value.tolist()) if value.dtype.kind in "OSUc" else value
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value


def _dtype(expected: Tensor) -> np.dtype[np.generic]:
    dtype = expected.dtype
    if dtype is None:
        raise BadRequest(f"input {expected} cannot be given by a client: write a score.py")
    return dtype


def _convert(found: Array, dtype: np.dtype[np.generic], expected: Tensor, field: str) -> Array:
    """Numbers as ``dtype``, where none of them changes but by rounding."""
    kinds = {"b": "b", "f": "fiu"}.get(dtype.kind, "iuf")
    if found.dtype.kind not in kinds:
        raise BadRequest(f"the values do not fit {expected}", field=field)
    with np.errstate(over="ignore", invalid="ignore"):
        array = found.astype(dtype)
        same = array == found if dtype.kind in "iu" else np.isfinite(array)
    if not same.all():
        raise BadRequest(f"the values do not fit {expected}: some are too large", field=field)
    return array


def _texts(value: object, expected: Tensor, field: str) -> Array:
    array: Array = np.asarray(value, dtype=object)
    if not all(isinstance(each, str) for each in array.flat):
        raise BadRequest(f"the values do not fit {expected}: not all are texts", field=field)
    return array


def _fitting(array: Array, expected: Tensor, field: str) -> Array:
    if not array.size or not _fits(array.shape, expected.shape):
        raise BadRequest(
            f"the values have shape {list(array.shape)}, the model takes {expected}", field=field
        )
    return array


def _fits(shape: Sequence[int], expected: Sequence[int | str | None]) -> bool:
    return len(shape) == len(expected) and all(
        not isinstance(want, int) or want == has for has, want in zip(shape, expected, strict=True)
    )


def _parse_shape(text: str) -> tuple[int, ...]:
    words = [each.strip() for each in text.strip("[]() ").split(",")]
    # Sixteen digits and 32 dimensions are more than any array in memory has.
    if len(words) > 32 or not all(each.isdecimal() and len(each) < 17 for each in words):
        message = f"X-Tensor-Shape: {text[:80]!r} is no list of lengths such as 1,3,224,224"
        raise BadRequest(message, field="X-Tensor-Shape")
    return tuple(map(int, words))


def _work_out(count: int, expected: Tensor) -> tuple[int, ...]:
    """The shape of ``count`` elements, where one dimension at most is free."""
    known = math.prod(each for each in expected.shape if isinstance(each, int))
    free = sum(1 for each in expected.shape if not isinstance(each, int))
    if free > 1:
        message = f"name the shape in X-Tensor-Shape: the model takes {expected}"
        raise BadRequest(message, field="X-Tensor-Shape")
    length, rest = divmod(count, known) if free and known else (0, 0)
    if rest:
        message = f"{count} elements do not fill {expected}: it takes {known} or a multiple of that"
        raise BadRequest(message, field=expected.name)
    return tuple(each if isinstance(each, int) else length for each in expected.shape)
