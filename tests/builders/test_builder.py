"""The rules every builder's image is held to, and the context a builder is sent."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from mlpack.builders.context import docker_release, write_context
from mlpack.oci.descriptor import Hashing
from mlpack.oci.image import NotOnBase
from mlpack.oci.layer import pack_layer
from mlpack.project.directory import ModelStore, ProjectDirectory
from mlpack.project.releases import (
    APP_ROOT,
    NotOneLayer,
    OciBuilder,
    model_files,
    require_one_layer,
)
from mlpack.runtime.identity import check_files, read_identity
from mlpack.runtime.settings import NotServable, RuntimeSettings
from mlpack.stores.store import read_image
from tests.support import image, make_project, run, tiny_onnx


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    made = make_project(tmp_path / "fan")
    model, script = tiny_onnx(tmp_path / "model.onnx"), tmp_path / "score.py"
    script.write_text("def run(raw):\n    return raw\n")
    args = ["register", str(model), "--name", "fan", "--scoring", str(script)]
    assert run("-C", str(made.root), *args).exit_code == 0
    return made


def test_an_image_must_be_its_base_and_one_layer() -> None:
    base = image("a", "b")
    require_one_layer(image("a", "b", "model"), base)
    for other, error in (
        (image("a", "b"), NotOneLayer),
        (image("a", "b", "c", "d"), NotOneLayer),
        (image("a", "x", "model"), NotOnBase),
    ):
        with pytest.raises(error):
            require_one_layer(other, base)


def test_the_layer_is_written_once_for_all_platforms(project: ProjectDirectory) -> None:
    bases = [read_image(project.layout, each.manifest) for each in project.lock().base.platforms]
    model = ModelStore(project.layout).get("fan", "1")
    made = OciBuilder().build(project.layout, model, bases)
    assert len({each.layers[-1] for each in made}) == 1
    assert [each.platform for each in made] == [each.platform for each in bases]


def test_the_context_holds_the_dockerfile_and_the_files_and_repeats(
    project: ProjectDirectory,
) -> None:
    model = ModelStore(project.layout).get("fan", "1")
    first, second = io.BytesIO(), io.BytesIO()
    for out in (first, second):
        write_context(project.layout, model, docker_release(model, "base@sha256:1"), out)
    assert first.getvalue() == second.getvalue()
    first.seek(0)
    with tarfile.open(fileobj=first) as archive:
        files = [each.name for each in archive if each.isfile()]
        dockerfile = archive.extractfile("Dockerfile")
        assert dockerfile is not None
        assert b"FROM base@sha256:1\n" in dockerfile.read()
    assert files == [
        "Dockerfile",
        "model/var/azureml-app/azureml-models/fan/1/model.onnx",
        "model/var/azureml-app/mlpack.json",
        "model/var/azureml-app/score.py",
    ]


def test_the_runtime_reads_the_record_and_finds_the_files_it_names(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    model = ModelStore(project.layout).get("fan", "1")
    entries, open_file = model_files(project.layout, model)
    for entry in entries:
        place = tmp_path / "root" / entry.path
        place.parent.mkdir(parents=True, exist_ok=True)
        with open_file(entry.path) as content:
            place.write_bytes(content.read())
    settings = RuntimeSettings.read({"AML_APP_ROOT": str(tmp_path / "root" / APP_ROOT)})
    record = (settings.app_root / "mlpack.json").read_text()
    assert record.count("\n") == 1
    assert json.loads(record)["digest"] == str(model.digest)
    found = read_identity(settings)
    assert (found.name, found.version, found.digest) == ("fan", "1", str(model.digest))
    check_files(found.files, settings.model_dir)
    (settings.model_dir / "model.onnx").write_bytes(b"another")
    with pytest.raises(NotServable, match="has 7 bytes and sha256"):
        check_files(found.files, settings.model_dir)


def test_a_layer_of_another_tool_keeps_its_diff_id() -> None:
    tar, out = b"content" * 10_000, io.BytesIO()
    layer = pack_layer([tar[:5], tar[5:]], len(tar), Hashing(out))
    assert layer.size == len(out.getvalue()) < len(tar)
    assert gzip.decompress(out.getvalue()) == tar
    assert layer.diff_id.hex == hashlib.sha256(tar).hexdigest()
