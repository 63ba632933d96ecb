"""The tensors of PyTorch's files since 1.6 (torch.serialization): a zip of a pickle and storages.

Each storage is a stored member ``data/KEY``. Its type, and which tensors are in it, is in the
pickle, which is never loaded. Where the pickle does not say, 32-bit floats are a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

from mlpack.delta.spans.pickle_machine import Machine
from mlpack.delta.spans.pickle_values import Made, called, leaves
from mlpack.delta.spans.span import MAX_RANK, Damaged, Kind, Span, array
from mlpack.delta.spans.zip import Member

PICKLE = "/data.pkl"
_ORDER = "/byteorder"
_BIG = b"big"

_KINDS = {
    "FloatStorage": Kind.F32,
    "float32": Kind.F32,
    "ComplexFloatStorage": Kind.F32,
    "complex64": Kind.F32,
    "HalfStorage": Kind.F16,
    "float16": Kind.F16,
    "BFloat16Storage": Kind.BF16,
    "bfloat16": Kind.BF16,
    "DoubleStorage": Kind.F64,
    "float64": Kind.F64,
    "ComplexDoubleStorage": Kind.F64,
    "complex128": Kind.F64,
    "LongStorage": Kind.I64,
    "int64": Kind.I64,
    "uint64": Kind.I64,
    "IntStorage": Kind.I32,
    "QInt32Storage": Kind.I32,
    "int32": Kind.I32,
    "uint32": Kind.I32,
    "ShortStorage": Kind.I16,
    "int16": Kind.I16,
    "uint16": Kind.I16,
}
"""Of storages, and of types where a storage has none; every other is of bytes."""
_ARGUMENTS = 9
"""Of a function that makes a tensor, the most that are looked at; a type is among the last."""


def find(view: memoryview, members: Iterable[Member]) -> Iterator[Span]:
    """One span for each storage, by the name of the first tensor in it. Raises :class:`Damaged`."""
    known = {member.name: member for member in members}
    pickle = next(member for name, member in known.items() if name.endswith(PICKLE))
    root = pickle.name.removesuffix(PICKLE)
    tensors = _tensors(view, pickle)
    order = known.get(root + _ORDER, Member("", 0, 0))
    swapped = view[order.start : order.end] == _BIG
    for name, start, end in known.values():
        if name.startswith(f"{root}/data/"):
            key = name.removeprefix(f"{root}/data/")
            tensor = tensors.get(key, _Named(f"data/{key}", Kind.F32, None))
            kind = Kind.I8 if swapped else tensor.kind
            yield from array(tensor.name, start, end - start, kind, tensor.shape)


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    kind: Kind
    shape: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class _Named:
    name: str
    kind: Kind
    shape: tuple[int, ...] | None


def _tensors(view: memoryview, pickle: Member) -> dict[str, _Named]:
    found: dict[str, _Named] = {}
    try:
        for name, tensor in leaves(_Torch(view, pickle.start, pickle.end).run()):
            if isinstance(tensor, _Tensor):
                found.setdefault(tensor.storage.key, _Named(name, tensor.kind, tensor.shape))
    except Damaged:
        # The storages are where they are, whatever the pickle is.
        return {}
    return found


class _Torch(Machine):
    def make(self, what: object, args: object) -> object:
        match args:
            case (Made(leaf=_Tensor()) as tensor, *_):
                return tensor  # a parameter is a tensor with a flag
            case (Made(leaf=_Storage() as storage), int(begin), tuple(size), tuple(stride), *_):
                kind = next((kind for kind in map(_kind, args[4:_ARGUMENTS]) if kind), storage.kind)
                shape = None if begin else _in_memory(size, stride)
                return Made(what, leaf=_Tensor(storage, kind, shape))
        return Made(what, args)

    def persistent(self, name: object) -> object:
        match name:
            case ("storage", what, str(key), *_):
                return Made(leaf=_Storage(key, _kind(what) or Kind.I8))
        return Made(None, name)


def _kind(what: object) -> Kind | None:
    module, _, name = called(what).rpartition(".")
    return _KINDS.get(name) if module == "torch" else None


def _in_memory(size: tuple[object, ...], stride: tuple[object, ...]) -> tuple[int, ...] | None:
    """The axes of a tensor in the order of its bytes, slowest first, if they leave no gap."""
    if len(size) != len(stride) or len(size) > MAX_RANK:
        return None
    axes = [
        (step, dim)
        for step, dim in zip(stride, size, strict=True)
        if type(step) is int and type(dim) is int
    ]
    if len(axes) < len(size):
        return None
    # An axis of one may have any step; among equals it stays where it was.
    axes.sort(key=lambda axis: -axis[0])
    dims = tuple(dim for _, dim in axes)
    steps = [prod(dims[place + 1 :]) for place in range(len(dims))]
    gapless = all(dim == 1 or own == step for (own, dim), step in zip(axes, steps, strict=True))
    return dims if gapless else None
