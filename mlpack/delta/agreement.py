"""How far the answers of two models are apart on the same rows: numbers, decisions, labels."""

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
"""What a model answers, by the name of the output, in the model's own order."""


class NotComparable(MlpackError):
    """Answers that have nothing in common, or labels that fit none of them."""

    hint = "a rounded model is compared with the one it was made of, on labels of each decision"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Two models on the same rows: the exact one and the rounded one."""

    max_error: float
    """The largest absolute difference between outputs; infinite where one is no number."""

    agreement: float | None
    """The share of equal decisions (0 to 1), where the models decide anything."""

    exact_accuracy: float | None
    rounded_accuracy: float | None
    """The shares of decisions that are the labels; ``None`` without labels."""

    def to_json(self) -> dict[str, object]:
        """Part of the document of ``mlpack --json round``."""
        return {
            # JSON has no infinity.
            "max_error": self.max_error if math.isfinite(self.max_error) else None,
            "agreement": self.agreement,
            "exact_accuracy": self.exact_accuracy,
            "rounded_accuracy": self.rounded_accuracy,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a rounded model must keep: at least one of the two is set."""

    max_error: float | None = None
    min_agreement: float | None = None

    def broken(self, found: Agreement) -> str:
        """Which bound ``found`` breaks, as the end of a sentence; empty where it keeps them."""
        if self.max_error is not None and not found.max_error <= self.max_error:
            return f"an output differs by {found.max_error:.3g}, {self.max_error:g} is allowed"
        if self.min_agreement is not None:
            if found.agreement is None:
                return "no output is a decision, so there is no agreement to measure"
            if found.agreement < self.min_agreement:
                return (
                    f"{_percent(found.agreement)} of decisions agree, "
                    f"{_percent(self.min_agreement)} are wanted"
                )
        return ""


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def compare(
    exact: Sequence[Outputs], rounded: Sequence[Outputs], labels: Array | None = None
) -> Agreement:
    """The agreement of the answers to the same batches.

    Decisions are the places of the greatest values along the last axis (two or longer) of the
    first output of floats that has one; else the first output that holds no floats. ``labels``
    has one for each decision, in any shape. Texts that differ are infinitely far apart. Raises
    :class:`NotComparable`.
    """
    errors = [
        _distance(one[name], other[name]) for one, other in _pairs(exact, rounded) for name in one
    ]
    before, after = _decisions(exact), _decisions(rounded)
    if before is None or after is None:
        if labels is not None:
            raise NotComparable("the model has no output that is a decision to compare with labels")
        return Agreement(
            max_error=max(errors), agreement=None, exact_accuracy=None, rounded_accuracy=None
        )
    return Agreement(
        max_error=max(errors),
        agreement=float(np.mean(before == after)) if before.size == after.size else 0.0,
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
    """The largest absolute difference; infinite where shapes, texts or infinities differ."""
    if one.shape != other.shape:
        return math.inf
    if not one.size:
        return 0.0
    same = one == other
    if bool(np.all(same)):
        return 0.0
    if "O" in (one.dtype.kind, other.dtype.kind) or one.dtype.kind in "US":
        return math.inf
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(one.astype(np.float64) - other.astype(np.float64))
    apart = np.where(same, 0.0, apart)
    # Nothing can be said of what is no number, so it is as bad as can be.
    return float(np.where(np.isnan(apart), math.inf, apart).max())


def _decisions(batches: Sequence[Outputs]) -> Array | None:
    """The decisions of all batches, one after the other."""
    first = batches[0]
    for name, output in first.items():
        if output.dtype.kind == "f" and output.ndim and output.shape[-1] > 1:
            return np.concatenate([each[name].argmax(-1).ravel() for each in batches])
    for name, output in first.items():
        if output.dtype.kind != "f":
            return np.concatenate([each[name].ravel() for each in batches])
    return None


def _accuracy(decisions: Array, labels: Array | None) -> float | None:
    if labels is None:
        return None
    if labels.size != decisions.size:
        raise NotComparable(
            f"there are {labels.size} labels for {decisions.size} decisions",
            hint="give one label for each row, as the model's class numbers",
        )
    return float(np.mean(decisions == labels.ravel()))
