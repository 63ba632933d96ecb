"""JSON to tensors and back, from a model's signature; no model is needed for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .scoring import BadRequest

DTYPES = {
    "tensor(bool)": np.bool_,
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(string)": np.object_,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
}
"""onnxruntime's names of element types."""

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Input:
    """One input of a model; a dimension that is not a number may have any length."""

    name: str
    kind: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.kind} [{', '.join(_dimension(each) for each in self.shape)}]"


def parse_request(body: bytes, inputs: Sequence[Input]) -> dict[str, Array]:
    """Tensors by input name from ``{"data": …}`` (one input) or ``{"<input>": …, …}``.

    Raises :class:`BadRequest` saying what the model expects.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the request is not JSON ({error})") from error
    expected = "; ".join(str(each) for each in inputs)
    if not isinstance(document, dict):
        raise BadRequest(f"the request is not a JSON object; the model takes {expected}")
    values = _by_name(document, inputs)
    missing = [each.name for each in inputs if each.name not in values]
    if missing:
        raise BadRequest(f"the request has no {', '.join(missing)}; the model takes {expected}")
    return {each.name: to_array(values[each.name], each) for each in inputs}


def to_array(value: object, expected: Input) -> Array:
    """``value`` as the tensor ``expected`` describes; raise :class:`BadRequest`."""
    if expected.kind not in DTYPES:
        raise BadRequest(f"input {expected} cannot be given as JSON: write a score.py")
    dtype = DTYPES[expected.kind]
    try:
        with np.errstate(over="raise"):
            array: Array = np.asarray(value, dtype=dtype)
    except (ValueError, TypeError, OverflowError, FloatingPointError) as error:
        raise BadRequest(f"the values do not fit {expected} ({error})") from error
    if not _fits(array.shape, expected.shape):
        raise BadRequest(f"the values have shape {list(array.shape)}, the model takes {expected}")
    return array


def to_json(outputs: Mapping[str, object]) -> object:
    """The outputs as JSON values: the only one, or all by name."""
    values = {name: plain(value) for name, value in outputs.items()}
    return {"result": next(iter(values.values())) if len(values) == 1 else values}


def plain(value: object) -> object:
    """An output of onnxruntime (a tensor, or a sequence or map of them) as plain JSON values."""
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value


def _by_name(document: Mapping[str, object], inputs: Sequence[Input]) -> Mapping[str, object]:
    only = len(inputs) == 1
    if only and "data" in document and inputs[0].name not in document:
        return {inputs[0].name: document["data"]}
    return document


def _fits(shape: Sequence[int], expected: Sequence[int | str | None]) -> bool:
    return len(shape) == len(expected) and all(
        not isinstance(want, int) or want == has for has, want in zip(shape, expected, strict=True)
    )


def _dimension(value: int | str | None) -> str:
    return "any" if value is None else str(value)
