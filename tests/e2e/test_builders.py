"""Every builder gives the same file system; what differs in bytes is shown side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from mlpack.oci.descriptor import Platform
from mlpack.oci.filesystem import Tree
from mlpack.oci.image import problems
from mlpack.project.directory import ProjectDirectory
from mlpack.project.references import FoundImage, find_image
from mlpack.stores.trees import read_tree
from tests.e2e.engines import Docker
from tests.support import AMD64, ARM64, make_project, tiny_onnx
from tests.support import run as mlpack

pytestmark = pytest.mark.e2e

SCRIPT = "def init():\n    pass\n\ndef run(raw):\n    return raw\n"


def register(project: ProjectDirectory, folder: Path) -> None:
    """Register one model with a scoring script as version 1."""
    folder.mkdir()
    model, script = tiny_onnx(folder / "model.onnx"), folder / "score.py"
    script.write_text(SCRIPT)
    args = ["register", str(model), "--name", "fan", "--scoring", str(script)]
    done = mlpack("-C", str(project.root), *args)
    assert done.exit_code == 0, done.output


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    made = make_project(tmp_path / "fan")
    register(made, tmp_path / "models")
    return made


@pytest.fixture
def daemon(docker: Docker, monkeypatch: pytest.MonkeyPatch) -> Docker:
    """Docker, named as a user names it."""
    monkeypatch.setenv("DOCKER_HOST", docker.address)
    monkeypatch.setenv("PATH", f"/usr/bin:{os.environ['PATH']}")
    return docker


def build(project: ProjectDirectory, builder: str, *args: str) -> Mapping[str, object]:
    done = mlpack("-C", str(project.root), "--json", "build", "fan", "--builder", builder, *args)
    assert done.exit_code == 0, done.output
    answer: Mapping[str, object] = json.loads(done.stdout)
    return answer


def built(project: ProjectDirectory, platform: Platform) -> tuple[FoundImage, Tree]:
    """The release as the store has it, and its file system."""
    found = find_image(project, "fan:1", platform)
    assert problems(found.image) == ()
    return found, read_tree(found.store, found.image.layers).tree


def test_docker_builds_the_file_system_that_mlpack_appends(
    project: ProjectDirectory, daemon: Docker
) -> None:
    build(project, "oci")
    appended = {platform: built(project, platform) for platform in (AMD64, ARM64)}
    answer = build(project, "docker")
    assert set(answer["platforms"]) == {"linux/amd64", "linux/arm64"}  # type: ignore[call-overload]
    for platform, (ours, our_tree) in appended.items():
        theirs, their_tree = built(project, platform)
        assert dict(their_tree) == dict(our_tree)
        assert theirs.image.layers[:-1] == ours.image.layers[:-1]
        assert theirs.image.env == ours.image.env
        assert theirs.image.labels == ours.image.labels
        print(sizes("oci", ours), sizes("docker", theirs), sep="\n")  # noqa: T201
    # The release is one like any other: it is rendered and compared by the same commands.
    assert mlpack("-C", str(project.root), "diff", "base", "fan:1").exit_code == 0


def sizes(builder: str, found: FoundImage) -> str:
    image = found.image
    layer = image.layers[-1].size
    return (
        f"{image.platform} {builder}: manifest {len(image.manifest)}, "
        f"config {len(image.config)}, layer {layer} B"
    )


def test_a_second_build_gives_docker_the_base_no_more(
    project: ProjectDirectory, daemon: Docker
) -> None:
    only = ["--platform", "linux/amd64"]
    first = build(project, "docker", *only)
    second = build(project, "docker", *only)
    # The daemon's cache has the layer, so even the digest is the same.
    assert first["digest"] == second["digest"]


def test_no_daemon_is_said(project: ProjectDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not a missing socket file: the docker package leaves its end of that open.
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    done = mlpack("-C", str(project.root), "build", "fan", "--builder", "docker")
    assert done.exit_code == 1
    assert "no Docker daemon answers" in done.stderr
    assert "--builder oci" in done.stderr
