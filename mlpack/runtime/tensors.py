"""Tensors of requests and responses, converted and checked by a model's signature."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.lib import format as npy

from .http_errors import BadRequest, NotAcceptable
from .json_arrays import ALLOW, Inexact, Unfit, array_of
from .scorer import Array
from .settings import allows_nan
from .signature import Dimension, Signature, Tensor, kind_of

OCTETS = "application/octet-stream"
NPY = "application/x-npy"
DATA = "data"
"""The member of a JSON request with the only input that has no default."""
DEVICE = "deviceID"
"""The member of a JSON request with the device's id, which is not an input."""

_HEADER_BYTES = 10_000
"""Maximum header of an .npy file, far above a plain array's; Python's parser evaluates it."""


def from_json(
    document: object, signature: Signature, *, allow_nan: bool = False
) -> dict[str, Array]:
    """Return tensors by name from ``{"data": …}`` (one input) or ``{"<input>": …, …}``.

    A model of columns, several inputs with one element per row, takes a row's elements without
    lists, too. Raises :class:`BadRequest` with the model's signature, and
    :class:`~.json_arrays.Inexact`.
    """
    if not isinstance(document, dict):
        raise BadRequest(f"the request is not a JSON object; the model takes {signature}")
    fields = _fields(document, signature)
    found = {}
    for each in signature.inputs:
        field = fields.get(each.name)
        if field is not None and not (each.optional and document[field] is None):
            array = to_array(document[field], each, field, allow_nan=allow_nan)
            if array.ndim < len(each.shape) and _takes_columns(signature):
                array = array.reshape((-1,) + (1,) * (len(each.shape) - 1))
            found[each.name] = _fitting(array, each, field)
    return found


def _takes_columns(signature: Signature) -> bool:
    """Return whether the model has several inputs, each with one element per row."""
    shapes = [each.shape for each in signature.required]
    return len(shapes) > 1 and all(
        shape and not isinstance(shape[0], int) and all(size == 1 for size in shape[1:])
        for shape in shapes
    )


def _fields(document: Mapping[str, object], signature: Signature) -> dict[str, str]:
    """Return the member of ``document`` that holds each input."""
    fields = {each.name: each.name for each in signature.inputs if each.name in document}
    required = signature.required
    if len(required) == 1 and DATA in document and not {DATA, required[0].name} & fields.keys():
        fields[required[0].name] = DATA
    for name in document:
        if name not in fields.values() and name != DEVICE:
            raise _unknown(name, signature)
    _require_all(fields, signature)
    return fields


def _require_all(given: Collection[str], signature: Signature) -> None:
    """Raise :class:`BadRequest` if an input without a default is missing."""
    for each in signature.required:
        if each.name not in given:
            message = f"the request has no {each.name}; the model takes {signature}"
            raise BadRequest(message, field=each.name)


def _unknown(name: str, signature: Signature) -> BadRequest:
    return BadRequest(f"the model has no input {name}; it takes {signature}", field=name)


def to_array(value: object, expected: Tensor, field: str, *, allow_nan: bool = False) -> Array:
    """Return JSON's ``value`` with the element type of ``expected``, in any shape.

    Raises :class:`BadRequest`, and :class:`~.json_arrays.Inexact`.
    """
    dtype = _dtype(expected)
    try:
        return array_of(value, dtype, allow_nan=allow_nan)
    except Unfit as error:
        raise BadRequest(f"the values do not fit {expected}: {error}", field=field) from error


def read_array(
    value: object, dtype: str, shape: Sequence[Dimension] | None = None, *, field: str
) -> Array:
    """Return a member of a script's JSON request as an array, checked as a model's inputs are.

    ``shape`` has ``None`` or a name for a free dimension; any is taken if it is ``None``. Raises
    :class:`BadRequest` naming ``field``.

    >>> read_array([[1, 2]], "float32", (None, 2), field="params")
    array([[1., 2.]], dtype=float32)
    """
    expected = Tensor(field, kind_of(dtype), tuple(shape or ()), ranked=shape is not None)
    try:
        array = to_array(value, expected, field, allow_nan=allows_nan(os.environ))
    except Inexact:
        raise BadRequest(
            f"the values do not fit {expected}: some are too large", field=field
        ) from None
    return _fitting(array, expected, field)


def from_octets(
    content: bytes, headers: Mapping[str, str], signature: Signature
) -> dict[str, Array]:
    """Return the only input from its elements, little-endian, in row-major order.

    ``X-Tensor-Shape: 1,3,224,224`` gives the shape; it is optional if at most one dimension
    is free. Raises :class:`BadRequest`.
    """
    expected = only_input(signature, "x-tensor-name" in headers)
    dtype = _dtype(expected)
    if dtype.hasobject:
        raise BadRequest(f"{expected} cannot be sent as raw bytes: send JSON")
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
            f"{len(content)} bytes are {count} elements, but shape {list(shape)} has "
            f"{math.prod(shape)}",
            field=expected.name,
        )
    if dtype.kind == "b" and content.strip(b"\0\1"):
        raise BadRequest(f"a byte of {expected} is neither 0 nor 1", field=expected.name)
    little = np.frombuffer(content, dtype.newbyteorder("<")).reshape(shape)
    return {expected.name: _fitting(little.astype(dtype, copy=False), expected, expected.name)}


def from_npy(content: bytes, signature: Signature) -> dict[str, Array]:
    """Return the only input from an ``.npy`` file; raise :class:`BadRequest`.

    Its elements may have another type of the same kind of number.
    """
    expected = only_input(signature, False)
    dtype = _dtype(expected)
    array = read_npy(content)
    if dtype.hasobject or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise BadRequest(f"{array.dtype} is not {expected}", field=expected.name)
    with np.errstate(over="ignore"):
        made: Array = np.ascontiguousarray(array.astype(dtype, copy=False))
    if not _same(array, made):
        raise BadRequest(
            f"the values do not fit {expected}: some are too large", field=expected.name
        )
    return {expected.name: _fitting(made, expected, expected.name)}


def _same(array: Array, converted: Array) -> bool:
    """Return whether no whole number has wrapped around, and no float become infinite."""
    if array.dtype == converted.dtype:
        return True
    if converted.dtype.kind == "f":
        finite = np.isfinite(array) if array.dtype.kind == "f" else True
        return not (np.isinf(converted) & finite).any()
    back = converted.astype(array.dtype)
    return bool((back == array).all()) and not _wraps(array, converted)


def _wraps(array: Array, converted: Array) -> bool:
    """Return whether whole numbers have changed their sign, as 2**63 does in int64."""
    signs = (np.less(each, 0) for each in (array, converted))
    return bool(np.not_equal(*signs).any())


def read_npy(content: bytes) -> Array:
    """Return the array of an ``.npy`` file without a copy; raise :class:`BadRequest`.

    Nothing is unpickled. Source: numpy's format specification, versions 1.0 and 2.0.
    """
    import io

    file = io.BytesIO(content)
    try:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"unsupported version {version}")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_column, dtype = read(file, max_header_size=_HEADER_BYTES)
        if dtype.hasobject or dtype.itemsize == 0 or min(shape, default=0) < 0:
            raise ValueError(f"{dtype} {shape} is not an array of numbers")
        if file.tell() + math.prod(shape) * dtype.itemsize != len(content):
            raise ValueError("its size does not match its header")
        array: Array = np.frombuffer(content, dtype, offset=file.tell())
        return array.reshape(shape, order="F" if by_column else "C")
    except Exception as error:  # numpy's header reader raises many kinds of errors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadRequest(f"the request is not a valid .npy file: {reason}") from error


def check(given: Mapping[str, Array], signature: Signature, *, allow_nan: bool) -> None:
    """Check names, types, shapes and numbers of tensors; raise :class:`BadRequest`."""
    inputs = {each.name: each for each in signature.inputs}
    for name in given:
        if name not in inputs:
            raise _unknown(name, signature)
    _require_all(given, signature)
    for name, array in given.items():
        expected = inputs[name]
        if array.dtype != _dtype(expected):
            raise BadRequest(f"{array.dtype} is not {expected}", field=name)
        _fitting(array, expected, name)
        if not allow_nan and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BadRequest(f"{name} has numbers that are not finite; {ALLOW}", field=name)


def only_input(signature: Signature, named: bool) -> Tensor:
    """Return the only input, for requests without names; raise :class:`BadRequest`."""
    if len(signature.required) != 1 or named:
        raise BadRequest(
            f"the model takes {signature}: send JSON or an Open Inference Protocol request, "
            "which name their tensors"
        )
    return signature.required[0]


def to_json(outputs: Mapping[str, object]) -> object:
    """Return the outputs as JSON values: the only one, or all by name."""
    values = {name: plain(value) for name, value in outputs.items()}
    return {"result": next(iter(values.values())) if len(values) == 1 else values}


def only_output(outputs: Mapping[str, object]) -> tuple[str, Array]:
    """Return the only output, for responses of one tensor; raise :class:`NotAcceptable`."""
    [*names] = outputs
    value = outputs[names[0]]
    if len(names) != 1 or not isinstance(value, np.ndarray) or value.dtype.hasobject:
        raise NotAcceptable(
            f"the outputs {', '.join(names)} are not a single tensor of numbers: accept "
            "application/json, or send an Open Inference Protocol request"
        )
    return names[0], value


def to_octets(array: Array) -> bytes:
    """Return the elements, little-endian, in row-major order."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def to_npy(array: Array) -> bytes:
    """Return the array as an ``.npy`` file."""
    import io

    file = io.BytesIO()
    npy.write_array(file, array, allow_pickle=False)
    return file.getvalue()


def plain(value: object) -> object:
    """Return an output of onnxruntime (tensor, sequence or map) as plain JSON values."""
    if isinstance(value, np.ndarray):
        # orjson serializes arrays of numbers itself, many times faster.
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
        raise BadRequest(f"a client cannot send input {expected}: write a score.py")
    return dtype


def _fitting(array: Array, expected: Tensor, field: str) -> Array:
    shape = list(array.shape)
    if not array.size:
        what = "no elements" if shape[0] else "zero rows"
        message = (
            f"the request has {what}: the values have shape {shape}, the model takes {expected}"
        )
        raise BadRequest(message, field=field)
    if not expected.takes(shape):
        message = f"the values have shape {shape}, the model takes {expected}"
        raise BadRequest(message, field=field)
    return array


def _parse_shape(text: str) -> tuple[int, ...]:
    words = [each.strip() for each in text.strip("[]() ").split(",")]
    # No array in memory has lengths of more digits or more dimensions.
    if len(words) > 32 or not all(each.isdecimal() and len(each) < 17 for each in words):
        message = f"X-Tensor-Shape: {text[:80]!r} is not a list of lengths such as 1,3,224,224"
        raise BadRequest(message, field="X-Tensor-Shape")
    return tuple(map(int, words))


def _work_out(count: int, expected: Tensor) -> tuple[int, ...]:
    """Return the shape of ``count`` elements if at most one dimension is free."""
    known = math.prod(each for each in expected.shape if isinstance(each, int))
    free = sum(1 for each in expected.shape if not isinstance(each, int))
    if free > 1 or not expected.ranked:
        message = f"give the shape in X-Tensor-Shape: the model takes {expected}"
        raise BadRequest(message, field="X-Tensor-Shape")
    length, rest = divmod(count, known) if free and known else (0, 0)
    if rest:
        message = f"{count} elements do not fill {expected}: it takes {known} or a multiple of that"
        raise BadRequest(message, field=expected.name)
    return tuple(each if isinstance(each, int) else length for each in expected.shape)
