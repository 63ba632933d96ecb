"""The answers of a converted model, held against those of its estimator."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpack.model.comparison import Bounds, Difference
from mlpack.project.importers.estimator_columns import dense
from mlpack.project.importers.estimator_rows import Layout, Rows

Array = NDArray[Any]

_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Answers:
    """What was answered for each row: labels, and numbers by the name of an output."""

    labels: Array | None
    numbers: Mapping[str, Array]
    """Arrays of shape (rows, numbers)."""

    absolute: bool = False
    """Whether the numbers are probabilities, which are compared as they are."""

    widths: tuple[int, ...] = ()
    """Classes of each decision, if the numbers are those of several."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The differences, and the row that is worst."""

    difference: Difference
    row: int = -1
    what: str = ""
    """The worst row's answers, in words."""


def estimator_input(rows: Rows, layout: Layout, named: bool) -> object:
    """Return the rows as the estimator takes them; ``named`` needs pandas."""
    columns = rows.columns
    if layout == "documents":
        return next(iter(columns.values()))
    if layout == "matrix":
        return np.column_stack(list(columns.values()))
    if named:
        import pandas

        return pandas.DataFrame(dict(columns))
    return np.column_stack([each.astype(object) for each in columns.values()])


def estimator_answers(estimator: object, given: object, outputs: Sequence[str]) -> Answers:
    """Ask the estimator for what the converted model's ``outputs`` hold.

    Its first output is the label or the value, the others what the estimator has besides:
    probabilities, the decision function, or distances.
    """
    from sklearn.base import is_classifier

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if not hasattr(estimator, "predict"):
            return Answers(None, {outputs[0]: _table(estimator.transform(given))})  # type: ignore[attr-defined]
        first = np.asarray(estimator.predict(given))
        if not has_labels(estimator):
            return Answers(None, {outputs[0]: _table(first)})
        method = next((each for each in _SCORES if hasattr(estimator, each)), "")
        if method == "transform" and is_classifier(estimator):
            method = ""  # of a vote: what its members say
        if len(outputs) == 1 or not method:
            return Answers(first, {})
        scores = getattr(estimator, method)(given)
    probabilities = method == "predict_proba"
    if isinstance(scores, list):
        tables = [_table(each) for each in scores]
        if len(outputs) == 1 + len(tables):
            return Answers(first, dict(zip(outputs[1:], tables, strict=True)), probabilities)
        widths = tuple(each.shape[1] for each in tables)
        return Answers(first, {outputs[1]: np.concatenate(tables, axis=1)}, probabilities, widths)
    return Answers(first, {outputs[1]: _table(scores)}, probabilities)


_SCORES = ("predict_proba", "decision_function", "transform")


def has_labels(estimator: object) -> bool:
    """Whether the estimator decides: a classifier, clusterer, mixture or detector of outliers."""
    from sklearn.base import is_regressor

    return hasattr(estimator, "predict") and not is_regressor(estimator)


def model_answers(outputs: Mapping[str, object], expected: Answers) -> Answers:
    """Return the model's outputs in the form of the estimator's answers.

    Raises :class:`ValueError` if an output has other dimensions than the estimator's.
    """
    names = list(outputs)
    labels = None
    if expected.labels is not None:
        labels = np.asarray(outputs[names[0]]).reshape(expected.labels.shape)
    numbers = {}
    for name, wanted in expected.numbers.items():
        found = np.asarray(outputs[name])
        if found.ndim == 3:  # a forest of several decisions, padded: decisions, rows, classes
            parts = zip(found, expected.widths, strict=True)
            found = np.concatenate([part[:, :width] for part, width in parts], axis=1)
        numbers[name] = _fit(found, wanted, name)
    return Answers(labels, numbers, expected.absolute)


def _fit(found: Array, wanted: Array, name: str) -> Array:
    if found.ndim == 1 and found.size == len(wanted):
        found = found.reshape(-1, 1)
    if found.shape[-1:] == (2,) and wanted.shape[1] == 1:
        found = found[:, 1:]  # both signs of one decision
    if found.shape != wanted.shape:
        raise ValueError(
            f"output {name} has shape {list(found.shape)}, the estimator's {list(wanted.shape)}"
        )
    return found


def compare(expected: Answers, found: Answers, rows: Rows, bounds: Bounds) -> Compared:
    """Compare two sets of answers to ``rows``."""
    errors = np.zeros(len(rows))
    for name, wanted in expected.numbers.items():
        errors = np.maximum(errors, _errors(wanted, found.numbers[name], rows, expected.absolute))
    error = float(errors.max(initial=0.0))
    unequal = _unequal(expected, found, bounds)
    share = None if unequal is None else float(unequal.mean())
    difference = Difference(error, share)
    if unequal is not None and unequal.any():
        row = int(unequal.argmax())
        what = f"label {_show(found.labels, row)}, the estimator says {_show(expected.labels, row)}"
        return Compared(difference, row, what)
    row = int(errors.argmax())
    return Compared(difference, row, " and ".join(_worst(expected, found, row)))


def _errors(wanted: Array, found: Array, rows: Rows, absolute: bool) -> Array:
    """Return the largest error in each row."""
    ends = (-_FLOAT32, _FLOAT32)
    with np.errstate(all="ignore"):
        one, other = (np.clip(each.astype(float), *ends) for each in (wanted, found))
        off = np.abs(one - other)
        off[np.isnan(one) & np.isnan(other)] = 0.0
        off[np.isnan(off)] = inf
        if not absolute:
            for part in rows.parts():
                size = np.abs(one[part])
                off[part] /= np.maximum(np.nan_to_num(size, nan=0.0), _scale(size))
        # Zero by zero: equal.
        largest: Array = np.nan_to_num(off, nan=0.0, posinf=inf).max(axis=1, initial=0.0)
    return largest


def _scale(size: Array) -> Array:
    """Return the usual size of each number: differences of what cancels to 0 are none."""
    finite: Array = np.where(np.isfinite(size), size, 0.0)
    usual: Array = finite.mean(axis=0, keepdims=True)
    least = max(float(usual.max(initial=0.0)) * 1e-6, 1e-9)
    return np.asarray(np.maximum(usual, least))


def _unequal(expected: Answers, found: Answers, bounds: Bounds) -> Array | None:
    """Return which rows have another label, unless the estimator itself is undecided there."""
    if expected.labels is None or found.labels is None:
        return None
    if expected.labels.dtype.kind in "OUS":
        same = expected.labels.astype(str) == found.labels.astype(str)
    else:
        same = expected.labels.astype(float) == found.labels.astype(float)
    rows = same.reshape(len(same), -1).all(axis=1)
    undecided: Array = np.zeros(len(rows), dtype=bool)
    if expected.labels.ndim == 1 and len(expected.numbers) == 1:
        undecided = _margins(next(iter(expected.numbers.values()))) <= min(bounds.max_error, 1e-5)
    different: Array = ~rows & ~undecided
    return different


def _margins(scores: Array) -> Array:
    """Return by how much the first choice leads over the second."""
    if scores.shape[1] == 1:
        return np.asarray(np.abs(scores[:, 0]))
    ordered = np.sort(scores, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])


def _worst(expected: Answers, found: Answers, row: int) -> Iterator[str]:
    for name, wanted in expected.numbers.items():
        one, other = wanted[row].astype(float), found.numbers[name][row].astype(float)
        with np.errstate(all="ignore"):
            index = int(np.nan_to_num(np.abs(one - other), nan=inf).argmax())
        yield f"{name} {other[index]:.9g}, the estimator says {one[index]:.9g}"


def _show(labels: Array | None, row: int) -> str:
    return str(labels[row]) if labels is not None else ""


def _table(value: object) -> Array:
    array = np.asarray(dense(value))
    return array.reshape(len(array), -1)
