"""Rounds what changed in a model, which makes another model with a much smaller patch.

Each difference from the old number becomes a multiple of a step, a power of two. The result is
another model: its quality has to be measured (:mod:`mlpack.tensor_patch.output_comparison`), and
exactly this model shipped. Which array has which step is chosen by
:mod:`mlpack.tensor_patch.step_choice`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlpack.errors import MlpackError
from mlpack.runtime.patch.arrays import BLOCK, Array, NumberType, exponents, stepped
from mlpack.tensor_patch.match import match, numbers
from mlpack.tensor_patch.patch import Contents, counterparts, spans_by_file
from mlpack.tensor_patch.steps import LARGEST, steps, values

LEAST = 16
"""Arrays with fewer elements stay exact: they cost little, and some set sizes (ONNX's Resize)."""


class NothingToRound(MlpackError):
    """A model whose patch rounding does not shrink."""

    hint = "ship the exact version: its patch is as small"


@dataclass(frozen=True, slots=True, eq=False)
class ChangedArray:
    """An array of floats that differs from the old model's; both are given by their bits."""

    path: str
    """The file's, in the new model."""

    name: str
    offset: int
    kind: NumberType
    old: Array
    new: Array


def changed_arrays(old: Contents, new: Contents) -> list[ChangedArray]:
    """Return the arrays of :data:`LEAST` floats or more that changed and have an old array."""
    old_spans, new_spans = spans_by_file(old), spans_by_file(new)
    return [
        ChangedArray(
            path=path,
            name=pair.new.name,
            offset=pair.new.offset,
            kind=pair.kind,
            old=numbers(old[before], pair.old),
            new=numbers(new[path], pair.new),
        )
        for path, before in counterparts(old, new).items()
        for pair in match(old[before], new[path], old_spans[before], new_spans[path])
        if pair.old and not pair.same and pair.kind.fraction
        if pair.new.length >= LEAST * pair.kind.size
    ]


def rounded_files(new: Contents, rounded: Sequence[tuple[ChangedArray, int]]) -> dict[str, bytes]:
    """Return the files of ``new`` that change if arrays are rounded to the steps given."""
    made = dict[str, bytearray]()
    for each, step in rounded:
        content = made.setdefault(each.path, bytearray(new[each.path]))
        found = round_array(each.kind, each.old, each.new, step).tobytes()
        content[each.offset : each.offset + len(found)] = found
    return {path: bytes(each) for path, each in made.items() if each != new[path]}


def round_array(kind: NumberType, old: Array, new: Array, step: int) -> Array:
    """Round the differences of ``new`` from ``old`` (bits of floats) to multiples of ``2**step``.

    A number is off by half a step at most, and half a unit in its last place. It is not rounded
    if it, the old one, or the result is not finite, or the multiple exceeds
    :data:`~mlpack.tensor_patch.steps.LARGEST`.
    """
    made = np.empty_like(new)
    for first in range(0, len(new), BLOCK):
        here = slice(first, first + BLOCK)
        before, after = old[here], new[here]
        found = stepped(kind, before, steps(kind, before, after, step), step)
        with np.errstate(invalid="ignore", over="ignore"):
            fits = np.abs(values(kind, after) - values(kind, before)) <= LARGEST * 2.0**step
        finite = exponents(kind, found) < kind.exponents - 1
        made[here] = np.where(fits & finite, found, after)
    return made
