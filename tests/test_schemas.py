"""The JSON Schemas of docs/reference/schemas describe what mlpack writes, and nothing looser."""

from __future__ import annotations

import copy
import io
import json
import tarfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import joblib
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from sklearn.linear_model import LinearRegression

from tests.support import dense_onnx, make_project, run, tiny_onnx

SCHEMAS = Path(__file__).resolve().parents[1] / "docs" / "reference" / "schemas"
NAMES = ("bundle", "lock", "model-version", "release-record", "served-model")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[Any]]:
    """Every document of a project with a release by each strategy, and a bundle."""
    folder = tmp_path_factory.mktemp("schemas")
    project = make_project(folder / "project")
    at = ("-C", str(project.root))
    tiny_onnx(project.root / "small.onnx")
    (project.root / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    for tuned, name in enumerate(("first", "second")):
        dense_onnx(project.root / f"{name}.onnx", tuned=tuned)
        _done(*at, "register", f"{name}.onnx", "--name", "fan")
        _done(*at, "build", "fan")
    small = ("small.onnx", "--name", "small", "--scoring", str(project.root / "score.py"))
    _done(*at, "register", *small, "--metric", "accuracy=0.5", "--tag", "stage=lab")
    _done(*at, "build", "small")
    joblib.dump(LinearRegression().fit([[1.0], [2.0]], [1.0, 3.0]), project.root / "line.joblib")
    _done(*at, "register", "line.joblib", "--name", "line", "--trust-pickle")
    bundle = folder / "bundle.tar"
    _done(*at, "bundle", "fan:1", "--onto", "none", "--engine", "containerd", "-o", str(bundle))
    blobs = project.root / ".mlpack" / "oci" / "blobs" / "sha256"
    found: dict[str, list[Any]] = {name: [] for name in NAMES}
    found["lock"].append(tomllib.loads((project.root / "mlpack.lock").read_text()))
    for path in blobs.iterdir():
        for name, document in _documents(path.read_bytes()):
            found[name].append(document)
    with tarfile.open(bundle) as archive:
        member = archive.extractfile("mlpack-bundle.json")
        assert member is not None
        found["bundle"].append(json.load(member))
    return found


def _done(*args: str) -> None:
    done = run(*args)
    assert done.exit_code == 0, done.output


def _documents(content: bytes) -> Iterator[tuple[str, Any]]:
    """A blob's documents: a record, a version, or the one inside a layer."""
    try:
        document = json.loads(content)
    except ValueError:
        try:
            with tarfile.open(fileobj=io.BytesIO(content)) as layer:
                for member in layer:
                    if member.name.endswith("/mlpack.json"):
                        file = layer.extractfile(member)
                        assert file is not None
                        yield "served-model", json.load(file)
        except tarfile.ReadError:
            pass
        return
    if isinstance(document, dict) and "packing" in document:
        yield "release-record", document
    if isinstance(document, dict) and "framework" in document:
        yield "model-version", document


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SCHEMAS / f"{name}.schema.json").read_text("utf-8"))
    return found


def validator(name: str) -> Draft202012Validator:
    schema = read(name)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("name", NAMES)
def test_what_mlpack_writes_fits_its_schema(name: str, written: Mapping[str, list[Any]]) -> None:
    assert written[name]
    for document in written[name]:
        validator(name).validate(document)


def test_releases_of_every_strategy_are_there(written: Mapping[str, list[Any]]) -> None:
    made = {each["strategy"] for each in written["release-record"]}
    assert made == {"layer", "packed", "patch"}


@pytest.mark.parametrize("name", NAMES)
def test_a_document_without_a_required_member_does_not_fit(
    name: str, written: Mapping[str, list[Any]]
) -> None:
    checked = validator(name)
    for member in read(name)["required"]:
        broken = copy.deepcopy(written[name][0])
        del broken[member]
        with pytest.raises(ValidationError):
            checked.validate(broken)


def test_every_schema_is_named_on_the_page_of_formats() -> None:
    page = (SCHEMAS.parent / "formats.md").read_text(encoding="utf-8")
    assert {path.name for path in SCHEMAS.glob("*.json")} == {f"{n}.schema.json" for n in NAMES}
    for name in NAMES:
        assert f"(schemas/{name}.schema.json)" in page
