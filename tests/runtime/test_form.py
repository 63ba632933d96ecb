"""The first request of the page's form scores, for models of every kind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from mlpack.runtime import trial
from mlpack.runtime.http.form import Form, Part, Picture, forms, request
from mlpack.runtime.http.page import first_that_scores
from mlpack.runtime.onnx_categories import read_categories
from mlpack.runtime.scoring_service import ScoringService
from tests.runtime import models
from tests.runtime.models import Dimensions, value
from tests.runtime.support import FAN, PICTURE, ask, release, started

ML = "ai.onnx.ml"


def made(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    *constants: onnx.TensorProto,
) -> Path:
    """A model that may use ONNX's ML operators."""
    graph = helper.make_graph(nodes, "made", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def same(kind: int, *shape: int | str | None, name: str = "x") -> Callable[[Path], Path]:
    """A model that returns its input."""

    def make(path: Path) -> Path:
        node = helper.make_node("Identity", [name], ["y"])
        return made(path, [node], [value(name, shape, kind)], [value("y", shape, kind)])

    return make


def columns(path: Path) -> Path:
    """Named columns of mixed types, as an estimator with a ColumnTransformer has them."""
    kinds = {"tenure": T.FLOAT, "plan": T.STRING, "age": T.INT64, "loyal": T.BOOL}
    inputs = [value(name, ("N", 1), kind) for name, kind in kinds.items()]
    outputs = [value(f"{name}_out", ("N", 1), kind) for name, kind in kinds.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in kinds]
    return made(path, nodes, inputs, outputs)


def strict(path: Path) -> Path:
    """An encoder that fails on a text it does not know."""
    node = helper.make_node(
        "OneHotEncoder", ["plan"], ["y"], domain=ML, cats_strings=["pro", "free"], zeros=0
    )
    return made(path, [node], [value("plan", ("N", 1), T.STRING)], [value("y", ("N", 1, 2))])


def strict_columns(path: Path) -> Path:
    """Two encoders of columns of one array of numbers."""
    nodes = [
        helper.make_node("ArrayFeatureExtractor", ["x", "both"], ["picked"], domain=ML),
        helper.make_node("Gather", ["picked", "second"], ["last"], axis=1),
        helper.make_node("Cast", ["last"], ["whole"], to=T.INT64),
        helper.make_node(
            "OneHotEncoder", ["whole"], ["y"], domain=ML, cats_int64s=[30, 50], zeros=0
        ),
    ]
    both = numpy_helper.from_array(np.array([1, 2], np.int64), "both")
    second = numpy_helper.from_array(np.array([1], np.int64), "second")
    return made(path, nodes, [value("x", ("N", 3))], [value("y", ("N", 1, 2))], both, second)


def joined_columns(path: Path) -> Path:
    """Named columns that are joined before one of them is encoded."""
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["joined"], axis=1),
        helper.make_node("Gather", ["joined", "second"], ["last"], axis=1),
        helper.make_node(
            "LabelEncoder",
            ["last"],
            ["y"],
            domain=ML,
            keys_strings=["x", "y"],
            values_int64s=[1, 2],
        ),
    ]
    second = numpy_helper.from_array(np.array([1], np.int64), "second")
    inputs = [value(name, ("N", 1), T.STRING) for name in "ab"]
    return made(path, nodes, inputs, [value("y", ("N", 1), T.INT64)], second)


def long_enough(path: Path) -> Path:
    """A convolution over at least seven values."""
    weights = numpy_helper.from_array(np.ones((1, 1, 7), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    return made(path, [node], [value("x", ("N", 1, "L"))], [value("y", ("N", 1, "M"))], weights)


def only_pairs(path: Path) -> Path:
    """A free first dimension that must be even."""
    shape = numpy_helper.from_array(np.array([-1, 2], np.int64), "shape")
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    return made(path, [node], [value("x", ("N",))], [value("y", ("M", 2))], shape)


def only_zero(path: Path) -> Path:
    """The index of the only row."""
    table = numpy_helper.from_array(np.ones((1, 3), np.float32), "table")
    node = helper.make_node("Gather", ["table", "ids"], ["y"])
    return made(path, [node], [value("ids", ("N",), T.INT64)], [value("y", ("N", 3))], table)


def divided(path: Path) -> Path:
    """Whole numbers divided by each other: zero would end the process."""
    node = helper.make_node("Div", ["a", "b"], ["y"])
    inputs = [value(name, ("N",), T.INT32) for name in "ab"]
    return made(path, [node], inputs, [value("y", ("N",), T.INT32)])


def parsed(path: Path) -> Path:
    """Numbers as texts."""
    node = helper.make_node("Cast", ["x"], ["y"], to=T.FLOAT)
    return made(path, [node], [value("x", ("N",), T.STRING)], [value("y", ("N",))])


def with_default(path: Path) -> Path:
    scale = numpy_helper.from_array(np.array([2], np.float32), "scale")
    node = helper.make_node("Mul", ["x", "scale"], ["y"])
    inputs = [value("x", ("N", 2)), value("scale", (1,))]
    return made(path, [node], inputs, [value("y", ("N", 2))], scale)


def no_input(path: Path) -> Path:
    node = helper.make_node("Identity", ["c"], ["y"])
    constant = numpy_helper.from_array(np.ones(2, np.float32), "c")
    return made(path, [node], [], [value("y", (2,))], constant)


def mapped(path: Path) -> Path:
    """Probabilities by class, as scikit-learn's classifiers have them."""
    node = helper.make_node("ZipMap", ["x"], ["y"], domain=ML, classlabels_strings=["a", "b", "c"])
    kind = helper.make_map_type_proto(T.STRING, helper.make_tensor_type_proto(T.FLOAT, []))
    output = helper.make_value_info("y", helper.make_sequence_type_proto(kind))
    return made(path, [node], [value("x", ("N", 3))], [output])


def with_past(path: Path) -> Path:
    """A mask that is as long as what was and what is, together."""
    nodes = [
        helper.make_node("Concat", ["past", "x"], ["all"], axis=1),
        helper.make_node("Mul", ["all", "mask"], ["y"]),
    ]
    inputs = [
        value("x", ("batch", "sequence")),
        value("past", ("batch", "past_sequence")),
        value("mask", ("batch", "past_sequence + sequence")),
    ]
    return made(path, nodes, inputs, [value("y", ("batch", "total"))])


PICTURES: dict[str, tuple[int, Dimensions]] = {
    "planar": (T.FLOAT, ("N", 3, 32, 48)),
    "free sides": (T.FLOAT, ("N", 3, "H", "W")),
    "interleaved bytes": (T.UINT8, (1, 24, 24, 3)),
    "grey": (T.FLOAT, (None, 1, 28, 28)),
    "no batch": (T.DOUBLE, (3, 16, 16)),
    "half": (T.FLOAT16, ("N", 3, 16, 16)),
}
MODELS: dict[str, Callable[[Path], Path]] = {
    **{name: same(kind, *shape) for name, (kind, shape) in PICTURES.items()},
    "numbers": same(T.FLOAT, "N", 6),
    "one row": same(T.FLOAT, 1, 6),
    "two rows": same(T.FLOAT, 2, 3),
    "vector": same(T.FLOAT, 6),
    "free vector": same(T.FLOAT, None),
    "scalar": same(T.FLOAT),
    "double": same(T.DOUBLE, "N", 2),
    "float16": same(T.FLOAT16, "N", 2),
    "int64": same(T.INT64, "N", 2),
    "uint64": same(T.UINT64, "N"),
    "int8": same(T.INT8, "N", 2),
    "bool": same(T.BOOL, "N", 3),
    "text": same(T.STRING, "N", 1),
    "text scalar": same(T.STRING),
    "all free": same(T.FLOAT, None, None, None),
    "long": same(T.FLOAT, "N", 40),
    "longer": same(T.FLOAT, "N", 100),
    "very long": same(T.FLOAT, 1, 16000),
    "volume": same(T.FLOAT, "N", 4, 4, 4, 4),
    "quotes": same(T.FLOAT, "N", 2, name='it\'s "x" </script> \\'),
    "members of objects": same(T.FLOAT, "N", 1, name="constructor"),
    "named data": same(T.FLOAT, "N", 2, name="data"),
    "unicode": same(T.STRING, "N", 1, name="größe ü"),
    "columns": columns,
    "strict": strict,
    "strict columns": strict_columns,
    "joined columns": joined_columns,
    "long enough": long_enough,
    "only pairs": only_pairs,
    "only zero": only_zero,
    "divided": divided,
    "parsed": parsed,
    "with default": with_default,
    "no input": no_input,
    "mapped": mapped,
    "with past": with_past,
    "square": models.square,
    "texts": models.texts,
    "two inputs": models.two_inputs,
}


def post(module: ScoringService, form: Form) -> int:
    sent = request(form)
    assert sent is not None
    headers = {"content-type": sent.content_type, **sent.headers}
    found = ask(module, "POST", "/score", sent.content, headers)
    assert found.status_code == 200, found.text
    return found.status_code


@pytest.mark.parametrize("name", MODELS)
def test_the_first_request_scores(name: str, tmp_path: Path) -> None:
    settings = release(tmp_path)
    MODELS[name](settings.model_dir / "model.onnx")
    with started(settings) as module:
        page = ask(module, "GET", "/", headers={"accept": "text/html"}).text
        shown = json.loads(re.findall(r'id="module">(.*?)</script>', page)[0])["form"]
        form = first_that_scores(module)
        assert [each["name"] for each in shown["parts"]] == [each.name for each in form.parts]
        assert post(module, form) == 200
        assert (form.picture is not None) == (name in PICTURES)


@pytest.mark.parametrize("script", [FAN, PICTURE])
def test_a_scripts_first_request_scores(script: str, tmp_path: Path) -> None:
    with started(release(tmp_path, script)) as module:
        form = first_that_scores(module)
        if script == PICTURE:
            assert form.file
            assert request(form) is None
        else:
            assert post(module, form) == 200


TENSORS = """
INPUTS = {"x": ("KIND", (None, 3))}
OUTPUTS = {"y": ("KIND", (None, 3))}
def init(): pass
def run(data): raise ValueError("other JSON")
def run_tensors(tensors): return {"y": tensors["x"]}
"""


@pytest.mark.parametrize("kind", ["float32", "int64", "bool", "uint8"])
def test_a_script_that_takes_tensors_gets_bytes(kind: str, tmp_path: Path) -> None:
    with started(release(tmp_path, TENSORS.replace("KIND", kind))) as module:
        form = first_that_scores(module)
        assert form.octets == kind
        assert post(module, form) == 200


def test_a_script_of_which_nothing_is_known_is_sent_json(tmp_path: Path) -> None:
    with started(release(tmp_path, "def init(): pass\ndef run(data): return data")) as module:
        assert post(module, first_that_scores(module)) == 200


def test_a_field_has_a_label_and_known_categories(tmp_path: Path) -> None:
    settings = release(tmp_path)
    joined_columns(settings.model_dir / "model.onnx")
    with started(settings) as module:
        first, second = next(forms(module.scorer)).parts
    assert first == Part(
        "a", "text", (1, 1), "example", ("example",), ("a",), about="string [N, 1]"
    )
    assert (second.values, second.choices) == (("x",), (("x", "y"),))


def test_a_default_is_left_out(tmp_path: Path) -> None:
    settings = release(tmp_path)
    with_default(settings.model_dir / "model.onnx")
    with started(settings) as module:
        form = next(forms(module.scorer))
    assert [(each.name, each.optional) for each in form.parts] == [("x", False), ("scale", True)]
    sent = request(form)
    assert sent is not None
    assert json.loads(sent.content) == {"x": [[1, 1]]}


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (("N", 3, 32, 48), Picture("x", "float32", (1, 3, 32, 48), 3, 32, 48, True)),
        ((1, 32, 48, 1), Picture("x", "float32", (1, 32, 48, 1), 1, 32, 48, False)),
        (("N", 3, None, "W"), Picture("x", "float32", (1, 3, 224, 224), 3, 224, 224, True)),
        (("N", 4, 32, 48), None),
        ((8, 3, 32, 48), None),
        (("N", 3, 100), None),
        (("N", 100, 3), None),
        (("N", 3, 4, 4), None),
        (("N", 3, 32, "W"), None),
        (("N", "C", "H", "W"), None),
    ],
    ids=str,
)
def test_what_a_picture_is(shape: Dimensions, expected: Picture | None, tmp_path: Path) -> None:
    settings = release(tmp_path)
    same(T.FLOAT, *shape)(settings.model_dir / "model.onnx")
    with started(settings) as module:
        assert next(forms(module.scorer)).picture == expected


def test_a_file_that_is_not_understood_has_no_categories(tmp_path: Path) -> None:
    path = strict(tmp_path / "model.onnx")
    content = path.read_bytes()
    assert read_categories(path) == {("plan", 0): ["pro", "free"]}
    for end in range(len(content)):
        path.write_bytes(content[:end])
        assert set(read_categories(path)) <= {("plan", 0)}
        path.write_bytes(b"\xff" * end)
        assert read_categories(path) == {}
    assert read_categories(tmp_path / "absent") == {}


def test_a_trial_counts_as_no_request_and_calls_no_script(tmp_path: Path) -> None:
    settings = release(tmp_path)
    only_zero(settings.model_dir / "model.onnx")
    with started(settings) as module:
        ask(module, "GET", "/", headers={"accept": "text/html"})
        counted = ask(module, "GET", "/metrics").text
    assert "mlpack_scores_total{" not in counted


READS = """
from mlpack_runtime import open_model, read_array
def init():
    global model
    model = open_model()
def run(raw):
    return {"result": model.run(model.read(raw))["y"], "own": read_array(3, "int64", (), field="k")}
"""


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"data": [[1, 2]]}', 200),
        ('{"x": [[1, 2]]}', 200),
        ('{"x": [["1", 2]]}', 400),
        ('{"x": [[true, 2]]}', 400),
        ('{"x": [1, 2]}', 400),
        ('{"z": [[1, 2]]}', 400),
        ('{"x": [[1e39, 2]]}', 400),
        ("[[1, 2]]", 400),
        ("{", 400),
    ],
)
def test_a_script_reads_as_a_model_alone_does(body: str, status: int, tmp_path: Path) -> None:
    answers = []
    for script in (None, READS):
        settings = release(tmp_path / str(script is None), script)
        same(T.FLOAT, "N", 2)(settings.model_dir / "model.onnx")
        with started(settings) as module:
            answers.append(ask(module, "POST", "/score", body.encode()))
    assert [each.status_code for each in answers] == [status, status]
    first, second = (each.json() for each in answers)
    assert first.get("result") == second.get("result")
    assert first.get("message") == second.get("message")


@pytest.mark.parametrize("model", [strict, strict_columns, joined_columns])
def test_a_release_is_tried_with_known_categories(
    model: Callable[[Path], Path], tmp_path: Path
) -> None:
    settings = release(tmp_path)
    model(settings.model_dir / "model.onnx")
    with started(settings) as module:
        assert trial.score(module.scorer) == "ones, free lengths 1"
