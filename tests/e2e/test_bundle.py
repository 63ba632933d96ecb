"""Bundles on the stock engines: loaded without a registry, run, scored; refused without a base."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlpack.plan.engines import engine as known_engine
from mlpack.project.directory import ProjectDirectory
from tests.e2e.engines import Containerd, Docker, Podman, run
from tests.e2e.test_container import Service
from tests.e2e.wire import DockerRegistry
from tests.support import run as mlpack
from tests.support import tiny_onnx

pytestmark = pytest.mark.e2e

Engine = Docker | Podman | Containerd
ENGINES = {"docker": "moby", "podman": "podman", "containerd": "containerd"}
NAME = "localhost/stick:2"
MAX_BUNDLE = {"moby": 8_000, "podman": 9_000, "containerd": 20_000}
"""Bytes above the model layer; tar's blocks of 512 bytes are most of containerd's."""


@pytest.fixture(scope="module")
def releases(
    real_project: ProjectDirectory, tmp_path_factory: pytest.TempPathFactory
) -> ProjectDirectory:
    """Three releases on the real base, and one of another base's making."""
    folder = tmp_path_factory.mktemp("models")
    for version in (1, 2, 3):
        model = tiny_onnx(folder / "model.onnx", bias=version / 2)
        for command in (["register", str(model), "--name", "stick"], ["build", f"stick:{version}"]):
            done = mlpack("-C", str(real_project.root), *command)
            assert done.exit_code == 0, done.output
    return real_project


@pytest.fixture(scope="module")
def registry(
    releases: ProjectDirectory, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DockerRegistry]:
    """A registry with all three releases."""
    with DockerRegistry.started(tmp_path_factory.mktemp("registry")) as started:
        for version in (1, 2, 3):
            source = f"oci:{releases.layout.root}:stick-{version}"
            target = f"docker://127.0.0.1:{started.port}/stick:{version}"
            run("skopeo", "copy", "-q", "--all", "--dest-tls-verify=false", source, target)
        yield started


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    return found


def bundle(project: ProjectDirectory, out: Path, engine: str, onto: str = "stick:1") -> int:
    done = mlpack(
        *("-C", str(project.root), "--json", "bundle", "stick:2", "--onto", onto),
        *("--engine", engine, "-o", str(out)),
    )
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["name"] == NAME
    return int(answer["bytes"])


def load(engine: Engine, file: Path) -> subprocess.CompletedProcess[str]:
    command = {
        "docker": ["load", "-i", str(file)],
        "podman": ["load", "-i", str(file)],
        "containerd": ["images", "import", str(file)],
    }[engine.name]
    return subprocess.run(engine.command(*command), capture_output=True, text=True, check=False)


def test_without_the_base_the_engine_refuses(
    releases: ProjectDirectory, tmp_path: Path, engine: Engine
) -> None:
    file = tmp_path / "bundle"
    bundle(releases, file, ENGINES[engine.name])
    done = load(engine, file)
    assert done.returncode != 0, done.stdout
    assert known_engine(ENGINES[engine.name]).load.refusal in done.stderr
    if engine.name != "containerd":  # which leaves the name, on nothing
        assert "stick" not in run(*engine.command("images"))
    else:
        run(*engine.command("images", "rm", "--sync", NAME))


def test_a_device_on_the_release_before_takes_it_and_scores(
    releases: ProjectDirectory, registry: DockerRegistry, tmp_path: Path, engine: Engine
) -> None:
    where = f"127.0.0.1:{registry.port}/stick"
    engine.pull(f"{where}:1")
    file = tmp_path / "bundle"
    size = bundle(releases, file, ENGINES[engine.name])
    assert size <= MAX_BUNDLE[ENGINES[engine.name]]
    print(f"{engine.name}: a bundle of {size} bytes")  # noqa: T201
    registry.bodies()
    done = load(engine, file)
    assert done.returncode == 0, done.stderr
    service = Service(engine, NAME)
    try:
        service.wait()
        # y = x·(0, 1, 2, 3) + 2/2
        status, body = service.request("/score", b'{"data": [[1, 2, 3, 4]]}')
        assert (status, json.loads(body)) == (200, {"result": [[21.0]]})
    finally:
        engine.stop(service.container)
    assert registry.bodies() == 0
    _pulls_only_the_next_layer(releases, registry, engine)


def _pulls_only_the_next_layer(
    releases: ProjectDirectory, registry: DockerRegistry, engine: Engine
) -> None:
    """After a load, the registry is asked for the next release's new bytes and no more."""
    engine.pull(f"127.0.0.1:{registry.port}/stick:3")
    fetched = registry.bodies()
    done = mlpack(
        *("-C", str(releases.root), "--json", "diff", "stick:1", "stick:3"),
        *("--engine", ENGINES[engine.name], "--platform", "linux/amd64"),
    )
    assert done.exit_code == 0, done.output
    [layer] = [each for each in json.loads(done.stdout)["layers"] if each["action"] == "fetch"]
    assert layer["bytes"] <= fetched <= layer["bytes"] + 4_000


def test_a_whole_image_goes_on_an_empty_device(
    releases: ProjectDirectory, tmp_path: Path, docker: Docker
) -> None:
    file = tmp_path / "bundle"
    size = bundle(releases, file, "moby", onto="none")
    assert size > 30_000_000
    assert load(docker, file).returncode == 0


def test_a_bundle_is_made_from_a_registry_as_well(
    releases: ProjectDirectory, registry: DockerRegistry, tmp_path: Path
) -> None:
    """The base's layers stay where they are: only documents and the new layer are read."""
    bundle(releases, tmp_path / "here", "moby")
    registry.bodies()
    where = f"127.0.0.1:{registry.port}/stick"
    done = mlpack(
        *("bundle", f"{where}:2", "--onto", f"{where}:1", "--engine", "moby"),
        *("--platform", "linux/amd64", "-o", str(tmp_path / "there")),
    )
    assert done.exit_code == 0, done.output
    assert registry.bodies() < 20_000
    assert (tmp_path / "there").read_bytes() == (tmp_path / "here").read_bytes()
