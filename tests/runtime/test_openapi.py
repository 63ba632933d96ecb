"""``/swagger.json``: valid, true of each kind of module, and true of what it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import orjson
import pytest
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator

from mlpack.runtime.http.app import Application, application
from mlpack.runtime.http.openapi import VERSIONS, element
from tests.runtime.support import FAN, PICTURE, ask, release, started
from tests.support import tiny_onnx

TENSORS = """
INPUTS = {"image": ("uint8", (None, 2, 3)), "name": ("string", (None,)), "on": ("bool", ())}
OUTPUTS = {"y": ("float32", (None, 1))}
def init(): pass
def run(data): return data
def run_tensors(tensors): return {}
"""


def document(folder: Path, script: str | None, version: str = "3") -> dict[str, Any]:
    settings = release(folder, script)
    if script is None:
        tiny_onnx(settings.model_dir / "model.onnx")
    with started(settings) as module:
        found = ask(module, "GET", f"/swagger.json?version={version}")
        assert found.status_code == 200
        made: dict[str, Any] = found.json()
        return made


SCRIPTS = {"fan": FAN, "picture": PICTURE, "tensors": TENSORS, "generic": None}


@pytest.mark.parametrize("kind", SCRIPTS)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_document_is_valid(kind: str, version: str, tmp_path: Path) -> None:
    found = document(tmp_path, SCRIPTS[kind], version)
    assert found["openapi"].startswith(version)
    validator = OpenAPIV31SpecValidator if version == "3.1" else OpenAPIV30SpecValidator
    validator(found).validate()


def score_of(found: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = found["paths"]["/score"]["post"]["requestBody"]["content"]
    return content


def given_to_score(found: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = found["components"]["schemas"]["ServiceInput"]
    return schema


def test_numbers_are_listed_by_name(tmp_path: Path) -> None:
    found = document(tmp_path, FAN)
    schema = given_to_score(found)
    numbers = schema["properties"]["params"]
    assert "rotation (from 400 to 800), temperature (from 20 to 60)" in numbers["description"]
    jsonschema.validate({"params": [600, 35.5, 120]}, schema)
    wrong: Any
    for wrong in ({"params": [600, 35.5]}, {"params": [1, 2, "3"]}, {"data": []}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
    assert schema["example"] == {"params": [600, 35.5, 120]}
    assert list(score_of(found)) == ["application/json"]


def test_pictures_are_taken_where_the_script_takes_them(tmp_path: Path) -> None:
    assert {"image/jpeg", "image/png"} < set(score_of(document(tmp_path, PICTURE)))


def test_a_model_alone_takes_its_own_tensors(tmp_path: Path) -> None:
    found = document(tmp_path, None)
    schema = given_to_score(found)
    for right in ({"data": [[0, 1, 2, 3.5]]}, {"x": [[0, 1, 2, 3]] * 2}):
        jsonschema.validate(right, schema)
    wrong: Any
    for wrong in ({"data": [[0, 1, 2]]}, {"data": [0, 1, 2, 3]}, {"data": []}, {}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
    assert {"application/octet-stream", "application/x-npy"} < set(score_of(found))


def test_the_protocol_is_described_with_the_models_tensors(tmp_path: Path) -> None:
    schemas = document(tmp_path, TENSORS)["components"]["schemas"]
    listed = schemas["InferRequest"]["properties"]["inputs"]
    assert (listed["minItems"], listed["maxItems"]) == (3, 3)
    kinds = [each["properties"]["datatype"]["enum"] for each in listed["items"]["oneOf"]]
    assert kinds == [["UINT8"], ["BYTES"], ["BOOL"]]
    examples = schemas["InferRequest"]["example"]["inputs"]
    assert [each["shape"] for each in examples] == [[1, 2, 3], [1], []]
    assert [each["data"] for each in examples] == [[[[0, 0, 0], [0, 0, 0]]], [""], [False]]


def test_the_examples_are_scored(tmp_path: Path) -> None:
    settings = release(tmp_path)
    tiny_onnx(settings.model_dir / "model.onnx")
    with started(settings) as module:
        schemas = ask(module, "GET", "/swagger.json").json()["components"]["schemas"]
        for path, name in (("/score", "ServiceInput"), ("/v2/models/fan/infer", "InferRequest")):
            body = orjson.dumps(schemas[name]["example"])
            assert ask(module, "POST", path, body).status_code == 200


def test_a_number_is_within_the_schema_where_it_fits_the_type() -> None:
    for datatype, dtype in (("FP16", np.float16), ("FP32", np.float32)):
        most = element(datatype)["maximum"]
        assert isinstance(most, float)
        with np.errstate(over="ignore"):
            assert np.isfinite(dtype(most))
            assert np.isinf(dtype(np.nextafter(most, np.inf)))


def test_all_paths_of_the_module_are_described(tmp_path: Path) -> None:
    settings = release(tmp_path, FAN)
    with started(settings) as module:
        app = application(module)
        assert isinstance(app, Application)
        known = {getattr(route, "path", "") for route in app.routes}
        found = ask(module, "GET", "/swagger.json").json()
    assert set(found["paths"]) == known


@pytest.mark.parametrize("version", ["2", "4", "", "x" * 1000])
def test_a_version_that_is_not_there(version: str, tmp_path: Path) -> None:
    with started(release(tmp_path, FAN)) as module:
        found = ask(module, "GET", f"/swagger.json?version={version}")
    assert found.status_code == 404
    assert found.json()["field"] == "version"
    assert len(found.content) < 200


def test_a_client_of_azure_finds_its_operations(tmp_path: Path) -> None:
    paths = document(tmp_path, FAN)["paths"]
    assert paths["/"]["get"]["operationId"] == "ServiceHealthCheck"
    assert paths["/score"]["post"]["operationId"] == "RunMLService"
