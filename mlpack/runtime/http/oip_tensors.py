"""Tensors as the Open Inference Protocol v2 writes them: in JSON, and as bytes behind the JSON.

The bytes are those of Triton's binary tensor data extension: little-endian, row
by row, nothing in between; a BOOL is one byte 0 or 1, and an element of BYTES
is its length in four bytes followed by itself.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..problems import BadRequest
from ..tensors import mixes_truth

Array = npt.NDArray[np.generic]

DTYPES: dict[str, npt.DTypeLike] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
"""numpy's types by the protocol's names; BYTES are texts, which are UTF-8 as bytes."""

KINDS = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
"""The protocol's names by onnxruntime's; what is not here has no datatype in the protocol."""

_FROM = {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}
"""Which JSON values (numpy's letters) are taken for which type: no text or truth for a number."""

_LENGTH = struct.Struct("<I")


def from_json(data: object, datatype: str, shape: Sequence[int]) -> Array:
    """The tensor of JSON ``data``, flat or nested as ``shape`` is; raise :class:`BadRequest`."""
    if not isinstance(data, list):
        raise BadRequest("data is not a list")
    array = _texts(data) if datatype == "BYTES" else _numbers(data, datatype)
    if array.ndim != 1 and array.shape != tuple(shape):
        raise BadRequest(f"data is nested as {list(array.shape)} and shape is {list(shape)}")
    return _shaped(array, shape)


def from_bytes(data: memoryview, datatype: str, shape: Sequence[int]) -> Array:
    """The tensor of the bytes ``data``, without copying; raise :class:`BadRequest`."""
    if datatype == "BYTES":
        return _shaped(_split_texts(data), shape)
    dtype = np.dtype(DTYPES[datatype])
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise BadRequest(
            f"{datatype} of shape {list(shape)} is {wanted} bytes, and binary_data_size {len(data)}"
        )
    if datatype == "BOOL":
        values = np.frombuffer(data, np.uint8)
        if values.size and values.max() > 1:
            raise BadRequest("a byte of BOOL is neither 0 nor 1")
    # The JSON before it may end anywhere, and onnxruntime reads aligned memory only.
    return np.require(_shaped(np.frombuffer(data, dtype), shape), requirements=["C", "A"])


def to_json(array: Array) -> object:
    """All elements, row by row, for orjson; a number that is not finite becomes ``null``."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype.kind == "O":
        return [
            each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in flat
        ]
    return flat.astype(flat.dtype.newbyteorder("="), copy=False)


def to_bytes(array: Array) -> bytes:
    """All elements, row by row, as the binary extension writes them."""
    if array.dtype.kind == "O":
        texts = (e if isinstance(e, bytes) else str(e).encode() for e in array.reshape(-1))
        return b"".join(_LENGTH.pack(len(each)) + each for each in texts)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def as_tensor(value: object) -> tuple[str, Array] | None:
    """An output with its datatype; ``None`` for one the protocol has no tensor for, such as a map.

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


def _numbers(data: list[object], datatype: str) -> Array:
    dtype = np.dtype(DTYPES[datatype])
    try:
        array: Array = np.asarray(data)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"data is not a table of {datatype}: its rows differ") from error
    if array.size == 0:
        return array.astype(dtype)
    if mixes_truth(data, array):
        raise BadRequest(f"data holds what is not {datatype}")
    if array.dtype.kind not in _FROM[dtype.kind]:
        array = _whole_numbers(data, datatype)
    with np.errstate(over="ignore"):
        made = array.astype(dtype)
    fits = np.isfinite(made).all() if dtype.kind == "f" else (made == array).all()
    if not fits:
        raise BadRequest(f"data holds a number that does not fit {datatype}")
    return made


def _whole_numbers(data: list[object], datatype: str) -> Array:
    """Numbers both below and above 2**63, which numpy takes for fractions."""
    listed = np.array(data, dtype=object)
    if datatype != "UINT64" or not all(type(each) is int for each in listed.reshape(-1)):
        raise BadRequest(f"data holds what is not {datatype}")
    try:
        return listed.astype(np.uint64)
    except OverflowError as error:
        raise BadRequest(f"data holds a number that does not fit {datatype}") from error


def _texts(data: list[object]) -> Array:
    try:
        array = np.array(data, dtype=object)
    except ValueError as error:
        raise BadRequest("data is not a table of BYTES: its rows differ") from error
    if not all(isinstance(each, str) for each in array.reshape(-1)):
        raise BadRequest("data holds what is not a text, which BYTES are in JSON")
    return array


def _split_texts(data: memoryview) -> Array:
    found: list[str] = []
    place = 0
    while place < len(data):
        start = place + _LENGTH.size
        end = start + _LENGTH.unpack_from(data, place)[0] if start <= len(data) else start
        if end > len(data):
            raise BadRequest(f"element {len(found)} of BYTES is cut short")
        try:
            found.append(str(data[start:end], "utf-8"))
        except UnicodeDecodeError as error:
            raise BadRequest(f"element {len(found)} of BYTES is not UTF-8") from error
        place = end
    return np.array(found, dtype=object)


def _shaped(array: Array, shape: Sequence[int]) -> Array:
    wanted = math.prod(shape)
    if array.size != wanted:
        raise BadRequest(f"shape {list(shape)} has {wanted} elements, and data {array.size}")
    try:
        return array.reshape(tuple(shape))
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"no tensor can have the shape {list(shape)}") from error
