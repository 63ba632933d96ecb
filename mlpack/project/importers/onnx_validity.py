"""Whether an ONNX file is valid: onnx.checker's word, and onnxruntime's where the checker objects.

The checker refuses some files that onnxruntime loads: weights of IR 3 that are not listed as
inputs, nodes in another order, functions of another opset, missing shapes and names. So its
objection is tried out if onnxruntime is installed, and is a note if not. ``mlpack build`` starts
the release and decides what loads on the base.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.project.importers.source import Graph, UnreadableModel, first_line

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

DECIDES = "mlpack build starts the release and decides"

_TRY_SECONDS = 300
_NOT_INSTALLED = 3
_TRY = f"""
import sys
try:
    import onnxruntime
except ImportError:
    sys.exit({_NOT_INSTALLED})
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
try:
    onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
except Exception as error:
    print(onnxruntime.__version__, str(error))
"""
"""A program of its own: a damaged file may end the process that loads it."""


_PREFIX = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : (?:Load model from .*? failed:)?")


@dataclass(frozen=True, slots=True)
class Objection:
    """A reason of onnx.checker against a file."""

    reason: str
    types_only: bool
    """Whether only types or shapes of tensors disagree."""


def check(path: Path, graph: Graph, stripped: bytes | None) -> tuple[str, ...]:
    """Return notes on the ONNX file at ``path``; raise :class:`UnreadableModel` if it is invalid.

    ``stripped`` is the model without its external data, if it has some: the checker refuses data
    behind a link or with several names, which is copied here.
    """
    newer = _newer(graph)
    if newer:
        return (f"{newer}: {DECIDES}",)
    found = _objection(path, stripped)
    return _tried(path, found) if found else ()


def _tried(path: Path, found: Objection) -> tuple[str, ...]:
    """Ask onnxruntime about the checker's objection."""
    said = _onnxruntime(path)
    if said is None:
        return (f"onnx.checker objects to {path.name} ({found.reason}): {DECIDES}",)
    if not said:
        return ()
    if found.types_only:
        return (f"onnxruntime {said}: {DECIDES}",)
    raise UnreadableModel(
        f"{path} is not a valid ONNX model: {found.reason}",
        hint="export the model again; onnx.checker.check_model says more",
    )


def _newer(graph: Graph) -> str:
    """Return what is newer than the ``onnx`` of this machine, which cannot check it; or nothing."""
    from onnx import IR_VERSION, defs

    if graph.ir_version > IR_VERSION:
        return f"its file format (IR) {graph.ir_version} is newer than {IR_VERSION} and not checked"
    newest, opset = defs.onnx_opset_version(), graph.opsets.get("ai.onnx", 0)
    if opset > newest:
        return f"its opset {opset} is newer than {newest} and not checked"
    return ""


def _objection(path: Path, stripped: bytes | None) -> Objection | None:
    from onnx import checker, shape_inference

    try:
        # By path, the checker reads the file itself, without a copy in Python.
        checker.check_model(
            str(path) if stripped is None else stripped, full_check=stripped is None
        )
    except checker.ValidationError as error:
        return Objection(first_line(error), types_only=False)
    except shape_inference.InferenceError as error:
        return Objection(first_line(error), types_only=True)
    return None


def without_external(model: ModelProto, tensors: Iterable[TensorProto]) -> bytes:
    """Return ``model`` with its external tensors empty; it is changed."""
    for tensor in tensors:
        if tensor.data_location == tensor.EXTERNAL:
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            tensor.dims[:] = [0]
    stripped: bytes = model.SerializeToString()
    return stripped


def _onnxruntime(path: Path) -> str | None:
    """Return why onnxruntime does not load the file, empty if it does; ``None`` without it."""
    command = [sys.executable, "-P", "-c", _TRY, str(path.resolve())]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TRY_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if done.returncode == _NOT_INSTALLED:
        return None
    if done.returncode:
        return "ends the process that loads it"
    version, _, reason = done.stdout.partition(" ")
    reason = _PREFIX.sub("", reason.strip())
    return f"{version} does not load it ({first_line(ValueError(reason))})" if version else ""
