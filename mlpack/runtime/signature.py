"""What a model takes and gives: names, element types and shapes of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Dimension = int | str | None
"""A length; a name or ``None`` where any length will do."""

DTYPES: Mapping[str, np.dtype[np.generic]] = {
    f"tensor({kind})": np.dtype(name)
    for kind, name in {
        "bool": "bool",
        "double": "float64",
        "float": "float32",
        "float16": "float16",
        "int8": "int8",
        "int16": "int16",
        "int32": "int32",
        "int64": "int64",
        "string": "object",
        "uint8": "uint8",
        "uint16": "uint16",
        "uint32": "uint32",
        "uint64": "uint64",
    }.items()
}
"""numpy's element types by onnxruntime's names; others cannot be given by a client."""

_KINDS = {str(dtype): kind for kind, dtype in DTYPES.items()} | {"string": "tensor(string)"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a model; ``kind`` is onnxruntime's name of its type."""

    name: str
    kind: str
    shape: tuple[Dimension, ...]

    @property
    def dtype(self) -> np.dtype[np.generic] | None:
        """numpy's element type; ``None`` for what is no tensor, or of a type numpy lacks."""
        return DTYPES.get(self.kind)

    def __str__(self) -> str:
        shape = ", ".join("any" if each is None else str(each) for each in self.shape)
        return f"{self.name} {self.kind} [{shape}]"


@dataclass(frozen=True, slots=True)
class Signature:
    """All tensors of a model, in its own order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def __str__(self) -> str:
        return "; ".join(str(each) for each in self.inputs)


def kind_of(name: str) -> str:
    """onnxruntime's name of an element type, of numpy's or its own; raise :class:`ValueError`.

    >>> kind_of("float32"), kind_of("tensor(int8)"), kind_of("string")
    ('tensor(float)', 'tensor(int8)', 'tensor(string)')
    """
    if name in DTYPES:
        return name
    if name not in _KINDS:
        raise ValueError(f"{name!r} is no element type: {', '.join(sorted(_KINDS))}")
    return _KINDS[name]
