"""Validation data as a model takes it: arrays by input name, cut into batches of rows."""

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
"""The array with the right decisions; an input of this name cannot be validated."""

_ROWS = 32
"""Rows that are scored at once, if the model takes any number."""


class InvalidValidationData(MlpackError):
    """Validation data that cannot be read, or that does not fit the model."""

    hint = "save it with numpy: np.savez('check.npz', INPUT=array of rows, labels=classes)"


@dataclass(frozen=True, kw_only=True)
class ValidationData:
    """Arrays by input name, rows first, and the right decision for each row."""

    name: str
    """The file's, for messages."""

    sha256: str
    arrays: Mapping[str, Array]
    labels: Array | None

    def fitted(self, signature: Signature) -> Batches:
        """Return the arrays as the batches of a model; raise :class:`InvalidValidationData`.

        A model with one input takes the only array, whatever its name. If the first dimension of
        all inputs is free, or the same, rows are split into as many batches as needed; inputs
        without dimensions are the same in each. Any other model gets all rows at once.
        """
        try:
            return _Fitting(self._named(signature), signature).batches()
        except InvalidValidationData as error:
            raise InvalidValidationData(
                f"{self.name}: {error}; the model takes {signature}"
            ) from None

    def _named(self, signature: Signature) -> dict[str, Array]:
        inputs = [each.name for each in signature.inputs]
        required = [each.name for each in signature.required]
        if len(required) == 1 and len(self.arrays) == 1:
            return {required[0]: next(iter(self.arrays.values()))}
        for name in required:
            if name not in self.arrays:
                there = ", ".join(sorted(self.arrays)) or "no array"
                raise InvalidValidationData(
                    f"there is no array for input {name!r} (there is: {there})"
                )
        for name in sorted(self.arrays):
            if name not in inputs:
                raise InvalidValidationData(f"the model has no input {name!r}")
        return {name: self.arrays[name] for name in inputs if name in self.arrays}


@dataclass(frozen=True, slots=True)
class Batches:
    """A model's inputs, batch after batch; ``rows`` in all."""

    rows: int
    inputs: tuple[Mapping[str, Array], ...]


class _Fitting:
    def __init__(self, arrays: Mapping[str, Array], signature: Signature) -> None:
        self._inputs = [each for each in signature.inputs if each.name in arrays]
        self._arrays = {each.name: _typed(arrays[each.name], each) for each in self._inputs}
        self._rowed = [each for each in self._inputs if each.shape]

    def batches(self) -> Batches:
        """The batches, or one of all."""
        firsts = {each.shape[0] if isinstance(each.shape[0], int) else 0 for each in self._rowed}
        if len(firsts) == 1 and (found := self._by_rows(firsts.pop())):
            return found
        for each in self._inputs:
            if not each.takes(self._arrays[each.name].shape):
                shape = list(self._arrays[each.name].shape)
                raise InvalidValidationData(f"the array for {each.name!r} has shape {shape}")
        rows = max((len(self._arrays[each.name]) for each in self._rowed), default=1)
        return Batches(rows, (self._arrays,))

    def _by_rows(self, fixed: int) -> Batches | None:
        """Return batches of ``fixed`` rows each, or of any number if it is 0."""
        counts = {len(self._arrays[each.name]) for each in self._rowed if self._rows_fit(each)}
        if len(counts) != 1 or not all(map(self._rows_fit, self._rowed)):
            return None
        rows, size = counts.pop(), fixed or _ROWS
        if fixed and rows % fixed:
            raise InvalidValidationData(f"{rows} rows are not a whole number of batches of {fixed}")
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
    """Return ``array`` if it has the input's type: rounded or wrapped numbers prove nothing."""
    if not array.size:
        raise InvalidValidationData(f"the array for {expected.name!r} is empty: there are no rows")
    if expected.dtype is None:
        raise InvalidValidationData(f"input {expected.name!r} takes values that no array can hold")
    if expected.dtype.kind == "O" and array.dtype.kind == "U":
        return array.astype(object)
    if array.dtype != expected.dtype:
        raise InvalidValidationData(
            f"the array for {expected.name!r} holds {array.dtype}, not {expected.dtype}"
        )
    # Not ascontiguousarray, which adds a dimension to scalars.
    return np.asarray(array, order="C")


def _fits(shape: tuple[int, ...], expected: tuple[int | str | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        size == each for size, each in zip(shape, expected, strict=True) if isinstance(each, int)
    )
