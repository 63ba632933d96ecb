"""Inputs that have a default: each transport takes them, and uses the default without them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from mlpack.runtime.predictor import Predictor
from mlpack.runtime.scorer import Payload
from mlpack.runtime.scoring_service import ScoringService
from tests.runtime.models import scaled, with_defaults
from tests.runtime.support import ask, release, started

ROW = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
SCALE = {"name": "scale", "datatype": "FP32", "shape": [1], "data": [10]}


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScoringService]:
    settings = release(tmp_path_factory.mktemp("optional"))
    scaled(settings.model_dir / "model.onnx")
    with started(settings) as service:
        yield service


def post(module: ScoringService, path: str, body: object) -> tuple[int, Any]:
    answer = ask(module, "POST", path, orjson.dumps(body))
    return answer.status_code, answer.json()


@pytest.mark.parametrize(
    ("body", "result"),
    [
        ({"x": [[1, 2]]}, [[2.0, 4.0]]),
        ({"data": [[1, 2]]}, [[2.0, 4.0]]),
        ({"x": [[1, 2]], "scale": [10]}, [[10.0, 20.0]]),
        ({"data": [[1, 2]], "scale": [10]}, [[10.0, 20.0]]),
        ({"data": [[1, 2]], "deviceID": "7"}, [[2.0, 4.0]]),
    ],
)
def test_score_takes_an_input_with_a_default(
    module: ScoringService, body: object, result: object
) -> None:
    assert post(module, "/score", body) == (200, {"result": result})


@pytest.mark.parametrize("body", [{"x": [[1, 2]], "scael": [1]}, {"data": [[1, 2]], "scael": [1]}])
def test_a_misspelt_member_is_named_with_the_known_ones(
    module: ScoringService, body: object
) -> None:
    status, answer = post(module, "/score", body)
    assert status == 400
    assert answer["field"] == "scael"
    assert "x tensor(float)" in answer["message"]
    assert "scale tensor(float) [1] (optional)" in answer["message"]


def test_infer_takes_an_input_with_a_default(module: ScoringService) -> None:
    for inputs, result in ([ROW], [2.0, 4.0]), ([ROW, SCALE], [10.0, 20.0]):
        status, answer = post(module, "/v2/models/fan/infer", {"inputs": inputs})
        assert (status, answer["outputs"][0]["data"]) == (200, result)
    status, answer = post(module, "/v2/models/fan/infer", {"inputs": [SCALE]})
    assert (status, answer["error"]) == (400, "inputs has no x")
    misspelt = {**SCALE, "name": "scael"}
    status, answer = post(module, "/v2/models/fan/infer", {"inputs": [ROW, misspelt]})
    assert status == 400
    assert "scael" in answer["error"]
    assert "x, scale" in answer["error"]


def test_the_signature_lists_it_as_optional(module: ScoringService) -> None:
    x, scale = ask(module, "GET", "/v2/models/fan").json()["inputs"]
    assert "optional" not in x
    assert scale == {"name": "scale", "datatype": "FP32", "shape": [1], "optional": True}


def test_openapi_does_not_require_it(module: ScoringService) -> None:
    schemas = ask(module, "GET", "/swagger.json").json()["components"]["schemas"]
    for each in schemas["ServiceInput"]["anyOf"]:
        assert "scale" in each["properties"]
        assert "scale" not in each["required"]
    inputs = schemas["InferRequest"]["properties"]["inputs"]
    assert (inputs["minItems"], inputs["maxItems"]) == (1, 2)


def test_raw_tensors_are_of_the_input_without_a_default(module: ScoringService) -> None:
    octets = {"content-type": "application/octet-stream"}
    answer = ask(module, "POST", "/score", b"\0\0\x80\x3f" * 2, octets)
    assert answer.json() == {"result": [[2.0, 2.0]]}


@pytest.mark.parametrize("transport", ["mqtt", "iotedge"])
def test_messages_take_it(module: ScoringService, transport: str) -> None:
    message = Payload(content=b'{"deviceID": "7", "x": [[1, 2]], "scale": [10]}')
    prediction = Predictor(module, transport).predict(message, threading.Event())
    assert orjson.loads(prediction or b"") == {"deviceID": "7", "result": [[10.0, 20.0]]}


def test_the_model_opens_alike_in_a_script(tmp_path: Path) -> None:
    from mlpack.runtime.onnx import open_model

    signature = open_model(scaled(tmp_path / "model.onnx")).signature
    assert [(each.name, each.optional) for each in signature.inputs] == [
        ("x", False),
        ("scale", True),
    ]


@pytest.mark.parametrize(("size", "listed"), [(512, 2), (513, 0)])
def test_weights_that_an_exporter_listed_as_inputs_are_none(
    tmp_path: Path, size: int, listed: int
) -> None:
    from mlpack.project.importers.onnx_file import read_onnx
    from mlpack.runtime.onnx import open_model

    path = with_defaults(tmp_path / "model.onnx", size)
    graph = read_onnx(path).graph
    assert graph is not None
    for inputs in (open_model(path).signature.inputs, graph.signature.inputs):
        assert [each.optional for each in inputs] == [False] + [True] * listed


def test_up_to_ir_3_no_input_has_a_default(tmp_path: Path) -> None:
    import onnx

    from mlpack.project.importers.onnx_file import read_onnx

    path = with_defaults(tmp_path / "model.onnx", 1)
    model = onnx.load(str(path))
    model.ir_version = 3
    onnx.save(model, str(path))
    graph = read_onnx(path).graph
    assert graph is not None
    assert [str(each) for each in graph.signature.inputs] == ["x: float32 [N, 2]"]
