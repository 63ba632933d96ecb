"""Check data as a model takes it: arrays by input name, cut into batches of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpack.errors import MlpackError
from mlpack.runtime.signature import Signature, Tensor

Array = NDArray[Any]

LABELS = "labels"
"""The array with the right decisions; no input of a model can be called so here."""

_ROWS = 32
"""Rows that are scored at once, where the model takes any number."""


class BadCheck(MlpackError):
    """Check data that cannot be read, or that the model does not take."""

    hint = "save it with numpy: np.savez('check.npz', INPUT=array of rows, labels=classes)"


@dataclass(frozen=True, kw_only=True)
class Check:
    """Arrays by input name, rows first, and what is the right decision for each."""

    name: str
    """The file's, for messages."""

    sha256: str
    arrays: Mapping[str, Array]
    labels: Array | None

    def fitted(self, signature: Signature) -> Batches:
        """The arrays as the batches that a model takes; raise :class:`BadCheck`.

        A model with one input takes the only array, whatever it is called. Where the first
        dimension of all inputs is free, or the same, rows are given in as many batches as it
        needs; inputs without dimensions are the same in each. Any other model is given all at
        once.
        """
        try:
            return _Fitting(self._named(signature), signature).batches()
        except BadCheck as error:
            raise BadCheck(f"{self.name}: {error}; the model takes {signature}") from None

    def _named(self, signature: Signature) -> dict[str, Array]:
        inputs = [each.name for each in signature.inputs]
        if len(inputs) == 1 and len(self.arrays) == 1:
            return {inputs[0]: next(iter(self.arrays.values()))}
        for name in inputs:
            if name not in self.arrays:
                there = ", ".join(sorted(self.arrays)) or "no array"
                raise BadCheck(f"there is no array for input {name!r} (there is: {there})")
        for name in sorted(self.arrays):
            if name not in inputs:
                raise BadCheck(f"the model has no input {name!r}")
        return {name: self.arrays[name] for name in inputs}


@dataclass(frozen=True, slots=True)
class Batches:
    """What a model is given, one after the other; ``rows`` in all."""

    rows: int
    inputs: tuple[Mapping[str, Array], ...]


class _Fitting:
    def __init__(self, arrays: Mapping[str, Array], signature: Signature) -> None:
        self._inputs = signature.inputs
        self._arrays = {each.name: _typed(arrays[each.name], each) for each in self._inputs}
        self._rowed = [each for each in self._inputs if each.shape]

    def batches(self) -> Batches:
        """The batches, or one of all."""
        firsts = {each.shape[0] if isinstance(each.shape[0], int) else 0 for each in self._rowed}
        if len(firsts) == 1 and (found := self._by_rows(firsts.pop())):
            return found
        for each in self._inputs:
            if not _fits(self._arrays[each.name].shape, each.shape):
                shape = list(self._arrays[each.name].shape)
                raise BadCheck(f"the array for {each.name!r} has shape {shape}")
        rows = max((len(self._arrays[each.name]) for each in self._rowed), default=1)
        return Batches(rows, (self._arrays,))

    def _by_rows(self, fixed: int) -> Batches | None:
        """Batches of ``fixed`` rows each, or of any number where it is 0."""
        counts = {len(self._arrays[each.name]) for each in self._rowed if self._rows_fit(each)}
        if len(counts) != 1 or not all(map(self._rows_fit, self._rowed)):
            return None
        rows, size = counts.pop(), fixed or _ROWS
        if fixed and rows % fixed:
            raise BadCheck(f"{rows} rows are no whole number of batches of {fixed}")
        names = {each.name for each in self._rowed}
        return Batches(
            rows,
            tuple(
                {
                    name: array[first : first + size] if name in names else array
                    for name, array in self._arrays.items()
                }
                for first in range(0, rows, size)
            ),
        )

    def _rows_fit(self, each: Tensor) -> bool:
        shape = self._arrays[each.name].shape
        return bool(shape) and _fits(shape[1:], each.shape[1:])


def _typed(array: Array, expected: Tensor) -> Array:
    """``array`` if it is of the input's type: what rounds or wraps before would be no proof."""
    if not array.size:
        raise BadCheck(f"the array for {expected.name!r} is empty: there are no rows")
    if expected.dtype is None:
        raise BadCheck(f"input {expected.name!r} takes what no array holds")
    if expected.dtype.kind == "O" and array.dtype.kind == "U":
        return array.astype(object)
    if array.dtype != expected.dtype:
        raise BadCheck(
            f"the array for {expected.name!r} holds {array.dtype}, and not {expected.dtype}"
        )
    return np.ascontiguousarray(array)


def _fits(shape: tuple[int, ...], wanted: tuple[int | str | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        have == want for have, want in zip(shape, wanted, strict=True) if isinstance(want, int)
    )
