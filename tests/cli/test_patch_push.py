"""Patch releases and a registry: push, pull and copy them, and build them where no base is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlpack.project.directory import ProjectDirectory
from mlpack.project.references import find_image, rebuilt_bytes
from mlpack.stores.integrity import missing_blobs, validate
from tests.registry.registry import Registry, running
from tests.support import dense_onnx, make_project, run


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with running(tmp_path / "registry") as started:
        yield started


def placed(root: Path, registry: Registry, *, base: bool = True) -> ProjectDirectory:
    """A project whose repository is in ``registry``."""
    made = make_project(root, base=base)
    path = made.root / "mlpack.toml"
    path.write_text(path.read_text().replace("registry.example.com", registry.host))
    return ProjectDirectory(made.root)


@pytest.fixture
def project(tmp_path: Path, registry: Registry) -> ProjectDirectory:
    """Two releases: the anchor, and a patch on it."""
    made = placed(tmp_path / "p", registry)
    for version in (1, 2):
        model = dense_onnx(tmp_path / "model.onnx", tuned=version - 1)
        mlpack(made, "register", str(model))
        mlpack(made, "build", "fan")
    return made


def mlpack(project: ProjectDirectory, *args: str) -> dict[str, Any]:
    done = run("-C", str(project.root), "--json", *args)
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_after_the_anchor_only_the_patch_is_sent(
    project: ProjectDirectory, registry: Registry
) -> None:
    mlpack(project, "push", "fan:1")
    pushed = mlpack(project, "push", "fan:2")
    patch = find_image(project, "fan:2").image
    anchor = {str(each.digest) for each in patch.layers[:-1]}
    assert anchor <= set(pushed["present"])
    assert str(patch.layers[-1].digest) in {each["digest"] for each in pushed["copied"]}
    assert pushed["record"]


def test_building_and_pushing_in_one_go_sends_no_layer_that_is_not_needed(
    project: ProjectDirectory, registry: Registry, tmp_path: Path
) -> None:
    mlpack(project, "push", "fan:1")
    mlpack(project, "register", str(dense_onnx(tmp_path / "model.onnx", tuned=2)))
    made = mlpack(project, "build", "fan", "--push")
    assert made["strategy"] == "patch"
    sent = sum(each["bytes"] for each in made["pushed"]["copied"])
    assert sent < 0.8 * made["candidates"]["layer"]["bytes"]


def test_a_pulled_patch_release_is_one_here(
    project: ProjectDirectory, registry: Registry, tmp_path: Path
) -> None:
    pushed = mlpack(project, "push", "fan:2")
    other = placed(tmp_path / "other", registry, base=False)
    pulled = mlpack(other, "pull", pushed["reference"])
    assert (pulled["release"], pulled["digest"]) == ("fan:2", pushed["digest"])
    assert validate(other.layout) == missing_blobs(other.layout) == ()
    assert rebuilt_bytes(find_image(other, "fan:2")) > 100_000
    copied = mlpack(other, "copy", "fan:2", f"oci:{tmp_path}/copy:fan")
    assert copied["digest"] == pushed["digest"]


def test_a_runner_without_a_base_makes_the_same_patch(
    project: ProjectDirectory, registry: Registry, tmp_path: Path
) -> None:
    base = mlpack(project, "push", "base")["reference"]
    mlpack(project, "push", "fan:1")
    here = mlpack(project, "build", "fan:2")
    runner = placed(tmp_path / "runner", registry, base=False)
    shutil.copyfile(project.root / "mlpack.lock", runner.root / "mlpack.lock")
    for tuned in (0, 1):
        mlpack(runner, "register", str(dense_onnx(tmp_path / "model.onnx", tuned=tuned)))
    made = mlpack(runner, "build", "fan:2", "--base", base)
    assert (made["strategy"], made["digest"]) == ("patch", here["digest"])
    assert validate(runner.layout) == missing_blobs(runner.layout) == ()
    # Neither the base nor the anchor came here.
    image = find_image(runner, "fan:2").image
    assert [runner.layout.exists(each.descriptor) for each in image.layers] == [False] * 5 + [True]
    assert mlpack(runner, "push", "fan:2")["digest"] == here["digest"]
    to = f"{registry.host}/elsewhere/fan"
    pushed = mlpack(runner, "push", "fan:2", "--to", to)
    assert len(pushed["mounted"]) == len({each.digest for each in image.layers[:-1]}) * 2 - 1
    whole = placed(tmp_path / "whole", registry, base=False)
    mlpack(whole, "pull", f"{to}:2")
    assert validate(whole.layout) == ()


def test_a_runner_makes_its_first_anchor_and_a_patch_on_it(
    project: ProjectDirectory, registry: Registry, tmp_path: Path
) -> None:
    base = mlpack(project, "push", "base")["reference"]
    runner = placed(tmp_path / "runner", registry, base=False)
    text = (project.root / "mlpack.lock").read_bytes()
    (runner.root / "mlpack.lock").write_bytes(text)
    lock = runner.lock()
    runner.write_lock(type(lock)(base=lock.base))
    strategies = []
    for tuned in (0, 1):
        mlpack(runner, "register", str(dense_onnx(tmp_path / "model.onnx", tuned=tuned)))
        strategies.append(mlpack(runner, "build", "fan", "--base", base)["strategy"])
    assert strategies == ["packed", "patch"]
    mlpack(runner, "push", "fan:2", "--to", f"{registry.host}/new/fan")
    whole = placed(tmp_path / "whole", registry, base=False)
    mlpack(whole, "pull", f"{registry.host}/new/fan:2")
    assert validate(whole.layout) == ()


def test_an_image_volume_of_a_patch_release(project: ProjectDirectory, registry: Registry) -> None:
    args = ["render", "fan:2", "--target", "kubernetes", "--image-volume"]
    done = run("-C", str(project.root), *args, f"{registry.host}/edge/fan")
    assert done.exit_code == 0, done.stderr
    assert "/mnt/release/var/azureml-app/azureml-models/fan/2" in done.stdout
