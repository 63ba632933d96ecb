"""ONNX models for the start of releases: one of each operator set, element type and domain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

TYPES = (
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.FLOAT16,
    TensorProto.INT8,
    TensorProto.INT16,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.UINT8,
    TensorProto.UINT16,
    TensorProto.UINT32,
    TensorProto.UINT64,
    TensorProto.BOOL,
    TensorProto.STRING,
)
Shape = Sequence[Any] | None
OPERATORS = ("Identity", "Add", "Abs", "Relu", "Neg", "Not", "Softmax", "Sqrt", "Max", "Equal")
SHAPES: tuple[Shape, ...] = (["N", 3], [2, 3], [], ["N", "M"])
_TWO = {"Add", "Max", "Equal"}


def model(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[TensorProto.DataType, Shape]],
    outputs: Mapping[str, tuple[TensorProto.DataType, Shape]],
    opsets: Mapping[str, int],
    ir_version: int = 8,
) -> onnx.ModelProto:
    """A model of ``nodes``; nothing is checked, since some are wrong on purpose."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info(n, *each) for n, each in inputs.items()],
        [helper.make_tensor_value_info(n, *each) for n, each in outputs.items()],
    )
    imports = [helper.make_opsetid(domain, opset) for domain, opset in opsets.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def type_error_onnx(path: Path) -> Path:
    """A model that checks and never loads: Gather by indices that are not whole numbers."""
    made = model(
        [helper.make_node("Gather", ["x", "i"], ["y"])],
        {"x": (TensorProto.FLOAT, [4]), "i": (TensorProto.FLOAT, [2])},
        {"y": (TensorProto.FLOAT, [2])},
        {"": 17},
    )
    onnx.save(made, str(path))
    return path


def text_onnx(path: Path) -> Path:
    """A model that writes texts in lower case, as text pipelines of scikit-learn begin."""
    node = helper.make_node(
        "StringNormalizer", ["x"], ["y"], case_change_action="LOWER", stopwords=["the"]
    )
    text = (TensorProto.STRING, ["N"])
    onnx.save(model([node], {"x": text}, {"y": text}, {"": 17}), str(path))
    return path


def made_models(count: int = 300) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Models of every operator set, element type and domain, some of which no onnxruntime loads.

    The same on every machine.
    """
    rng = np.random.default_rng(8)
    found = [*_plain(), *_of_ml(), *_odd()]
    chosen = found if len(found) <= count else [found[n] for n in rng.permutation(len(found))]
    yield from chosen[:count]


def _plain() -> Iterator[tuple[str, onnx.ModelProto]]:
    """One operator, in each opset and of each type, whether it takes the type or not."""
    newest = onnx.defs.onnx_opset_version()
    for number, name in enumerate(OPERATORS):
        for opset in range(1 + number % 2, newest + 3, 2):
            kind = TYPES[(opset + 3 * number) % len(TYPES)]
            names = ["x", "z"] if name in _TWO else ["x"]
            shape = SHAPES[(opset + number) % len(SHAPES)]
            out = TensorProto.BOOL if name == "Equal" else kind
            yield (
                f"{name}-{opset}-{TensorProto.DataType.Name(kind)}",
                model(
                    [helper.make_node(name, names, ["y"])],
                    {each: (kind, shape) for each in names},
                    {"y": (out, shape)},
                    {"": opset},
                    ir_version=3 + opset % 9,
                ),
            )


def _of_ml() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Operators of the domain for classical machine learning, in each of its opsets."""
    cases: Mapping[str, tuple[dict[str, Any], Any, Any]] = {
        "Normalizer": ({"norm": "L2"}, TensorProto.FLOAT, TensorProto.FLOAT),
        "Scaler": ({"offset": [1.0], "scale": [2.0]}, TensorProto.FLOAT, TensorProto.FLOAT),
        "Binarizer": ({"threshold": 0.5}, TensorProto.FLOAT, TensorProto.FLOAT),
        "LinearRegressor": (
            {"coefficients": [1.0, 2.0, 3.0], "intercepts": [0.5]},
            TensorProto.FLOAT,
            TensorProto.FLOAT,
        ),
        "LabelEncoder": (
            {"keys_strings": ["a", "b"], "values_int64s": [1, 2], "default_int64": 9},
            TensorProto.STRING,
            TensorProto.INT64,
        ),
        "Imputer": (
            {"imputed_value_floats": [1.0], "replaced_value_float": 0.0},
            TensorProto.FLOAT,
            TensorProto.FLOAT,
        ),
        "OneHotEncoder": ({"cats_int64s": [1, 2]}, TensorProto.INT64, TensorProto.FLOAT),
        "NoSuchOperator": ({}, TensorProto.FLOAT, TensorProto.FLOAT),
    }
    for name, (attributes, kind, out) in cases.items():
        for opset in range(1, 7):
            for plain in (9, 13, 17, 21):
                node = helper.make_node(name, ["x"], ["y"], domain="ai.onnx.ml", **attributes)
                yield (
                    f"{name}-{opset}-{plain}",
                    model(
                        [node],
                        {"x": (kind, ["N", 3])},
                        {"y": (out, None)},
                        {"": plain, "ai.onnx.ml": opset},
                    ),
                )


def _odd() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Domains that onnxruntime has or lacks, wrong types, and missing inputs."""
    x = {"x": (TensorProto.FLOAT, ["N", 3])}
    y = {"y": (TensorProto.FLOAT, ["N", 3])}
    for domain, name in (
        ("com.microsoft", "Gelu"),
        ("com.microsoft", "QuickGelu"),
        ("com.microsoft", "NoSuchOperator"),
        ("ai.onnx.contrib", "StringUpper"),
        ("com.example", "Own"),
        ("ai.onnx.preview.training", "Momentum"),
    ):
        for opset in (1, 2):
            node = helper.make_node(name, ["x"], ["y"], domain=domain)
            yield f"{domain}-{name}-{opset}", model([node], x, y, {"": 17, domain: opset})
    for wrong in (TensorProto.INT64, TensorProto.STRING, TensorProto.BOOL):
        node = helper.make_node("Add", ["x", "w"], ["y"])
        kind = TensorProto.DataType.Name(wrong)
        yield f"Add-float-{kind}", model([node], {**x, "w": (wrong, ["N", 3])}, y, {"": 17})
    yield "dangling", model([helper.make_node("Add", ["x", "gone"], ["y"])], x, y, {"": 17})
    declared = {"": 17, "com.example": 3}
    yield "declared", model([helper.make_node("Relu", ["x"], ["y"])], x, y, declared)
