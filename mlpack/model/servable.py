"""Whether requests and responses can carry a model's tensors, without a scoring script."""

from __future__ import annotations

from mlpack.model.version import ModelSignature, TensorSpec

CARRIED = frozenset(
    {
        "bool",
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
        "float16",
        "float32",
        "float64",
        "string",
    }
)
"""Element types that JSON, .npy and the Open Inference Protocol all have."""

UNKNOWN = "unknown"
"""The type of an output that the file does not declare: onnxruntime infers it."""

_AS_JSON = frozenset({"sequence", "map", "optional", UNKNOWN})
"""Outputs that are written as JSON: a classifier's probabilities are a sequence of maps."""


def not_carried(signature: ModelSignature) -> str:
    """Return which input or output no request or response can carry; empty if there is none.

    >>> from mlpack.model.version import TensorSpec
    >>> not_carried(ModelSignature((), (TensorSpec("y", "bfloat16", (None,)),)))
    "no response can carry its output 'y' (bfloat16)"
    """
    for each in signature.inputs:
        if each.dtype not in CARRIED:
            return f"no request can carry its input {_named(each)}"
    for each in signature.outputs:
        if each.dtype not in CARRIED | _AS_JSON:
            return f"no response can carry its output {_named(each)}"
    return ""


def _named(tensor: TensorSpec) -> str:
    return f"{tensor.name!r} ({tensor.dtype})"
