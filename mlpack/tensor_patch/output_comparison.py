"""Compares the outputs of two models on the same rows: numbers, decisions, labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpack.errors import MlpackError

Array = NDArray[Any]
Outputs = Mapping[str, Array]
"""A model's outputs by name, in the model's order."""


class NotComparable(MlpackError):
    """Outputs of different models, or labels that do not fit them."""

    hint = "compare a rounded model with its original, with one label for each decision"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How well a rounded model agrees with the exact one on the same rows."""

    max_error: float
    """The largest absolute difference between outputs; infinite if one is NaN."""

    agreement: float | None
    """The share of equal decisions (0 to 1); ``None`` if no output is a decision."""

    exact_accuracy: float | None
    rounded_accuracy: float | None
    """The shares of correct decisions; ``None`` without labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The bounds for a rounded model; at least one is set."""

    max_error: float | None = None
    min_agreement: float | None = None
    min_accuracy: float | None = None

    def broken(self, found: Agreement) -> str:
        """Return which bound ``found`` breaks, as the end of a sentence; empty if none."""
        if self.max_error is not None and not found.max_error <= self.max_error:
            return f"an output differs by {found.max_error:.3g}, {self.max_error:g} is allowed"
        for least, share, what in (
            (self.min_agreement, found.agreement, "agree"),
            (self.min_accuracy, found.rounded_accuracy, "are right"),
        ):
            if least is not None and share is None:
                return "no output is a decision, so there is no agreement to measure"
            if least is not None and share is not None and share < least:
                return f"{_percent(share)} of decisions {what}, {_percent(least)} are required"
        return ""


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def compare(
    exact: Sequence[Outputs], rounded: Sequence[Outputs], labels: Array | None = None
) -> Agreement:
    """Compare the outputs for the same batches.

    Decisions are the indices of the greatest values along the last axis (two or longer) of the
    first output of floats that has one; otherwise the first output that is not of floats.
    ``labels`` has one for each decision, in any shape. The distance of different strings is
    infinite. Raises :class:`NotComparable`.
    """
    errors = [
        _distance(one[name], other[name]) for one, other in _pairs(exact, rounded) for name in one
    ]
    before, after = _decisions(exact), _decisions(rounded)
    agreement = None
    if before is not None and after is not None:
        agreement = float(np.mean(before == after)) if before.size == after.size else 0.0
    elif labels is not None:
        raise NotComparable("the model has no output that is a decision to compare with labels")
    return Agreement(
        max_error=max(errors),
        agreement=agreement,
        exact_accuracy=_accuracy(before, labels),
        rounded_accuracy=_accuracy(after, labels),
    )


def _pairs(exact: Sequence[Outputs], rounded: Sequence[Outputs]) -> list[tuple[Outputs, Outputs]]:
    if not exact or len(exact) != len(rounded):
        raise NotComparable(f"{len(exact)} and {len(rounded)} batches cannot be compared")
    for one, other in zip(exact, rounded, strict=True):
        if list(one) != list(other) or not one:
            raise NotComparable(f"outputs {', '.join(one)} and {', '.join(other)} are not the same")
    return list(zip(exact, rounded, strict=True))


def _distance(one: Array, other: Array) -> float:
    """Return the largest absolute difference; infinite if shapes, strings or infinities differ."""
    if one.shape != other.shape:
        return math.inf
    if not one.size:
        return 0.0
    if bool(np.all(one == other)):
        return 0.0
    if "O" in (one.dtype.kind, other.dtype.kind) or one.dtype.kind in "US":
        return math.inf
    return float(_apart(one, other).max())


def _apart(one: Array, other: Array) -> Array:
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(one.astype(np.float64) - other.astype(np.float64))
    apart[one == other] = 0.0
    # NaN says nothing, so assume the worst.
    apart[np.isnan(apart)] = math.inf
    return apart


def mean_square(exact: Sequence[Outputs], rounded: Sequence[Outputs]) -> float:
    """Return the mean square difference of all outputs of floats; infinite if one is NaN."""
    total, count = 0.0, 0
    for one, other in _pairs(exact, rounded):
        for name, output in one.items():
            if output.dtype.kind == "f" and output.shape == other[name].shape:
                apart = _apart(output, other[name])
                total += float(np.square(apart, out=apart).sum())
                count += output.size
    return total / max(count, 1)


def _decisions(batches: Sequence[Outputs]) -> Array | None:
    """Return the decisions of all batches, one after the other."""
    first = batches[0]
    for name, output in first.items():
        if output.dtype.kind == "f" and output.ndim and output.shape[-1] > 1:
            return np.concatenate([each[name].argmax(-1).ravel() for each in batches])
    for name, output in first.items():
        if output.dtype.kind != "f":
            return np.concatenate([each[name].ravel() for each in batches])
    return None


def _accuracy(decisions: Array | None, labels: Array | None) -> float | None:
    if decisions is None or labels is None:
        return None
    if labels.size != decisions.size:
        raise NotComparable(
            f"there are {labels.size} labels for {decisions.size} decisions",
            hint="give one label for each row, as the model's class numbers",
        )
    return float(np.mean(decisions == labels.ravel()))
