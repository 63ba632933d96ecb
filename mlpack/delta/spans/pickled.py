"""The arrays of numpy in pickles, as scikit-learn's models are saved, by joblib or without it.

A pickle of protocol 3 or later holds an array's bytes in one piece. joblib writes them between
two instructions, after an object that says what they are (joblib.numpy_pickle).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from mlpack.delta.spans.dtype import Element, element
from mlpack.delta.spans.pickle_machine import Machine
from mlpack.delta.spans.pickle_values import Made, Piece, called, leaves
from mlpack.delta.spans.span import MAX_RANK, Damaged, Span, array

MAX_DEPTH = 8
"""Of pickles within pickles, as joblib writes arrays of objects."""

_PROTOCOLS = range(2, 6)
_PROTOCOL = 0x80


def is_one(view: memoryview) -> bool:
    """Whether a file begins as pickles do: with the number of a protocol."""
    return len(view) > 2 and view[0] == _PROTOCOL and view[1] in _PROTOCOLS


def find(view: memoryview) -> Iterator[Span]:
    """The arrays of a pickle. Raises :class:`Damaged`."""
    for name, found in leaves(_Numpy(view).run()):
        if isinstance(found, _Array):
            one, length = found.one, found.end - found.start
            yield from array(name, found.start, length, one.kind, (*found.shape, *one.tail))


@dataclass(frozen=True, slots=True)
class _Array:
    start: int
    end: int
    one: Element
    shape: tuple[int, ...]


class _Numpy(Machine):
    depth = 0
    """How many pickles this one is in."""

    def make(self, what: object, args: object) -> object:
        made = Made(what, args)
        match args:
            case (Piece() as piece, dtype, shape, order) if _of_numpy(what, "_frombuffer"):
                made.leaf = _found(piece, dtype, shape, fortran=order == "F")
        return made

    def build(self, made: Made, state: object) -> None:
        path = called(made.what)
        match state:
            case (_, shape, dtype, fortran, content) if _of_numpy(made.what, "_reconstruct"):
                made.states.append(content)  # of objects, the list of them
                if isinstance(content, Piece):
                    made.leaf = _found(content, dtype, shape, fortran=fortran is True)
            case Made() if path.endswith("numpy_pickle.NumpyArrayWrapper"):
                self._between(made, state)
            case _:
                made.states.append(state)

    def _between(self, made: Made, said: Made) -> None:
        """Step over the bytes of joblib's array, which begin at a multiple of 16."""
        dtype, shape = said.get("dtype"), _dims(said.get("shape"))
        width = _width(dtype)
        if _code(dtype).startswith("O"):
            self._inner(made)
            return
        if width is None or shape is None:
            raise Damaged("an array of joblib whose size is not said")
        if said.get("numpy_array_alignment_bytes") is not None:
            self.at += 1 + (self.view[self.at] if self.at < len(self.view) else 0)
        piece = Piece(self.at, self.at + prod(shape) * width)
        made.leaf = _found(piece, dtype, shape, fortran=said.get("order") == "F")
        self.at = piece.end

    def _inner(self, made: Made) -> None:
        inner = _Numpy(self.view, self.at)
        inner.depth, inner.left = self.depth + 1, self.left
        if inner.depth > MAX_DEPTH:
            raise Damaged(f"pickles within pickles, more than {MAX_DEPTH} deep")
        made.states.append(inner.run())
        self.at, self.left = inner.at, inner.left


def _of_numpy(what: object, name: str) -> bool:
    return called(what).startswith("numpy.") and called(what).endswith(f".{name}")


def _found(piece: Piece, dtype: object, shape: object, *, fortran: bool) -> _Array | None:
    one, dims = element(_order(dtype) + _code(dtype)), _dims(shape)
    if one is None or dims is None:
        return None
    return _Array(piece.start, piece.end, one, dims[::-1] if fortran else dims)


def _dims(shape: object) -> tuple[int, ...] | None:
    if not isinstance(shape, tuple) or len(shape) > MAX_RANK:
        return None
    dims = tuple(dim for dim in shape if type(dim) is int and dim >= 0)
    return dims if len(dims) == len(shape) else None


# A type is numpy.dtype called with its code, "f4", and given a state: version, byte order,
# sub-array, names, fields, bytes of one element (-1 where the code says it), and more.


def _code(dtype: object) -> str:
    match dtype:
        case Made(what=what, args=(str(code), *_)) if called(what) == "numpy.dtype":
            return code
    return ""


def _order(dtype: object) -> str:
    match dtype:
        case Made(states=[(_, str(order), *_)]) if order in "<>|=":
            return order
    return ""


def _width(dtype: object) -> int | None:
    one = element(_code(dtype))
    if one:
        return one.width
    match dtype:
        case Made(states=[(_, _, _, _, _, int(width), *_)]) if width > 0:
            return width
    return None
