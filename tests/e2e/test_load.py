"""``mlpack load`` and ``mlpack run`` on real Docker and podman."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

import pytest

from mlpack.project.directory import ProjectDirectory
from tests.command_schemas import validator
from tests.e2e.engines import Docker, Podman, run
from tests.support import free_port, tiny_onnx
from tests.support import run as mlpack

pytestmark = pytest.mark.e2e

BROKEN = "def init():\n    raise RuntimeError('no weights')\n\ndef run(raw):\n    return raw\n"


@pytest.fixture(scope="module")
def releases(
    real_project: ProjectDirectory, tmp_path_factory: pytest.TempPathFactory
) -> ProjectDirectory:
    """Two good releases and one whose script does not start."""
    folder = tmp_path_factory.mktemp("models")
    script = folder / "score.py"
    script.write_text(BROKEN)
    models = [tiny_onnx(folder / f"{number}.onnx", bias=number / 2) for number in (1, 2)]
    for command in (
        *(["register", str(model), "--name", "here"] for model in models),
        ["register", str(models[0]), "--name", "broken", "--scoring", str(script)],
        *(["build", name, "--allow", "start"] for name in ("here:1", "here:2", "broken")),
    ):
        done = mlpack("-C", str(real_project.root), *command)
        assert done.exit_code == 0, done.output
    return real_project


@pytest.fixture(params=["docker", "podman"])
def engine(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Docker | Podman:
    """An engine of our own, set up as a user would: by its own settings."""
    found: Docker | Podman = request.getfixturevalue(request.param)
    monkeypatch.setenv("PATH", f"/usr/bin:{os.environ['PATH']}")
    if isinstance(found, Docker):
        monkeypatch.setenv("DOCKER_HOST", found.address)
        return found
    storage, containers = tmp_path / "storage.conf", tmp_path / "containers.conf"
    storage.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{found.folder}/data"\n'
        f'runroot = "{found.folder}/run"\n'
    )
    containers.write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    )
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
    monkeypatch.setenv("CONTAINERS_CONF", str(containers))
    return found


def call(project: ProjectDirectory, *args: str) -> dict[str, object]:
    done = mlpack("-C", str(project.root), "--json", *args)
    assert done.exit_code == 0, done.output
    answer: dict[str, object] = json.loads(done.stdout)
    if args[0] in ("load", "run"):
        validator(args[0]).validate(answer)
    return answer


def test_a_release_is_loaded_run_and_scores(
    releases: ProjectDirectory, engine: Docker | Podman
) -> None:
    first = call(releases, "load", "here:1", "--engine", engine.name)
    assert first["name"] == "localhost/here:1"
    assert first["layers"] == 5
    port = str(free_port())
    way = ["--engine", engine.name, "--network", "host", "--port", port]
    started = call(releases, "run", "here:2", *way)
    try:
        # Docker has the base from the first load, and is given the model alone.
        assert started["loaded"] == (1 if engine.name == "docker" else 5)
        request = urllib.request.Request(str(started["url"]), b'{"data": [[1, 2, 3, 4]]}')
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.loads(answer.read()) == {"result": [[21.0]]}
        refused = mlpack("-C", str(releases.root), "run", "here:2", *way)
        assert refused.exit_code == 1
        assert "answers at" in refused.stderr
    finally:
        engine.stop(str(started["container"]))


def test_one_that_cannot_start_says_its_last_words_and_is_gone(
    releases: ProjectDirectory, engine: Docker | Podman
) -> None:
    way = ["--engine", engine.name, "--network", "host", "--port", str(free_port())]
    done = mlpack("-C", str(releases.root), "run", "broken", *way)
    assert done.exit_code == 1
    assert "no weights" in done.stderr
    assert "ended" in done.stderr
    assert "broken" not in run(*engine.command("ps", "-a"))


def test_a_daemon_that_is_not_there_is_said(
    releases: ProjectDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    done = mlpack("-C", str(releases.root), "load", "here:1")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: no Docker daemon answers at tcp://127.0.0.1:1")
    monkeypatch.setenv("PATH", "/nowhere")
    done = mlpack("-C", str(releases.root), "load", "here:1", "--engine", "podman")
    assert "podman is not installed" in done.stderr
