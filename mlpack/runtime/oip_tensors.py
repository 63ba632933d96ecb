"""Tensors in the Open Inference Protocol v2: as JSON, and as bytes after the JSON.

The bytes are those of Triton's binary tensor data extension: little-endian, row-major, without
padding; a BOOL is one byte 0 or 1, and an element of BYTES has its length in four bytes first.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .http_errors import BadRequest
from .json_arrays import Unfit, array_of
from .signature import DATATYPES
from .signature import DTYPES as NUMPY_TYPES
from .tensors import to_octets

Array = npt.NDArray[np.generic]

DTYPES: dict[str, npt.DTypeLike] = {
    DATATYPES[kind]: dtype.newbyteorder("<") for kind, dtype in NUMPY_TYPES.items()
}
"""numpy's types by the protocol's names; BYTES are texts, encoded as UTF-8."""

_LENGTH = struct.Struct("<I")


def from_json(
    data: object, datatype: str, shape: Sequence[int], *, allow_nan: bool = False
) -> Array:
    """Return the tensor of JSON ``data``, flat or nested like ``shape``.

    Raises :class:`BadRequest`, and :class:`~.json_arrays.Inexact`.
    """
    if not isinstance(data, list):
        raise BadRequest("data is not a list")
    try:
        array = array_of(data, np.dtype(DTYPES[datatype]), allow_nan=allow_nan)
    except Unfit as error:
        raise BadRequest(f"data does not fit {datatype}: {error}") from error
    if array.ndim != 1 and array.shape != tuple(shape):
        raise BadRequest(f"data is nested as {list(array.shape)} and shape is {list(shape)}")
    return _shaped(array, shape)


def from_bytes(data: memoryview, datatype: str, shape: Sequence[int]) -> Array:
    """Return the tensor of the bytes ``data`` without copying; raise :class:`BadRequest`."""
    if datatype == "BYTES":
        return _shaped(_split_texts(data), shape)
    dtype = np.dtype(DTYPES[datatype])
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise BadRequest(
            f"{datatype} {list(shape)} has {wanted} bytes, not binary_data_size={len(data)}"
        )
    if datatype == "BOOL":
        values = np.frombuffer(data, np.uint8)
        if values.size and values.max() > 1:
            raise BadRequest("a byte of BOOL is neither 0 nor 1")
    # The JSON before it may have any length, and onnxruntime needs aligned memory.
    return np.require(_shaped(np.frombuffer(data, dtype), shape), requirements=["C", "A"])


def to_json(array: Array) -> object:
    """Return all elements in row-major order for orjson; non-finite numbers become ``null``."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype.kind == "O":
        return [
            each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in flat
        ]
    return flat.astype(flat.dtype.newbyteorder("="), copy=False)


def to_bytes(array: Array) -> bytes:
    """Return all elements in row-major order as the binary extension encodes them."""
    if array.dtype.kind == "O":
        texts = (e if isinstance(e, bytes) else str(e).encode() for e in array.reshape(-1))
        return b"".join(_LENGTH.pack(len(each)) + each for each in texts)
    return to_octets(array)


def as_tensor(value: object) -> tuple[str, Array] | None:
    """Return an output with its datatype; ``None`` for one that is not a tensor, such as a map.

    >>> as_tensor([[0.25, 0.75]])
    ('FP64', array([[0.25, 0.75]]))
    """
    try:
        array: Array = np.asarray(value)
    except ValueError:
        return None  # rows of different lengths
    if array.dtype.kind in "US":
        array = array.astype(object)
    if array.dtype.kind == "O":
        texts = all(isinstance(each, (str, bytes)) for each in array.reshape(-1))
        return ("BYTES", array) if texts else None
    found = next((n for n, d in DTYPES.items() if d == array.dtype.newbyteorder("<")), None)
    return None if found is None else (found, array)


def _split_texts(data: memoryview) -> Array:
    found: list[str] = []
    place = 0
    while place < len(data):
        start = place + _LENGTH.size
        end = start + _LENGTH.unpack_from(data, place)[0] if start <= len(data) else start
        if end > len(data):
            raise BadRequest(f"element {len(found)} of BYTES is truncated")
        try:
            found.append(str(data[start:end], "utf-8"))
        except UnicodeDecodeError as error:
            raise BadRequest(f"element {len(found)} of BYTES is not UTF-8") from error
        place = end
    return np.array(found, dtype=object)


def _shaped(array: Array, shape: Sequence[int]) -> Array:
    wanted = math.prod(shape)
    if array.size != wanted:
        raise BadRequest(f"shape {list(shape)} has {wanted} elements, but data has {array.size}")
    try:
        return array.reshape(tuple(shape))
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"invalid shape {list(shape)}") from error
