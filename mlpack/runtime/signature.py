"""A model's signature: names, element types and shapes of its inputs and outputs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Dimension = int | str | None
"""A length; a name or ``None`` if any length is allowed."""

_ELEMENTS = (
    # onnxruntime's name, numpy's, the Open Inference Protocol's
    ("bool", "bool", "BOOL"),
    ("uint8", "uint8", "UINT8"),
    ("uint16", "uint16", "UINT16"),
    ("uint32", "uint32", "UINT32"),
    ("uint64", "uint64", "UINT64"),
    ("int8", "int8", "INT8"),
    ("int16", "int16", "INT16"),
    ("int32", "int32", "INT32"),
    ("int64", "int64", "INT64"),
    ("float16", "float16", "FP16"),
    ("float", "float32", "FP32"),
    ("double", "float64", "FP64"),
    ("string", "object", "BYTES"),
)
DTYPES: Mapping[str, np.dtype[np.generic]] = {
    f"tensor({kind})": np.dtype(name) for kind, name, _ in _ELEMENTS
}
"""numpy's element types by onnxruntime's names; a client cannot send other types."""
DATATYPES: Mapping[str, str] = {f"tensor({kind})": datatype for kind, _, datatype in _ELEMENTS}
"""The Open Inference Protocol's datatypes by onnxruntime's names."""

_KINDS = {str(dtype): kind for kind, dtype in DTYPES.items()} | {"string": "tensor(string)"}


_CARRIED = re.compile(
    rf"(?:(?:seq|optional|map)\(|(?:{'|'.join(kind for kind, *_ in _ELEMENTS)}),)*"
    rf"(?:tensor\()?(?:{'|'.join(kind for kind, *_ in _ELEMENTS)})\)+"
)
"""Types of outputs as in ``seq(map(int64,tensor(float)))`` that JSON carries."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a model; ``kind`` is onnxruntime's name for its type."""

    name: str
    kind: str
    shape: tuple[Dimension, ...]
    optional: bool = False
    """Whether it is an input with a default, which a request may leave out."""
    ranked: bool = True
    """Whether the number of dimensions is known; if not, ``shape`` is empty."""

    @property
    def dtype(self) -> np.dtype[np.generic] | None:
        """numpy's element type; ``None`` for a sequence or map, or a type that numpy lacks."""
        return DTYPES.get(self.kind)

    def __str__(self) -> str:
        sizes = ", ".join("?" if each is None else str(each) for each in self.shape)
        shape = f"[{sizes}]" if self.ranked else "of any shape"
        return f"{self.name} {self.kind} {shape}{' (optional)' if self.optional else ''}"

    def takes(self, shape: Sequence[int]) -> bool:
        """Return whether a tensor of ``shape`` fits."""
        return not self.ranked or (
            len(shape) == len(self.shape)
            and all(
                not isinstance(size, int) or size == given
                for given, size in zip(shape, self.shape, strict=True)
            )
        )


@dataclass(frozen=True, slots=True)
class Signature:
    """All inputs and outputs of a model, in its own order."""

    inputs: tuple[Tensor, ...]
    """Those with a default come last."""

    outputs: tuple[Tensor, ...]

    @property
    def required(self) -> tuple[Tensor, ...]:
        """The inputs without a default."""
        return tuple(each for each in self.inputs if not each.optional)

    def __str__(self) -> str:
        return "; ".join(str(each) for each in self.inputs)


def unservable(signature: Signature) -> str | None:
    """Return why a model with ``signature`` cannot be scored without a script, or ``None``.

    A request carries every input, and a response every output: a tensor of an element type that
    numpy has, and for an output also a sequence or map of such. Others, such as bfloat16, float8
    and int4, may be used inside a model.

    >>> unservable(Signature((), (Tensor("y", "seq(map(int64,tensor(float)))", ()),)))
    >>> unservable(Signature((Tensor("x", "tensor(int4)", ("N",)),), ()))
    'no request can carry input x tensor(int4) [N]'
    """
    for each in signature.inputs:
        if each.kind not in DTYPES:
            return f"no request can carry input {each}"
    for each in signature.outputs:
        if not _CARRIED.fullmatch(each.kind):
            return f"no response can carry output {each}"
    return None


def kind_of(name: str) -> str:
    """Return onnxruntime's name for an element type, from numpy's name or its own.

    Raises :class:`ValueError`.

    >>> kind_of("float32"), kind_of("tensor(int8)"), kind_of("string")
    ('tensor(float)', 'tensor(int8)', 'tensor(string)')
    """
    if name in DTYPES:
        return name
    if name not in _KINDS:
        raise ValueError(f"unknown element type {name!r}; known: {', '.join(sorted(_KINDS))}")
    return _KINDS[name]
