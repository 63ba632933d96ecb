"""scikit-learn estimators to ONNX with skl2onnx: typed inputs, plain outputs, the same bytes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, util
from typing import TYPE_CHECKING, Any

from mlpack.model.comparison import FLOAT64
from mlpack.project.importers.estimator_columns import Column
from mlpack.project.importers.estimator_rows import Layout
from mlpack.project.importers.recipes import BOOSTERS

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

OPSET, ML_OPSET = 17, 3
"""Every onnxruntime since 1.16 runs them; newer opsets add nothing that most models use."""

INPUT = "X"
"""The name of the only input, if the columns have no names or need none."""

LOCALE = "C.UTF-8"
"""Lower case of every alphabet; part of glibc's own package, which en_US.UTF-8 is not."""

WORDS = r"[\pL\pN_][\pL\pN_]+"
r"""scikit-learn's ``(?u)\b\w\w+\b`` for onnxruntime's RE2, whose ``\w`` is ASCII only."""

_ASCII_WORDS = b"[a-zA-Z0-9_]+"
"""The expression that skl2onnx writes for them."""

_DOMAINS = {"": OPSET, "ai.onnx.ml": ML_OPSET}


@dataclass(frozen=True, slots=True)
class Inputs:
    """What an estimator takes."""

    columns: tuple[Column, ...]
    layout: Layout
    named: bool
    """Whether it looks columns up by name, in a pandas data frame."""


def convert(estimator: object, inputs: Inputs, dtype: str, newest_opset: int) -> ModelProto:
    """Convert with inputs of ``dtype``; opset 17, or the newest if that is too old.

    Raises what skl2onnx raises: its own errors, NameError, RuntimeError, AttributeError, …
    """
    from skl2onnx import __max_supported_opset__

    for each in inner_estimators(estimator):
        _add_converter(type(each))
    newest = min(newest_opset, int(__max_supported_opset__))
    try:
        converted = _convert(estimator, inputs, dtype, OPSET)
    except Exception:
        if newest <= OPSET:
            raise
        converted = _convert(estimator, inputs, dtype, newest)
    _name_inputs(converted, [name for name, _ in _tensors(inputs, dtype)])
    _mend_outputs(converted, estimator)
    _localize(converted)
    # skl2onnx lists them in the order of a set, which differs from process to process.
    converted.opset_import.sort(key=lambda each: each.domain)
    return converted


def _convert(estimator: object, inputs: Inputs, dtype: str, opset: int) -> ModelProto:
    from skl2onnx import convert_sklearn

    # Without zipmap: onnxruntime would return a list of dictionaries per row otherwise.
    plain: dict[int, dict[str, bool]] = {id(each): {} for each in inner_estimators(estimator)}
    for options in ({id(estimator): {"zipmap": False}}, plain):
        try:
            with warnings.catch_warnings(), _whole_numbers():
                warnings.simplefilter("ignore")
                converted: ModelProto = convert_sklearn(
                    estimator,
                    # skl2onnx makes up a random graph name otherwise, and the file a new digest.
                    name="mlpack",
                    initial_types=_tensors(inputs, dtype),
                    options=options,
                    target_opset=_DOMAINS | {"": opset},
                )
            return converted
        except NameError as error:
            # Not every estimator has that option: regressors, LinearSVC.
            if options is plain or "zipmap" not in str(error):
                raise
    raise AssertionError("the second attempt returns or raises")


_SHAPES = "skl2onnx.common.shape_calculator"


def _add_converter(kind: type) -> None:
    """Let skl2onnx convert estimators of LightGBM and XGBoost, if onnxmltools is installed."""
    framework = kind.__module__.partition(".")[0]
    if framework not in BOOSTERS or not util.find_spec("onnxmltools"):
        return
    from skl2onnx import update_registered_converter
    from sklearn.base import is_classifier

    classifies = is_classifier(kind())
    name = {"lightgbm": "LightGbm", "xgboost": "XGBoost"}[framework]
    module = f"onnxmltools.convert.{framework}.operator_converters.{name}"
    shapes = "classifier" if classifies else "regressor"
    update_registered_converter(
        kind,
        f"{name}{kind.__name__}",
        getattr(import_module(_SHAPES), f"calculate_linear_{shapes}_output_shapes"),
        getattr(import_module(module), f"convert_{framework}"),
        options={"nocl": [True, False], "zipmap": [True, False, "columns"]} if classifies else {},
    )


def _localize(model: ModelProto) -> None:
    """Let text be split into words and become lower case as in scikit-learn, on every base.

    Not by skl2onnx's options, which it does not take for every kind of pipeline.
    """
    from onnx import helper

    changed = {"StringNormalizer": ("locale", LOCALE), "Tokenizer": ("tokenexp", WORDS)}
    for node in model.graph.node:
        name, value = changed.get(node.op_type, ("", ""))
        held = {each.name: each.s for each in node.attribute}
        if not name or (name == "tokenexp" and held.get(name) != _ASCII_WORDS):
            continue
        kept = [each for each in node.attribute if each.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])


def inner_estimators(estimator: object) -> Iterator[object]:
    """Yield ``estimator`` and every fitted one inside it, in pipelines and ensembles."""
    yield estimator
    held = [step for _, step in getattr(estimator, "steps", ())]
    held += [step for _, step, _ in getattr(estimator, "transformers_", ())]
    held += [step for _, step in getattr(estimator, "transformer_list", ())]
    for name in ("best_estimator_", "estimator_", "regressor_", "final_estimator_"):
        held.append(getattr(estimator, name, None))
    listed = getattr(estimator, "estimators_", ())
    held += [each for each in listed[:8]] if isinstance(listed, list) else []
    for each in held:
        if hasattr(each, "get_params"):
            yield from inner_estimators(each)


def _tensors(inputs: Inputs, dtype: str) -> list[tuple[str, object]]:
    """Return skl2onnx's types of the inputs, by name."""
    from skl2onnx.common.data_types import (
        DoubleTensorType,
        FloatTensorType,
        Int64TensorType,
        StringTensorType,
    )

    numbers = DoubleTensorType if dtype == FLOAT64 else FloatTensorType
    if inputs.layout == "columns":
        # An encoder of texts and whole numbers takes no mixture with floating-point numbers.
        mixed = any(each.text for each in inputs.columns)

        def kind(column: Column) -> Callable[[list[int | None]], object]:
            if column.text:
                return StringTensorType  # type: ignore[no-any-return]
            whole = mixed and column.integers and not column.missing
            return Int64TensorType if whole else numbers  # type: ignore[no-any-return]

        return [(each.name, kind(each)([None, 1])) for each in inputs.columns]
    text = inputs.layout == "documents" or inputs.columns[0].text
    return [(INPUT, (StringTensorType if text else numbers)([None, len(inputs.columns)]))]


@contextmanager
def _whole_numbers() -> Iterator[None]:
    """Write true and false as 1 and 0 into nodes while the block runs.

    skl2onnx 1.20 gives trees of histograms booleans for whole numbers, which onnx refuses
    since 1.20 (sklearn-onnx, common/tree_ensemble.py, ``nodes_missing_value_tracks_true``).
    """
    from skl2onnx.common import _container as container

    make = container.make_node

    def make_node(*args: object, **attributes: object) -> object:
        plain = {
            name: [int(each) for each in value]
            if isinstance(value, list) and any(isinstance(each, bool) for each in value)
            else value
            for name, value in attributes.items()
        }
        return make(*args, **plain)

    container.make_node = make_node
    try:
        yield
    finally:
        container.make_node = make


def _name_inputs(model: ModelProto, names: Sequence[str]) -> None:
    """Give the inputs the columns' own names, and drop those that nothing uses."""
    graph = model.graph
    if len(graph.input) == len(names):
        for index, held in enumerate(list(graph.input)):
            _rename(model, held.name, f"{held.name}\0{index}")
        for name in {name for node in graph.node for name in node.output}.intersection(names):
            _rename(model, name, f"predicted_{name}")
        for held, name in zip(list(graph.input), names, strict=True):
            _rename(model, held.name, name)
    used = {name for node in graph.node for name in node.input}
    kept = [each for each in graph.input if each.name in used]
    if kept and len(kept) < len(graph.input):
        del graph.input[:]
        graph.input.extend(kept)


def _rename(model: ModelProto, old: str, new: str) -> None:
    if old == new:
        return
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
    for each in (*model.graph.input, *model.graph.output):
        if each.name == old:
            each.name = new


def _mend_outputs(model: ModelProto, estimator: object) -> None:
    """Make outputs tensors with a row for each row of the inputs, named after what they hold."""
    _split_sequences(model)
    if not hasattr(estimator, "predict_proba"):
        _rename_output(model, "probabilities", "scores")
    for each in model.graph.output:
        shape = each.type.tensor_type.shape.dim
        if shape and shape[0].dim_value == 1 and len(shape) < 2 + bool(shape[-1].dim_value):
            shape[0].Clear()  # skl2onnx lost the number of rows
        sizes = [size.dim_value or None for size in each.type.tensor_type.shape.dim]
        if each.name == "label" and sizes == [1, None]:  # of quadratic discriminants
            _after(model, each, "Squeeze")
            del each.type.tensor_type.shape.dim[0]
    last = _last(estimator)
    if hasattr(last, "cluster_centers_"):
        _roots_of_positives(model)
    if type(last).__name__ in ("SVC", "NuSVC") and not hasattr(estimator, "predict_proba"):
        scores = [each for each in model.graph.output if each.name == "scores"]
        if scores and len(last.classes_) == 2:  # type: ignore[attr-defined]
            # scikit-learn's sign: what is positive decides for the second class.
            _after(model, scores[0], "Neg")


def _last(estimator: object) -> object:
    steps = getattr(estimator, "steps", None)
    inside = steps[-1][1] if steps else getattr(estimator, "best_estimator_", None)
    return estimator if inside is None else _last(inside)


def _after(model: ModelProto, output: ValueInfoProto, operator: str) -> None:
    """Let ``operator`` make the output from what made it before."""
    from onnx import helper

    inner = f"{output.name}_before_{operator}"
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == output.name:
                node.output[index] = inner
        for index, name in enumerate(node.input):
            if name == output.name:
                node.input[index] = inner
    made = helper.make_node(operator, [inner], [output.name], name=inner)
    model.graph.node.append(made)


def _roots_of_positives(model: ModelProto) -> None:
    """Take no roots of numbers below 0: a row on a cluster's centre has distance 0, not NaN."""
    from onnx import helper

    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        if node.op_type == "Sqrt":
            inner = f"{node.input[0]}_positive"
            model.graph.node.append(helper.make_node("Relu", [node.input[0]], [inner], name=inner))
            node.input[0] = inner
        model.graph.node.append(node)


_SINGLE = {"Normalizer": 0, "TreeEnsembleClassifier": 1, "TreeEnsembleRegressor": 0}
"""Operators of ai.onnx.ml 3 whose output of that place is float32, whatever the inputs are."""


def widened(model: ModelProto) -> ModelProto:
    """Return a copy of a model of float64 in which results that are float32 are cast.

    skl2onnx declares them as float64, and onnxruntime then refuses the model.
    """
    from onnx import ModelProto, TensorProto, helper

    found = ModelProto()
    found.CopyFrom(model)
    del found.graph.value_info[:]
    nodes = list(found.graph.node)
    del found.graph.node[:]
    for node in nodes:
        found.graph.node.append(node)
        place = _SINGLE.get(node.op_type)
        if place is None or len(node.output) <= place:
            continue
        made = found.graph.node[-1]
        wide, made.output[place] = node.output[place], f"{node.output[place]}_single"
        cast = helper.make_node(
            "Cast", [made.output[place]], [wide], name=f"{wide}_wide", to=TensorProto.DOUBLE
        )
        found.graph.node.append(cast)
    return found


def _rename_output(model: ModelProto, old: str, new: str) -> None:
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    if new not in taken and any(each.name == old for each in model.graph.output):
        _rename(model, old, new)


def _split_sequences(model: ModelProto) -> None:
    """Make one tensor of each element of an output that is a sequence: several decisions."""
    from onnx import TensorProto, helper

    graph = model.graph
    makers = {node.output[0]: node for node in graph.node if node.op_type == "SequenceConstruct"}
    outputs = list(graph.output)
    if not any(each.name in makers for each in outputs):
        return
    del graph.output[:]
    for each in outputs:
        if each.name not in makers:
            graph.output.append(each)
            continue
        node = makers[each.name]
        dtype = each.type.sequence_type.elem_type.tensor_type.elem_type or TensorProto.FLOAT
        for index, part in enumerate(list(node.input)):
            name = f"{each.name}_{index}"
            graph.node.append(helper.make_node("Identity", [part], [name], name=name))
            graph.output.append(helper.make_tensor_value_info(name, dtype, [None, None]))
        graph.node.remove(node)


def run_model(content: bytes, feed: Mapping[str, object]) -> dict[str, Any]:
    """Return the outputs by name, from the onnxruntime that is installed here."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Errors are raised; the library's own lines on stderr add nothing.
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    taken = {each.name for each in session.get_inputs()}
    given = {name: value for name, value in feed.items() if name in taken}
    return dict(zip(names, session.run(names, given), strict=True))
