"""What a fitted estimator says of its input columns: ranges, thresholds, categories, words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, pairwise
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpack.project.importers.source import UnreadableModel

Array = NDArray[Any]

MAX_INNER = 40
"""Estimators of an ensemble that are looked at: more change no range much."""

MAX_POINTS = 2_000


@dataclass
class Column:
    """One input column, as far as the estimator tells of it."""

    name: str
    points: list[float] = field(default_factory=list)
    """Numbers that matter: both ends of a range, between thresholds, categories."""

    bounded: bool = False
    """Whether numbers beyond the points are not to be made: counts, categories."""

    texts: list[str] = field(default_factory=list)
    """Categories."""

    words: list[str] = field(default_factory=list)
    """Words of documents."""

    text: bool = False
    missing: bool = False
    """Whether values may be missing."""

    used: bool | None = None
    """Whether a transformer by column reads it; ``None`` without one."""

    integers: bool = False
    """Whether the categories are whole numbers."""

    def span(self, low: float, high: float) -> None:
        """Add the ends of a range."""
        self.points += [float(each) for each in (low, high) if np.isfinite(each)]

    @property
    def known(self) -> bool:
        """Whether the estimator told anything."""
        return bool(self.points or self.texts or self.words)


def learn(estimator: object, columns: Sequence[Column]) -> bool:
    """Add what ``estimator`` says of its input ``columns``; return whether it says anything."""
    if (steps := getattr(estimator, "steps", None)) is not None:
        return _learn_steps(steps, columns)
    if hasattr(estimator, "transformers_"):
        return _learn_by_column(estimator, columns)
    if (listed := getattr(estimator, "transformer_list", None)) is not None:
        return any([learn(each, columns) for _, each in listed])
    if any([read(estimator, columns) for read in _READERS]):
        return True
    return any([learn(each, columns) for each in _inner(estimator, len(columns))])


def _learn_steps(steps: Sequence[tuple[str, object]], columns: Sequence[Column]) -> bool:
    """Read the steps of a pipeline, as far as they see the columns as they come in."""
    found = False
    for _, step in steps:
        if step is None or isinstance(step, str):
            continue
        found |= learn(step, columns)
        if not hasattr(step, "statistics_") or getattr(step, "add_indicator", False):
            return found
    return found


def _learn_by_column(estimator: object, columns: Sequence[Column]) -> bool:
    found = False
    for column in columns:
        column.used = bool(column.used)
    for name, step, chosen in estimator.transformers_:  # type: ignore[attr-defined]
        places = _places(estimator, name, chosen, [each.name for each in columns])
        seen = [columns[each] for each in places] if step != "drop" else []
        for column in seen:
            column.used = True
        found |= not isinstance(step, str) and learn(step, seen)
    return found


def _places(estimator: object, name: str, chosen: object, names: Sequence[str]) -> list[int]:
    """Return the indices of a transformer's columns: scikit-learn keeps them when it fits."""
    kept = getattr(estimator, "_transformer_to_input_indices", {}).get(name)
    if kept is not None:
        return [int(each) for each in kept]
    if isinstance(chosen, slice):
        return list(range(len(names)))[chosen]
    listed = np.atleast_1d(np.asarray(chosen, dtype=object)).tolist()
    return [names.index(each) if isinstance(each, str) else int(each) for each in listed]


def _inner(estimator: object, width: int) -> Iterator[object]:
    """Yield the estimators inside another one that see the same columns."""
    for name in ("best_estimator_", "estimator_", "regressor_", "calibrated_classifiers_"):
        yield from islice(_listed(getattr(estimator, name, ())), MAX_INNER)
    features = getattr(estimator, "estimators_features_", None)
    inner = chain(_listed(getattr(estimator, "estimators_", ())), _listed(_plain(estimator)))
    for each in islice(inner, MAX_INNER):
        if features is None and getattr(each, "n_features_in_", width) == width:
            yield each


def _plain(estimator: object) -> object:
    """The estimator inside scikit-learn's pair of a classifier and its calibration."""
    held = hasattr(estimator, "calibrators")
    return getattr(estimator, "estimator", ()) if held else ()


def _listed(value: object) -> Iterator[object]:
    items = value.ravel().tolist() if isinstance(value, np.ndarray) else value
    for each in items if isinstance(items, list | tuple) else [items]:
        yield each[-1] if isinstance(each, tuple) else each


def _tree(estimator: object, columns: Sequence[Column]) -> bool:
    tree = getattr(estimator, "tree_", None)
    if tree is None or not hasattr(tree, "threshold"):
        return False
    if np.isinf(tree.threshold).any():  # skl2onnx looks for the next number for ever
        raise UnreadableModel(
            "a tree of the estimator parts missing values from all others, "
            "which skl2onnx does not convert",
            hint="train with an imputer before it, or HistGradientBoosting",
        )
    trained = _trained_with_missing(tree)
    for index, column in enumerate(columns):
        own = tree.feature == index
        _thresholds(column, tree.threshold[own])
        column.missing |= bool((trained & own).any())
    return True


def _histogram_trees(estimator: object, columns: Sequence[Column]) -> bool:
    """Read scikit-learn's trees of histograms, which take missing values."""
    rounds = getattr(estimator, "_predictors", None)
    if not isinstance(rounds, list) or not rounds or not hasattr(rounds[0][0], "nodes"):
        return False
    nodes = np.concatenate([each.nodes for trees in rounds[:MAX_INNER] for each in trees])
    inside = nodes[nodes["is_leaf"] == 0]
    for index, column in enumerate(columns):
        _thresholds(column, inside["num_threshold"][inside["feature_idx"] == index])
        column.missing = True
    return True


def _boosters(estimator: object, columns: Sequence[Column]) -> bool:
    """Read LightGBM's ranges of the training data, or XGBoost's thresholds."""
    if hasattr(estimator, "booster_"):
        known = estimator.booster_.dump_model(num_iteration=1)["feature_infos"]
        for name, column in zip(estimator.booster_.feature_name(), columns, strict=True):
            if name in known:
                column.span(known[name]["min_value"], known[name]["max_value"])
        return True
    if not type(estimator).__module__.startswith("xgboost."):
        return False
    booster = estimator.get_booster()  # type: ignore[attr-defined]
    names = booster.feature_names or [f"f{index}" for index in range(len(columns))]
    splits = re.findall(r"\[([^<\]]+)<([^\]]+)\]", "".join(booster.get_dump()[:MAX_INNER]))
    for name, column in zip(names, columns, strict=True):
        _thresholds(column, np.array([float(at) for split, at in splits if split == name]))
    return True


def _trained_with_missing(tree: Any) -> Array:  # noqa: ANN401  (scikit-learn's has no types)
    """Return for each node of a tree whether its column missed values in training.

    Where it did not, missing values follow the larger child (sklearn.tree, *Missing Values
    Support*).
    """
    sizes, inner = tree.n_node_samples, tree.children_left >= 0
    larger = sizes[tree.children_left] > sizes[tree.children_right]
    left = np.asarray(getattr(tree, "missing_go_to_left", larger), dtype=bool)
    found: Array = inner & (left != larger)
    return found


def _thresholds(column: Column, found: Array) -> None:
    """Add numbers between thresholds and beyond both ends, none on a threshold itself."""
    ordered = np.unique(found[np.isfinite(found)]).tolist()
    if not ordered:
        return
    beyond = (ordered[-1] - ordered[0]) / 10 or abs(ordered[0]) / 10 or 1.0
    column.span(ordered[0] - beyond, ordered[-1] + beyond)
    column.points += [(one + other) / 2 for one, other in islice(pairwise(ordered), MAX_POINTS)]


def _centres(estimator: object, columns: Sequence[Column]) -> bool:
    """Read a centre and a spread for each column: scalers, PCA, discriminants, Gaussians."""
    for name in ("mean_", "center_", "location_", "xbar_"):
        centre = _vector(getattr(estimator, name, None), len(columns))
        if centre is None:
            continue
        spread = _vector(_deviation(estimator), len(columns))
        if spread is None:
            spread = np.abs(centre) / 10 + 1
        for column, middle, width in zip(columns, centre, spread, strict=True):
            column.span(middle - 3 * width, middle + 3 * width)
        return True
    return False


def _deviation(estimator: object) -> object:
    components = getattr(estimator, "components_", None)
    if components is not None and hasattr(estimator, "explained_variance_"):
        return np.sqrt((components**2 * estimator.explained_variance_[:, None]).sum(axis=0))
    covariance = getattr(estimator, "covariance_", None)
    if covariance is not None and np.ndim(covariance) == 2:
        return np.sqrt(np.diag(covariance))
    return getattr(estimator, "scale_", None)


def _ends(estimator: object, columns: Sequence[Column]) -> bool:
    low = _vector(getattr(estimator, "data_min_", None), len(columns))
    high = _vector(getattr(estimator, "data_max_", None), len(columns))
    most = _vector(getattr(estimator, "max_abs_", None), len(columns))
    if most is not None:
        low, high = -most, most
    if low is None or high is None:
        return False
    for column, least, greatest in zip(columns, low, high, strict=True):
        column.span(least, greatest)
    return True


_MATRICES = ("_fit_X", "support_vectors_", "cluster_centers_", "theta_", "means_", "centroids_",
             "X_train_", "quantiles_")  # fmt: skip


def _matrices(estimator: object, columns: Sequence[Column]) -> bool:
    """Read training rows or centres that the estimator keeps."""
    for name in _MATRICES:
        value = getattr(estimator, name, None)
        value = dense(value)
        if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind != "f":
            continue
        if value.shape[1] != len(columns):
            continue
        with np.errstate(all="ignore"):
            wide = np.sqrt(np.nanmax(getattr(estimator, "var_", np.zeros(1)))) * 2
        for column, values in zip(columns, value.T, strict=True):
            given = values[np.isfinite(values)]
            if given.size:
                column.span(given.min() - wide, given.max() + wide)
            column.missing |= bool(np.isnan(values).any())
        return True
    return False


def dense(value: object) -> object:
    """Return a sparse matrix as an array, anything else as it is."""
    unpack = getattr(value, "toarray", None)
    return value if unpack is None else unpack()


def _edges(estimator: object, columns: Sequence[Column]) -> bool:
    edges = getattr(estimator, "bin_edges_", None)
    if edges is None or len(edges) != len(columns):
        return False
    for column, values in zip(columns, edges, strict=True):
        _thresholds(column, np.asarray(values, dtype=float))
    return True


def _statistics(estimator: object, columns: Sequence[Column]) -> bool:
    """Read what an imputer puts in the place of missing values."""
    values = getattr(estimator, "statistics_", None)
    if values is None or len(values) != len(columns):
        return False
    for column, value in zip(columns, values, strict=True):
        column.missing = True
        if isinstance(value, str):
            column.text = True
            column.texts.append(value)
        elif isinstance(value, int | float | np.number) and not isnan(number := float(value)):
            column.span(number - abs(number) / 2 - 1, number + abs(number) / 2 + 1)
    return True


def _categories(estimator: object, columns: Sequence[Column]) -> bool:
    categories = getattr(estimator, "categories_", None)
    if not isinstance(categories, list) or len(categories) != len(columns):
        return False
    for column, values in zip(columns, categories, strict=True):
        listed = np.asarray(values).tolist()
        texts = [each for each in listed if isinstance(each, str)]
        column.text |= bool(texts) or np.asarray(values).dtype.kind in "OUS"
        column.texts += texts
        column.integers |= np.asarray(values).dtype.kind in "iu"
        column.bounded = True
        column.points += [
            float(each)
            for each in listed
            if isinstance(each, int | float) and not isnan(float(each))
        ]
    return True


def _words(estimator: object, columns: Sequence[Column]) -> bool:
    vocabulary = getattr(estimator, "vocabulary_", None)
    if not isinstance(vocabulary, dict) or len(columns) != 1:
        return False
    words = {word for each in vocabulary if isinstance(each, str) for word in each.split()}
    columns[0].words += sorted(words)
    columns[0].text = True
    return True


def _counts(estimator: object, columns: Sequence[Column]) -> bool:
    """Read naive Bayes of counts, which takes no negative numbers."""
    counted = hasattr(estimator, "feature_count_") or hasattr(estimator, "n_categories_")
    if not hasattr(estimator, "feature_log_prob_") or not counted:
        return False
    categories = _vector(getattr(estimator, "n_categories_", None), len(columns))
    for index, column in enumerate(columns):
        count = 6 if categories is None else int(categories[index])
        column.points += [float(each) for each in range(count)]
        column.bounded = True
    return True


_READERS: tuple[Callable[[object, Sequence[Column]], bool], ...] = (
    _tree, _histogram_trees, _boosters, _ends, _centres, _matrices, _edges, _statistics,
    _categories, _words, _counts,
)  # fmt: skip


def _vector(value: object, width: int) -> Array | None:
    """Return ``value`` if it is one number for each column."""
    if value is None or isinstance(value, str):
        return None
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return None
    return array if array.shape == (width,) else None
