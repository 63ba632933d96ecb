"""Rows to compare a converted model and its estimator on: made from what it says, or the user's."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlpack.model.reading import is_number
from mlpack.model.validation_data import InvalidValidationData
from mlpack.project.importers.estimator_columns import Column
from mlpack.project.validation_data import read_check
from mlpack.stores.files import open_file, require_file

Array = NDArray[Any]

ROWS = 256
"""Made rows in the ranges of the columns; few enough to take no time."""

MAGNITUDES = (1e-2, 1e2, 1e4)
"""Of further rows, if no column has a known range."""

FAR = 2.0**20
"""Numbers from which float32 cannot tell sixteenths apart: dates in seconds, coordinates."""

_MORE_ROWS = 64
_MAX_CSV_BYTES = 1 << 28
_MISSING = 0.15
_FOREIGN = ("Über", "naïve", "x", "7", "2024", "unknown_word", "日本")

Layout = Literal["matrix", "columns", "documents"]
"""One tensor of all columns, one tensor for each column, or one of texts."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Values by column name: float64, or texts as objects."""

    columns: Mapping[str, Array]
    blocks: tuple[int, ...]
    """Lengths of parts with numbers of one size: what is small in one is large in another."""

    check: str = ""
    """sha256 of the user's file; empty if mlpack made them."""

    def __len__(self) -> int:
        return sum(self.blocks)

    def rounded(self) -> Rows:
        """The rows as a model with inputs of float32 reads them."""
        with np.errstate(over="ignore"):
            columns = {
                name: values if values.dtype == object else values.astype(np.float32).astype(float)
                for name, values in self.columns.items()
            }
        return Rows(columns, self.blocks, self.check)

    def without_missing(self) -> Rows:
        """The rows with 0 in place of missing numbers."""
        columns = {
            name: values if values.dtype == object else np.nan_to_num(values, nan=0.0)
            for name, values in self.columns.items()
        }
        return Rows(columns, self.blocks, self.check)

    def positive(self) -> Rows:
        """The rows without the signs of numbers."""
        columns = {
            name: values if values.dtype == object else np.abs(values)
            for name, values in self.columns.items()
        }
        return Rows(columns, self.blocks, self.check)

    def parts(self) -> Iterator[slice]:
        """The blocks as slices."""
        start = 0
        for length in self.blocks:
            yield slice(start, start + length)
            start += length


def made_rows(columns: Sequence[Column], estimator: object) -> Rows:
    """Return the same rows for the same estimator, within the ranges it knows."""
    random = np.random.default_rng(0)
    blocks = [{each.name: _values(each, random) for each in columns}]
    if not any(each.known or each.text for each in columns):
        for size in MAGNITUDES:
            blocks.append({each.name: random.normal(0, size, _MORE_ROWS) for each in columns})
        blocks += _cancelling(columns, estimator, random)
    joined = {each.name: np.concatenate([block[each.name] for block in blocks]) for each in columns}
    return Rows(joined, tuple(len(block[columns[0].name]) for block in blocks))


def _values(column: Column, random: np.random.Generator) -> Array:
    if column.words:
        return _documents(column.words, random)
    if column.text:
        texts = np.array((column.texts or [*_FOREIGN]) + [""] * column.missing, dtype=object)
        return texts[random.integers(0, len(texts), ROWS)]
    values = random.normal(size=ROWS)
    if column.points:
        points = np.array(column.points)
        values = points[random.integers(0, len(points), ROWS)]
        if not column.bounded:
            between = random.random(ROWS) < 0.5
            anywhere = random.uniform(points.min(), points.max(), ROWS)
            values = np.where(between, anywhere, values)
    if column.missing:
        values[random.random(ROWS) < _MISSING] = np.nan
    return values


def _documents(words: Sequence[str], random: np.random.Generator) -> Array:
    """Return texts of known and unknown words, with capitals and punctuation."""
    found = []
    for _ in range(ROWS):
        chosen = [words[each] for each in random.integers(0, len(words), random.integers(1, 12))]
        if random.random() < 0.3:
            place = int(random.integers(0, len(chosen) + 1))
            chosen.insert(place, _FOREIGN[int(random.integers(0, len(_FOREIGN)))])
        text = (" ", ", ", "-")[int(random.integers(0, 3))].join(chosen)
        found.append((text, text.upper(), text.capitalize() + ".")[int(random.integers(0, 3))])
    return np.array(found, dtype=object)


def _cancelling(
    columns: Sequence[Column], estimator: object, random: np.random.Generator
) -> Iterator[dict[str, Array]]:
    """Yield rows in which a linear model's terms cancel its intercept.

    A linear model does not keep its ranges. Where the intercept is as large as a coefficient
    times a number beyond :data:`FAR`, the model was trained near that number, and float32 may not
    be enough there.
    """
    steps = getattr(estimator, "steps", None)
    last = steps[-1][1] if steps else estimator
    slopes = np.atleast_2d(np.asarray(getattr(last, "coef_", np.zeros((0, 0)))))
    if slopes.shape[1] != len(columns) or not hasattr(last, "intercept_"):
        return
    starts = np.broadcast_to(np.atleast_1d(last.intercept_), (len(slopes),))
    for weights, start in zip(slopes.astype(float), starts.astype(float), strict=True):
        for index in np.flatnonzero(weights).tolist():
            centre = -start / weights[index]
            if not FAR <= abs(centre) < 1e15:
                continue
            block = {each.name: random.random(_MORE_ROWS) for each in columns}
            block[columns[index].name] = centre * (1 + random.normal(0, 2e-5, _MORE_ROWS))
            yield block


def read_rows(path: Path, columns: Sequence[Column]) -> Rows:
    """Read the user's rows (.npz, .csv); raise :class:`InvalidValidationData`.

    An .npz holds an array for each column, or one of all; a .csv a header with the columns'
    names, which may be missing if there is no text. Columns of an estimator without names are
    taken in their order. An empty cell is a missing value.
    """
    if path.suffix.lower() == ".csv":
        found, sha256 = _read_csv(path, columns)
    else:
        check = read_check(path)
        found, sha256 = _by_name(check.arrays, columns, path), check.sha256
    lengths = {len(each) for each in found.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise InvalidValidationData(f"{path}: the columns have {sorted(lengths)} rows")
    typed = {each.name: _typed(each, found[each.name], path) for each in columns}
    return Rows(typed, (lengths.pop(),), sha256)


def _read_csv(path: Path, columns: Sequence[Column]) -> tuple[dict[str, Array], str]:
    if require_file(path) > _MAX_CSV_BYTES:
        raise InvalidValidationData(f"{path} is larger than {_MAX_CSV_BYTES >> 20} MiB")
    with open_file(path) as file:
        content = file.read()
    try:
        rows = [row for row in csv.reader(io.StringIO(content.decode("utf-8-sig"))) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidValidationData(f"{path} is not a CSV file in UTF-8 ({error})") from error
    names = [each.name for each in columns]
    header = rows[0] if rows and not all(not each or is_number(each) for each in rows[0]) else None
    body = rows[1:] if header else rows
    header = header or names
    if any(len(row) != len(header) for row in body):
        raise InvalidValidationData(
            f"{path} has rows that are not of the columns {', '.join(names)}",
            hint="write a header with the columns' names, and as many cells in each row",
        )
    if len(names) == 1 and len(header) == 1:
        header = names
    table = {
        name: np.array([row[index] for row in body], dtype=object)
        for index, name in enumerate(header)
    }
    return _by_name(table, columns, path), hashlib.sha256(content).hexdigest()


def _by_name(
    arrays: Mapping[str, Array], columns: Sequence[Column], path: Path
) -> dict[str, Array]:
    names = [each.name for each in columns]
    needed = [each.name for each in columns if each.used is not False]
    missing = [name for name in needed if name not in arrays]
    if not missing:
        length = len(arrays[needed[0]])
        absent = np.full(length, np.nan)
        return {name: np.ravel(arrays[name]) if name in needed else absent for name in names}
    if all(name == f"x{index}" for index, name in enumerate(names)) and len(arrays) == len(names):
        # Columns without names: the file's own say nothing.
        return {name: np.ravel(each) for name, each in zip(names, arrays.values(), strict=True)}
    if len(arrays) == 1:
        only = np.asarray(next(iter(arrays.values())))
        table = only.reshape(-1, 1) if only.ndim == 1 and len(names) == 1 else only
        if table.ndim == 2 and table.shape[1] == len(names):
            return {name: table[:, index] for index, name in enumerate(names)}
    raise InvalidValidationData(
        f"{path} has no column {missing[0]!r} (it has: {', '.join(arrays)})",
        hint=f"the estimator takes: {', '.join(names)}",
    )


def _typed(column: Column, values: Array, path: Path) -> Array:
    if column.text:
        return np.array([str(each) for each in values.tolist()], dtype=object)
    cells = [float("nan") if each in ("", None) else each for each in values.tolist()]
    try:
        return np.array(cells, dtype=float)
    except (TypeError, ValueError) as error:
        raise InvalidValidationData(
            f"{path}: column {column.name!r} holds something that is not a number ({error})"
        ) from error
