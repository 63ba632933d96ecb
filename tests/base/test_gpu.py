"""``[base] gpu = true``: onnxruntime's other build, from the lock to the deployment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlpack.base.python import NoPackages
from mlpack.project.directory import ProjectDirectory
from mlpack.project.references import find_image
from mlpack.render.kubernetes import resources
from mlpack.settings.project_settings import InvalidSettings, ProjectSettings
from tests.base.conftest import new_project
from tests.base.doubles import World
from tests.support import ARM64, build_base, run, tiny_onnx

BUILDS = {"onnxruntime", "onnxruntime-gpu"}


@pytest.fixture
def project(tmp_path: Path, world: World) -> ProjectDirectory:
    """A project whose base is for graphics processors."""
    world.index.add("onnxruntime-gpu", "1.2", needs=("numpy", "protobuf"), native=True)
    asked = "onnxruntime>=1.0\n"
    return new_project(
        tmp_path / "project", world.source_text, settings="gpu = true\n", requirements=asked
    )


def replace(project: ProjectDirectory, old: str, new: str) -> ProjectDirectory:
    settings = project.root / "mlpack.toml"
    settings.write_text(settings.read_text().replace(old, new))
    return ProjectDirectory(project.root)


def test_the_base_has_the_other_build_and_says_so(project: ProjectDirectory) -> None:
    base = build_base(project).base
    for locked in base.platforms:
        # What only onnxruntime's tools import is left out of this build, too.
        assert {"protobuf", *BUILDS} & {each.name for each in locked.python} == {"onnxruntime-gpu"}
        assert (locked.gpu, locked.onnxruntime) == (True, "1.2")
    assert find_image(project, "base", ARM64).image.labels == {"io.mlpack.gpu": "cuda"}


def test_a_release_on_it_is_deployed_with_graphics_processors(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    build_base(project)
    here = ("-C", str(project.root))
    done = run(*here, "register", str(tiny_onnx(tmp_path / "m.onnx")))
    assert done.exit_code == 0, done.stderr
    assert run(*here, "build", "fan").exit_code == 0
    labels = find_image(project, "fan:1", ARM64).image.labels
    assert (labels["io.mlpack.gpu"], labels["io.mlpack.version"]) == ("cuda", "1")
    done = run(*here, "--json", "render", "fan", "--repository", "registry.example.com/fan")
    assert done.exit_code == 0, done.stderr
    agent = json.loads(done.stdout)["deployment"]["modulesContent"]["$edgeAgent"]
    module = agent["properties.desired"]["modules"]["fan"]
    assert module["env"]["MLPACK_PROVIDERS"] == {"value": "cuda,cpu"}
    options = json.loads(module["settings"]["createOptions"])
    assert options["HostConfig"]["DeviceRequests"][0]["Count"] == -1


def test_a_lock_without_it_is_not_built_upon(project: ProjectDirectory, tmp_path: Path) -> None:
    build_base(replace(project, "gpu = true", "gpu = false"))
    here = ("-C", str(project.root))
    run(*here, "register", str(tiny_onnx(tmp_path / "m.onnx")))
    assert run(*here, "build", "fan").exit_code == 0
    replace(project, "gpu = false", "gpu = true")
    done = run(*here, "build", "fan")
    assert done.exit_code == 1
    assert "a base with gpu, mlpack.lock has one without" in done.stderr
    assert "mlpack base build" in done.stderr


def test_a_platform_without_a_wheel_is_named(project: ProjectDirectory, world: World) -> None:
    world.index.remove("onnxruntime-gpu")
    world.index.add("onnxruntime-gpu", "1.2", native=True)
    for file in (world.index.folder / "wheels").glob("onnxruntime_gpu-*aarch64.whl"):
        file.unlink()
    world.index._list("onnxruntime-gpu")
    with pytest.raises(NoPackages) as refused:
        build_base(project)
    assert "onnxruntime-gpu" in str(refused.value)
    assert "for linux/arm64" in refused.value.hint
    assert "[base] platforms" in refused.value.hint


def test_two_builds_at_once_are_refused(project: ProjectDirectory, world: World) -> None:
    world.index.add("detector", "1.0", needs=("onnxruntime",))
    (project.root / "requirements.in").write_text("detector\n")
    with pytest.raises(NoPackages, match="builds of onnxruntime"):
        build_base(project)


def test_gpu_is_true_or_false() -> None:
    with pytest.raises(InvalidSettings, match=r"\[?base\]?.*gpu: is neither true nor false"):
        ProjectSettings.parse('[model]\nname = "fan"\n[base]\ngpu = "yes"\n')


def test_a_pod_gets_whole_graphics_processors() -> None:
    assert resources(gpus=2) == {"limits": {"nvidia.com/gpu": 2}}
    assert resources() == {}
