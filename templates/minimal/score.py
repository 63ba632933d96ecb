"""Scores any ONNX model, as Azure ML calls it: init() once, then run() for each request.

A request is {"data": ...} for a model with one input, or {"inputs": {"name": ...}}.
The answer is {"result": ...}, or {"outputs": {"name": ...}} for a model with several
outputs. Put what your model needs before and after it into run().
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

# ONNX's names for what numpy calls otherwise; a tensor(double) is float64.
DTYPES = {"float": "float32", "double": "float64", "string": "object"}

session: Any = None


def init() -> None:
    """Load the model; the container starts answering afterwards."""
    global session
    folder = Path(os.environ["AZUREML_MODEL_DIR"])
    found = sorted(folder.rglob("*.onnx"))
    if len(found) != 1:
        raise RuntimeError(f"{folder} holds {len(found)} ONNX files, not one")
    session = onnxruntime.InferenceSession(str(found[0]), providers=["CPUExecutionProvider"])


def run(raw: str) -> dict[str, Any]:
    """Answer one request; raise ValueError for one that cannot be understood."""
    outputs = session.run(None, inputs(json.loads(raw)))
    names = [each.name for each in session.get_outputs()]
    found = {name: plain(value) for name, value in zip(names, outputs, strict=True)}
    return {"result": found[names[0]]} if len(names) == 1 else {"outputs": found}


def inputs(request: object) -> dict[str, Any]:
    """The model's inputs, of the types it wants."""
    wanted = {each.name: each.type for each in session.get_inputs()}
    if isinstance(request, dict) and set(request) == {"data"} and len(wanted) == 1:
        given = {next(iter(wanted)): request["data"]}
    elif isinstance(request, dict) and isinstance(request.get("inputs"), dict):
        given = request["inputs"]
    else:
        raise ValueError('send {"data": ...} or {"inputs": {"name": ...}}')
    if set(given) != set(wanted):
        raise ValueError(f"the model's inputs are {', '.join(wanted)}")
    return {name: np.asarray(value, dtype(wanted[name])) for name, value in given.items()}


def dtype(onnx_type: str) -> str:
    """What numpy calls an ONNX type such as tensor(float)."""
    element = onnx_type.removeprefix("tensor(").removesuffix(")")
    return DTYPES.get(element, element)


def plain(value: object) -> object:
    """A value that JSON can hold: arrays as lists, maps (of classifiers) with text keys."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    return value
