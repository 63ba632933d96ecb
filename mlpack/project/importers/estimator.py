"""A pickled scikit-learn estimator: loaded if trusted, converted to ONNX, and compared with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlpack.errors import MlpackError, UsageError
from mlpack.model.comparison import FLOAT32, FLOAT64, Bounds, Comparison, describe
from mlpack.project.importers import onnx_file
from mlpack.project.importers.estimator_columns import Column, learn
from mlpack.project.importers.estimator_comparison import (
    Answers,
    Compared,
    compare,
    estimator_answers,
    estimator_input,
    model_answers,
)
from mlpack.project.importers.estimator_conversion import (
    INPUT,
    Inputs,
    convert,
    inner_estimators,
    run_model,
    widened,
)
from mlpack.project.importers.estimator_pickle import (
    MissingExtra,
    NotTheSame,
    Untrusted,
    check_fitted,
    check_meaning,
    installed,
    load_estimator,
    made_by,
    mend,
)
from mlpack.project.importers.estimator_rows import Layout, Rows, made_rows, read_rows
from mlpack.project.importers.recipes import recipe
from mlpack.project.importers.recognise import pickled_framework
from mlpack.project.importers.source import (
    ModelSource,
    UnreadableModel,
    first_line,
    require_regular,
)

if TYPE_CHECKING:
    from onnx import ModelProto

NEWEST_OPSET = 21
"""What onnxruntime 1.20 loads, the oldest that mlpack is tested with."""

_PACKAGES = ("onnxruntime", "scikit-learn", "skl2onnx")


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatorOptions:
    """What the user says of an estimator."""

    trusted: bool = False
    features: int | None = None
    """Input columns of one that does not say."""

    check: Path | None = None
    """The user's rows to compare on (.npz, .csv); ``None`` for rows that mlpack makes."""

    bounds: Bounds = field(default_factory=Bounds)
    newest_opset: int = NEWEST_OPSET
    """The newest opset that the base loads."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A conversion with inputs of one element type, compared with the estimator."""

    dtype: str
    model: ModelProto | None = None
    same: Compared | None = None
    """Compared with the estimator on the numbers that the model reads."""

    given: Compared | None = None
    """Compared with the estimator on the rows as they are."""

    failure: str = ""

    def within(self, bounds: Bounds) -> bool:
        return all(each and each.difference.within(bounds) for each in (self.same, self.given))


def read_estimator(path: Path, options: EstimatorOptions) -> ModelSource:
    """Convert the pickled estimator at ``path`` to ONNX, and compare both.

    Raises :class:`Untrusted` before anything is loaded, :class:`UnreadableModel` if it cannot be
    loaded or converted, and :class:`NotTheSame` if the model answers otherwise.
    """
    require_regular(path)
    if not options.trusted:
        named = pickled_framework(path)
        raise Untrusted(
            f"{path} is a pickle{f' of {named}' if named else ''}: loading it runs the code in it",
            hint=recipe(named),
        )
    estimator, notes = load_estimator(path)
    check_fitted(path, estimator)
    inputs = describe_inputs(path, estimator, options.features)
    notes = (*notes, *mend(estimator))
    check_meaning(path, estimator)
    rows = _rows(path, estimator, inputs, options)
    tried = _candidates(estimator, inputs, rows, options)
    chosen = next((each for each in tried if each.within(options.bounds)), None)
    if chosen is None or chosen.model is None or chosen.same is None or chosen.given is None:
        raise _refusal(path, estimator, tried, rows, options.bounds)
    content = chosen.model.SerializeToString(deterministic=True)
    record = _record(chosen, chosen.same, chosen.given, rows)
    return ModelSource(
        framework="sklearn",
        content={f"{path.stem}.onnx": content},
        graph=onnx_file.describe(chosen.model),
        notes=(*notes, *_notes(path, tried, record)),
        compared=record,
    )


def describe_inputs(path: Path, estimator: object, given: int | None) -> Inputs:
    """Return the columns that ``estimator`` takes, and in which form.

    ``given`` is the number of columns if it does not say.
    """
    names = [str(each) for each in getattr(estimator, "feature_names_in_", ())]
    if not names and _takes_documents(estimator):
        document = Column(INPUT, text=True)
        learn(estimator, [document])
        return Inputs((document,), "documents", False)
    count = len(names) or _features(path, estimator, given)
    columns = tuple(Column(each) for each in names or [f"x{index}" for index in range(count)])
    learn(estimator, columns)
    by_name = bool(names) and any(
        hasattr(each, "transformers_") for each in inner_estimators(estimator)
    )
    texts = [each.text for each in columns]
    layout: Layout = "columns" if by_name or (any(texts) and not all(texts)) else "matrix"
    if names and any(texts):
        layout = "columns"
    named = bool(names) and layout == "columns"
    if named and not util.find_spec("pandas"):
        raise MissingExtra(f"{path} takes columns by name, and comparing it needs pandas")
    return Inputs(columns, layout, named)


def _takes_documents(estimator: object) -> bool:
    """Whether the first thing that sees the input splits texts into words."""
    steps = getattr(estimator, "steps", None)
    listed = getattr(estimator, "transformer_list", None)
    inside = steps or listed
    first = inside[0][1] if inside else getattr(estimator, "best_estimator_", None)
    if first is not None:
        return _takes_documents(first)
    return hasattr(estimator, "token_pattern")


def _features(path: Path, estimator: object, given: int | None) -> int:
    known = getattr(estimator, "n_features_in_", None)
    if known is None:
        slopes = getattr(estimator, "coef_", None)
        known = slopes.shape[-1] if isinstance(slopes, np.ndarray) and slopes.ndim else None
    if known is None and given is None:
        raise UsageError(
            f"{path} does not say how many input columns it takes",
            hint="add --features N",
        )
    if given is not None and known is not None and int(known) != given:
        raise UsageError(
            f"{path} takes {known} input columns, --features says {given}",
            hint="leave --features out",
        )
    return int(known if known is not None else given or 0)


def _rows(path: Path, estimator: object, inputs: Inputs, options: EstimatorOptions) -> Rows:
    """Return the user's rows, or made ones that the estimator takes."""
    if not hasattr(estimator, "predict") and not hasattr(estimator, "transform"):
        raise UnreadableModel(
            f"{path}: {type(estimator).__name__} has neither predict() nor transform(): it answers "
            "nothing for new rows",
            hint="train a classifier on its labels, for example",
        )
    if options.check:
        tries = [read_rows(options.check, inputs.columns)]
    else:
        first = made_rows(inputs.columns, estimator)
        tries = [first, first.without_missing(), first.without_missing().positive()]
    for rows in tries:
        try:
            _ask(estimator, rows, inputs, [INPUT])
            return rows
        except Exception as error:  # of any class, from any estimator
            failure = error
    made, here = made_by(path), installed("scikit-learn")
    other = bool(made) and made != here
    by = f"; it was made by scikit-learn {made}, this is {here}" if other else ""
    whose = f"the rows of {options.check}" if options.check else "any rows that mlpack makes for it"
    raise NotTheSame(
        f"{path}: the estimator itself does not take {whose} "
        f"({type(failure).__name__}: {first_line(failure)}){by}",
        hint=f"export it to ONNX with scikit-learn {made}"
        if other
        else "give rows that it takes: --check rows.csv",
    )


def _candidates(
    estimator: object, inputs: Inputs, rows: Rows, options: EstimatorOptions
) -> list[_Candidate]:
    """Convert with float32, and if that is not enough with float64; compare each."""
    tried = []
    for dtype in (FLOAT32, FLOAT64):
        tried.append(_candidate(estimator, inputs, dtype, rows, options))
        if tried[-1].within(options.bounds) or not any(not each.text for each in inputs.columns):
            break
    return tried


def _candidate(
    estimator: object, inputs: Inputs, dtype: str, rows: Rows, options: EstimatorOptions
) -> _Candidate:
    try:
        model = convert(estimator, inputs, dtype, options.newest_opset)
    # skl2onnx raises its own errors, NameError, RuntimeError, AttributeError, …
    except Exception as error:
        return _Candidate(dtype, failure=f"cannot be converted to ONNX: {_cause(error)}")
    read = rows.rounded() if dtype == FLOAT32 else rows
    try:
        model, outputs = _run(model, dtype, _feed(model, read, inputs))
    except Exception as error:  # onnxruntime's own errors share no class
        return _Candidate(dtype, failure=f"was converted, but does not run: {_cause(error)}")
    names = list(outputs)
    try:
        expected = _ask(estimator, read, inputs, names)
        found = model_answers(outputs, expected)
    except ValueError as error:
        return _Candidate(dtype, failure=f"cannot be compared: {first_line(error)}")
    same = compare(expected, found, rows, options.bounds)
    if read is rows:
        return _Candidate(dtype, model, same, same)
    given = compare(_ask(estimator, rows, inputs, names), found, rows, options.bounds)
    return _Candidate(dtype, model, same, given)


def _run(
    model: ModelProto, dtype: str, feed: Mapping[str, Any]
) -> tuple[ModelProto, dict[str, Any]]:
    """Return the model that runs, and its outputs."""
    try:
        return model, run_model(model.SerializeToString(), feed)
    except Exception:
        if dtype != FLOAT64:
            raise
    wide = widened(model)
    return wide, run_model(wide.SerializeToString(), feed)


def _ask(estimator: object, rows: Rows, inputs: Inputs, names: list[str]) -> Answers:
    given = estimator_input(rows, inputs.layout, inputs.named)
    return estimator_answers(estimator, given, names)


def _feed(model: ModelProto, rows: Rows, inputs: Inputs) -> Mapping[str, Any]:
    """Return the rows as the model's inputs."""
    if inputs.layout == "columns":
        tables = {name: values.reshape(-1, 1) for name, values in rows.columns.items()}
    else:
        tables = {INPUT: np.column_stack(list(rows.columns.values()))}
    dtypes = {each.name: each.dtype for each in onnx_file.describe(model).signature.inputs}
    with np.errstate(over="ignore"):
        return {
            name: table if table.dtype == object else table.astype(dtypes.get(name, FLOAT64))
            for name, table in tables.items()
        }


def _cause(error: Exception) -> str:
    """Return the reason of a conversion's error in one line, skl2onnx's long ones in short."""
    text = first_line(error)
    missing = re.search(r"for type '<class '([\w.]+)'>'", str(error))
    if type(error).__name__ in ("MissingShapeCalculator", "MissingConverter") and missing:
        return f"skl2onnx has no converter for {missing[1]}"
    return text


def _refusal(
    path: Path, estimator: object, tried: list[_Candidate], rows: Rows, bounds: Bounds
) -> MlpackError:
    kind, here, made = type(estimator).__name__, installed("scikit-learn"), made_by(path)
    differences = [
        (each.dtype, found)
        for each in tried
        for found in (each.same, each.given)
        if found and not found.difference.within(bounds)
    ]
    if not differences:
        failure = tried[0].failure
        return UnreadableModel(f"{path} ({kind}) {failure}", hint=_remedy(estimator, failure))
    dtype, worst = differences[-1]
    failed = "".join(f"; with {e.dtype} inputs it {e.failure}" for e in tried if e.failure)
    other = bool(made) and made != here
    by = f"; it was made by scikit-learn {made}, this is {here}" if other else ""
    return NotTheSame(
        f"{path} ({kind}) converted to ONNX with {dtype} inputs answers otherwise: "
        f"{describe(worst.difference)}; row {worst.row} {_row(rows, worst.row)}has {worst.what}"
        f"{failed}{by}",
        hint=f"convert it where it was trained, with scikit-learn {made}"
        if other
        else "compare on rows as they come in: --check rows.csv; allow such differences: "
        "--max-error, --max-unequal; or scale large numbers (StandardScaler) when training",
    )


def _row(rows: Rows, index: int) -> str:
    if not 0 <= index < len(rows):
        return ""
    cells = [(name, values[index]) for name, values in list(rows.columns.items())[:4]]
    shown = ", ".join(f"{name}={_cell(value)}" for name, value in cells)
    return f"({shown}{', …' if len(rows.columns) > 4 else ''}) "


def _cell(value: object) -> str:
    return f"{value:.9g}" if isinstance(value, float) else repr(value)[:40]


def _remedy(estimator: object, failure: str) -> str:
    """Return what helps an estimator that cannot be converted."""
    for each in inner_estimators(estimator):
        module = type(each).__module__
        if hint := recipe(module):
            return hint
        if type(each).__name__ == "FunctionTransformer" and getattr(each, "func", None):
            return (
                "ONNX holds no Python function: leave the FunctionTransformer out and compute "
                "that in the scoring script, or use a transformer of scikit-learn"
            )
        if getattr(each, "add_indicator", False):
            return f"skl2onnx leaves add_indicator of {type(each).__name__} out: train without it"
    if "no converter" in failure:
        return (
            "use an estimator that has one (onnx.ai/sklearn-onnx, Supported scikit-learn models), "
            "or register a folder with the pickle and a scoring script that loads it"
        )
    return (
        "train without what cannot be converted, export it to ONNX in another way, or register a "
        "folder with the pickle and a scoring script that loads it"
    )


def _record(chosen: _Candidate, same: Compared, given: Compared, rows: Rows) -> Comparison:
    return Comparison(
        rows=len(rows),
        check=rows.check,
        inputs=chosen.dtype,
        difference=same.difference,
        rounding=given.difference if chosen.dtype == FLOAT32 else None,
        packages={name: installed(name) for name in _PACKAGES},
    )


def _notes(path: Path, tried: list[_Candidate], record: Comparison) -> Iterator[str]:
    yield f"{path.name} was converted to ONNX and is not shipped"
    rows = "rows of your file" if record.check else "made rows"
    yield f"compared with the estimator on {record.rows} {rows}: {describe(record.difference)}"
    first = tried[0]
    if record.inputs == FLOAT64:
        why = describe(first.given.difference) if first.given else first.failure
        yield f"its inputs are float64, because float32 is not enough ({why})"
    elif record.rounding and record.rounding_matters:
        yield f"with numbers before they are rounded to float32: {describe(record.rounding)}"
