"""The tensors of PyTorch's files (torch.serialization).

Since 1.6 they are a zip of a pickle and storages, before a row of pickles and the storages.
Each storage is a stored member ``data/KEY``. Its type, and which tensors are in it, is in the
pickle, which is never loaded. If the pickle does not tell, 32-bit floats are assumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from mlpack.tensor_patch.spans import zip as archive
from mlpack.tensor_patch.spans.pickle_machine import Machine
from mlpack.tensor_patch.spans.pickle_values import PickledObject, find_leaves, global_path
from mlpack.tensor_patch.spans.span import MAX_RANK, Damaged, Kind, Span, array_span
from mlpack.tensor_patch.spans.zip import Member

PICKLE = "/data.pkl"
_ORDER = "/byteorder"
_BIG = b"big"

_KINDS = {
    name: kind
    for kind, names in (
        (Kind.F16, "HalfStorage float16"),
        (Kind.BF16, "BFloat16Storage bfloat16"),
        (Kind.F32, "FloatStorage float32 ComplexFloatStorage complex64"),
        (Kind.F64, "DoubleStorage float64 ComplexDoubleStorage complex128"),
        (Kind.I16, "ShortStorage int16 uint16"),
        (Kind.I32, "IntStorage QInt32Storage int32 uint32"),
        (Kind.I64, "LongStorage int64 uint64"),
    )
    for name in names.split()
}
"""Of storage classes, and of dtypes for untyped storages; all others hold bytes."""
_ARGUMENTS = 9
"""How many arguments of a function that makes a tensor are examined; a dtype is among the last."""


_LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""The pickle of a magic number that began files before 1.6."""
_COUNT = 8
"""Bytes of the number of elements before each storage of such a file."""


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    kind: Kind
    width: int
    """Bytes of an element."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: str
    kind: Kind
    shape: tuple[int, ...] | None


def detect(view: memoryview) -> int:
    """Recognise a zip with a pickle of this name, or the magic number of older files."""
    if view[: len(_LEGACY)] == _LEGACY:
        return len(_LEGACY)
    if not archive.detect(view):
        return 0
    found = any(member.name.endswith(PICKLE) for member in archive.members(view))
    return len(archive.MAGIC) + len(PICKLE) if found else 0


def find(view: memoryview) -> Iterator[Span]:
    """Yield a span for each storage, named after its first tensor. Raises :class:`Damaged`."""
    return _in_row(view) if view[: len(_LEGACY)] == _LEGACY else _in_zip(view)


def _in_zip(view: memoryview) -> Iterator[Span]:
    known = {member.name: member for member in archive.members(view)}
    pickle = next(member for name, member in known.items() if name.endswith(PICKLE))
    root = pickle.name.removesuffix(PICKLE)
    try:
        tensors = _tensors(_TorchPickle(view, pickle.start, pickle.end).run())
    except Damaged:
        tensors = {}  # the storages can be found without the pickle
    order = known.get(root + _ORDER, Member("", 0, 0))
    swapped = view[order.start : order.end] == _BIG
    for name, start, end in known.values():
        if name.startswith(f"{root}/data/"):
            key = name.removeprefix(f"{root}/data/")
            tensor_name, tensor = tensors.get(key, (f"data/{key}", _Tensor(key, Kind.F32, None)))
            kind = Kind.I8 if swapped else tensor.kind
            yield from array_span(tensor_name, start, end - start, kind, tensor.shape)


def _in_row(view: memoryview) -> Iterator[Span]:
    """Read magic number, version, system, the object, and the keys of the storages that follow."""
    at, pickles = 0, list[_TorchPickle]()
    for _ in range(5):
        pickles.append(_TorchPickle(view, at))
        result = pickles[-1].run()
        at = pickles[-1].file.tell()
        if len(pickles) == 4:
            tensors = _tensors(result)
    for _, key in result.items if isinstance(result, PickledObject) else ():
        storage = pickles[3].storages.get(key) if isinstance(key, str) else None
        if storage is None:
            raise Damaged("a storage of unknown type")
        name, tensor = tensors.get(
            storage.key, (f"data/{key}", _Tensor(storage.key, storage.kind, None))
        )
        length = storage.width * int.from_bytes(view[at : at + _COUNT], "little")
        yield from array_span(name, at + _COUNT, length, tensor.kind, tensor.shape)
        at += _COUNT + length


def _tensors(root: object) -> dict[str, tuple[str, _Tensor]]:
    """Return the first tensor in each storage and its name, by the storage's key."""
    found: dict[str, tuple[str, _Tensor]] = {}
    for name, tensor in find_leaves(root):
        if isinstance(tensor, _Tensor):
            found.setdefault(tensor.storage, (name, tensor))
    return found


class _TorchPickle(Machine):
    def __init__(self, view: memoryview, at: int = 0, end: int | None = None) -> None:
        super().__init__(view, at, end)
        self.storages: dict[str, _Storage] = {}

    def make(self, function: object, args: object) -> object:
        match args:
            case (PickledObject(leaf=_Tensor()) as tensor, *_):
                return tensor  # a parameter is a tensor with a flag
            case (PickledObject(leaf=_Storage() as at), int(begin), tuple(size), tuple(stride), *_):
                kind = next((kind for kind in map(_kind, args[4:_ARGUMENTS]) if kind), at.kind)
                shape = None if begin else _in_memory(size, stride)
                return PickledObject(function, leaf=_Tensor(at.key, kind, shape))
        return PickledObject(function, args)

    def persistent(self, name: object) -> object:
        match name:
            case ("storage", storage_class, str(key), *_):
                kind = _kind(storage_class) or Kind.I8
                width = kind.width * (2 if "Complex" in global_path(storage_class) else 1)
                self.storages[key] = _Storage(key, kind, width)
                return PickledObject(leaf=self.storages[key])
        return PickledObject(None, name)


def _kind(dtype: object) -> Kind | None:
    module, _, name = global_path(dtype).rpartition(".")
    return _KINDS.get(name) if module == "torch" else None


def _in_memory(size: tuple[object, ...], stride: tuple[object, ...]) -> tuple[int, ...] | None:
    """Return the axes in the order of the bytes, slowest first, if they leave no gap."""
    if len(size) != len(stride) or len(size) > MAX_RANK:
        return None
    axes = [
        (step, dim)
        for step, dim in zip(stride, size, strict=True)
        if type(step) is int and type(dim) is int
    ]
    if len(axes) < len(size):
        return None
    # An axis of one may have any step; the sort is stable, so equal steps keep their order.
    axes.sort(key=lambda axis: -axis[0])
    dims = tuple(dim for _, dim in axes)
    steps = [prod(dims[place + 1 :]) for place in range(len(dims))]
    gapless = all(dim == 1 or own == step for (own, dim), step in zip(axes, steps, strict=True))
    return dims if gapless else None
