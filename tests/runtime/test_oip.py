"""The Open Inference Protocol's paths, on a module that scores."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from mlpack.runtime.json_arrays import ALLOW
from mlpack.runtime.scoring_service import ScoringService
from tests.runtime.support import FAN, ask, release, started
from tests.support import tiny_onnx

ROW = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 0, 1]}
LENGTH = "inference-header-content-length"
INFER = "/v2/models/fan/versions/3/infer"


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScoringService]:
    settings = release(tmp_path_factory.mktemp("oip"))
    tiny_onnx(settings.model_dir / "model.onnx")
    with started(settings) as module:
        yield module


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v2",
            {"name": "mlpack_runtime", "version": "1", "extensions": ["binary_tensor_data"]},
        ),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"live": True, "ready": True}),
        ("/v2/models/fan/ready", {"name": "fan", "ready": True}),
        ("/v2/models/fan/versions/3/ready", {"name": "fan", "ready": True}),
    ],
)
def test_what_is_asked_with_get(module: ScoringService, path: str, body: object) -> None:
    found = ask(module, "GET", path)
    assert (found.status_code, found.json()) == (200, body)
    assert found.headers["content-type"] == "application/json"


def test_the_model_is_described(module: ScoringService) -> None:
    found = ask(module, "GET", "/v2/models/fan")
    assert found.json() == {
        "name": "fan",
        "versions": ["3"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
    }
    assert ask(module, "GET", "/v2/models/fan/versions/3").json() == found.json()


def test_a_tensor_is_scored(module: ScoringService) -> None:
    body = orjson.dumps({"id": "a", "inputs": [ROW]})
    for path in (INFER, "/v2/models/fan/infer"):
        found = ask(module, "POST", path, body)
        assert (found.status_code, found.json()) == (
            200,
            {
                "model_name": "fan",
                "model_version": "3",
                "id": "a",
                "outputs": [{"name": "y", "shape": [1, 1], "datatype": "FP32", "data": [3.5]}],
            },
        )
        assert LENGTH not in found.headers


def test_tensors_come_and_go_as_bytes(module: ScoringService) -> None:
    row = {key: value for key, value in ROW.items() if key != "data"}
    request = {
        "inputs": [{**row, "parameters": {"binary_data_size": 16}}],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    text = orjson.dumps(request)
    body = text + struct.pack("<4f", 0, 0, 0, 1)
    found = ask(module, "POST", INFER, body, {LENGTH: str(len(text))})
    assert found.status_code == 200
    assert found.headers["content-type"] == "application/octet-stream"
    length = int(found.headers[LENGTH])
    assert orjson.loads(found.content[:length])["outputs"] == [
        {"name": "y", "shape": [1, 1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}
    ]
    assert found.content[length:] == struct.pack("<f", 3.5)


def test_a_body_of_nothing_but_the_only_tensor(module: ScoringService) -> None:
    rows = struct.pack("<8f", 0, 0, 0, 1, 0, 0, 0, 2)
    found = ask(module, "POST", INFER, rows, {LENGTH: "0"})
    assert found.status_code == 200
    assert found.content.endswith(struct.pack("<2f", 3.5, 6.5))


def test_a_large_body_is_scored(module: ScoringService) -> None:
    rows = 5000
    request = {"inputs": [{**ROW, "shape": [rows, 4], "data": [0.125] * (4 * rows)}]}
    found = ask(module, "POST", INFER, orjson.dumps(request))
    assert found.json()["outputs"][0]["data"] == [1.25] * rows


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v2/models/pump", 404, "unknown model pump"),
        ("POST", "/v2/models/pump/infer", 404, "unknown model pump"),
        ("GET", "/v2/models/fan/versions/4/ready", 404, "unknown version 4"),
        ("POST", INFER, 400, "the request is not JSON"),
        ("GET", INFER, 405, "GET /v2/models/fan/versions/3/infer is not allowed"),
        ("GET", "/v2/nothing", 404, "GET /v2/nothing does not exist"),
        ("POST", "/v2", 405, "POST /v2 is not allowed"),
    ],
)
def test_errors_are_the_protocols(
    module: ScoringService, method: str, path: str, status: int, message: str
) -> None:
    found = ask(module, method, path)
    assert found.status_code == status
    assert list(found.json()) == ["error"]
    assert found.json()["error"].startswith(message)
    assert ("allow" in found.headers) == (status == 405)


def test_numbers_that_are_not_finite_are_refused(module: ScoringService) -> None:
    row = {key: value for key, value in ROW.items() if key != "data"}
    text = orjson.dumps({"inputs": [{**row, "parameters": {"binary_data_size": 16}}]})
    body = text + struct.pack("<4f", 0, 0, 0, float("nan"))
    found = ask(module, "POST", INFER, body, {LENGTH: str(len(text))})
    assert (found.status_code, found.json()) == (
        400,
        {"error": f"x has numbers that are not finite; {ALLOW}"},
    )


def test_a_body_that_is_too_large(tmp_path: Path) -> None:
    settings = replace(release(tmp_path), max_body=100)
    tiny_onnx(settings.model_dir / "model.onnx")
    with started(settings) as small:
        found = ask(small, "POST", INFER, b" " * 101)
    assert (found.status_code, list(found.json())) == (413, ["error"])


def test_a_module_that_stops_is_not_ready(tmp_path: Path) -> None:
    settings = release(tmp_path)
    tiny_onnx(settings.model_dir / "model.onnx")
    with started(settings) as module:
        pass
    assert ask(module, "GET", "/v2/health/ready").status_code == 503
    assert ask(module, "GET", "/v2/models/fan/ready").json() == {"name": "fan", "ready": False}
    found = ask(module, "POST", INFER, orjson.dumps({"inputs": [ROW]}))
    assert found.status_code == 503
    assert int(found.headers["retry-after"]) > 0


def test_a_script_without_tensors_says_so(tmp_path: Path) -> None:
    with started(release(tmp_path, FAN)) as module:
        assert ask(module, "GET", "/v2/models/fan").json()["inputs"] == []
        found = ask(module, "POST", INFER, orjson.dumps({"inputs": [ROW]}))
    assert (found.status_code, found.json()) == (
        400,
        {"error": "fan takes no tensors; use POST /score"},
    )
