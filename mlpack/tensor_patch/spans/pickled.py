"""The numpy arrays in pickles, as scikit-learn's models are saved, with joblib or without.

A pickle of protocol 3 or later holds an array's bytes in one piece. joblib writes them between
two instructions, after an object that describes them (joblib.numpy_pickle).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from mlpack.tensor_patch.spans.npy import Element, element
from mlpack.tensor_patch.spans.pickle_machine import Machine
from mlpack.tensor_patch.spans.pickle_values import (
    ByteRange,
    PickledObject,
    find_leaves,
    global_path,
)
from mlpack.tensor_patch.spans.span import MAX_RANK, Damaged, Span, array_span

MAX_DEPTH = 8
"""Of pickles within pickles, as joblib writes arrays of objects."""

_PROTOCOLS = range(2, 6)
_PROTO = 0x80


def detect(view: memoryview) -> int:
    """Recognise the protocol number that begins a pickle."""
    return 2 if len(view) > 2 and view[0] == _PROTO and view[1] in _PROTOCOLS else 0


def find(view: memoryview) -> Iterator[Span]:
    """Yield the arrays of a pickle. Raises :class:`Damaged`."""
    for name, found in find_leaves(_NumpyPickle(view).run()):
        if isinstance(found, _Array):
            one, length = found.one, found.end - found.start
            yield from array_span(name, found.start, length, one.kind, (*found.shape, *one.tail))


@dataclass(frozen=True, slots=True)
class _Array:
    start: int
    end: int
    one: Element
    shape: tuple[int, ...]


class _NumpyPickle(Machine):
    depth = 0
    """How many pickles this one is in."""

    def make(self, function: object, args: object) -> object:
        made = PickledObject(function, args)
        match args:
            case (ByteRange() as at, dtype, shape, order) if _numpy(function, "_frombuffer"):
                made.leaf = _array(at, dtype, shape, fortran=order == "F")
        return made

    def build(self, made: PickledObject, state: object) -> None:
        match state:
            case (_, shape, dtype, fortran, content) if _numpy(made.function, "_reconstruct"):
                made.states.append(content)  # an array of objects has them in a list
                if isinstance(content, ByteRange):
                    made.leaf = _array(content, dtype, shape, fortran=fortran is True)
            case PickledObject() if global_path(made.function).endswith(
                "numpy_pickle.NumpyArrayWrapper"
            ):
                self._skip_array(made, state)
            case _:
                made.states.append(state)

    def _skip_array(self, made: PickledObject, wrapper: PickledObject) -> None:
        """Step over the bytes of joblib's array, which begin at a multiple of 16."""
        dtype, shape = wrapper.get("dtype"), _dims(wrapper.get("shape"))
        width = _width(dtype)
        if _code(dtype).startswith("O"):
            self._run_inner(made)
            return
        if width is None or shape is None:
            raise Damaged("a joblib array of unknown size")
        if wrapper.get("numpy_array_alignment_bytes") is not None:
            self.file.seek(sum(self.file.read(1)), 1)
        start = self.file.tell()
        at = ByteRange(start, start + prod(shape) * width)
        made.leaf = _array(at, dtype, shape, fortran=wrapper.get("order") == "F")
        self.file.seek(at.end)

    def _run_inner(self, made: PickledObject) -> None:
        inner = _NumpyPickle(self.view, self.file.tell())
        inner.depth, inner.left = self.depth + 1, self.left
        if inner.depth > MAX_DEPTH:
            raise Damaged(f"pickles within pickles, more than {MAX_DEPTH} deep")
        made.states.append(inner.run())
        self.file.seek(inner.file.tell())
        self.left = inner.left


def _numpy(function: object, name: str) -> bool:
    path = global_path(function)
    return path.startswith("numpy.") and path.endswith(f".{name}")


def _array(at: ByteRange, dtype: object, shape: object, *, fortran: bool) -> _Array | None:
    one, dims = element(_byte_order(dtype) + _code(dtype)), _dims(shape)
    if one is None or dims is None:
        return None
    return _Array(at.start, at.end, one, dims[::-1] if fortran else dims)


def _dims(shape: object) -> tuple[int, ...] | None:
    if not isinstance(shape, tuple) or len(shape) > MAX_RANK:
        return None
    dims = tuple(dim for dim in shape if type(dim) is int and dim >= 0)
    return dims if len(dims) == len(shape) else None


# A type is numpy.dtype called with its code, "f4", and given a state: version, byte order,
# sub-array, names, fields, bytes of one element (-1 if the code has them), and more.


def _code(dtype: object) -> str:
    match dtype:
        case PickledObject(function=function, args=(str(code), *_)) if (
            global_path(function) == "numpy.dtype"
        ):
            return code
    return ""


def _byte_order(dtype: object) -> str:
    match dtype:
        case PickledObject(states=[(_, str(order), *_)]) if order in "<>|=":
            return order
    return ""


def _width(dtype: object) -> int | None:
    one = element(_code(dtype))
    if one:
        return one.width
    match dtype:
        case PickledObject(states=[(_, _, _, _, _, int(width), *_)]) if width > 0:
            return width
    return None
