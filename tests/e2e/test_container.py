"""A release on a real base, in real engines: it answers, refuses, and stops."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

from mlpack.project.directory import ProjectDirectory
from tests.e2e.engines import Docker, Engine, Podman, run
from tests.support import free_port, tiny_onnx
from tests.support import run as mlpack

pytestmark = pytest.mark.e2e

START_SECONDS = 60

SCRIPT = """
import json, os
from pathlib import Path

import onnxruntime

def init():
    global session
    path = Path(os.environ["AZUREML_MODEL_DIR"]) / "model.onnx"
    session = onnxruntime.InferenceSession(str(path))

def run(raw):
    values = json.loads(raw)["params"]
    [[answer]] = session.run(None, {"x": [values]})[0]
    return {"answer": float(answer), "telemetry": os.environ["ORT_DISABLE_TELEMETRY"]}
"""


class Service:
    """A container that listens."""

    def __init__(
        self,
        engine: Engine,
        image: str,
        environment: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> None:
        self.engine = engine
        self.port = free_port()
        told = [f"MLPACK_PORT={self.port}", *environment]
        if isinstance(engine, Docker):
            self.container = engine.start(image, told, options)
        else:
            self.container = engine.start(image, told)

    def request(self, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """The status and body of one request."""
        url = f"http://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(url, body, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def wait(self) -> None:
        """Wait until it is ready; what it said is in the message when it never is."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                assert self.request("/") == (200, b"Healthy")
                return
            except (urllib.error.URLError, ConnectionError):
                assert time.monotonic() < deadline, self.engine.logs(self.container)
                time.sleep(0.1)


@pytest.fixture(scope="module")
def releases(
    real_project: ProjectDirectory, tmp_path_factory: pytest.TempPathFactory
) -> ProjectDirectory:
    """A release of a bare ONNX model and one with a scoring script."""
    folder = tmp_path_factory.mktemp("models")
    model = tiny_onnx(folder / "model.onnx", bias=0.5)
    script = folder / "score.py"
    script.write_text(SCRIPT)
    root, file = str(real_project.root), str(model)
    for command in (
        ["register", file, "--name", "bare"],
        ["register", file, "--name", "scripted", "--scoring", str(script)],
        ["build", "bare"],
        ["build", "scripted"],
    ):
        done = mlpack("-C", root, *command)
        assert done.exit_code == 0, done.output
    return real_project


@pytest.fixture(params=["docker", "podman"])
def engine(request: pytest.FixtureRequest) -> Docker | Podman:
    found: Docker | Podman = request.getfixturevalue(request.param)
    return found


def test_a_bare_model_scores_from_its_signature(
    releases: ProjectDirectory, engine: Docker | Podman
) -> None:
    engine.load(f"oci:{releases.layout.root}:bare-1", "mlpack.test/bare:1")
    service = Service(engine, "mlpack.test/bare:1")
    try:
        service.wait()
        # y = x·(0, 1, 2, 3) + 0.5
        status, body = service.request("/score", b'{"data": [[1, 2, 3, 4], [0, 0, 0, 1]]}')
        assert (status, json.loads(body)) == (200, {"result": [[20.5], [3.5]]})
        status, body = service.request("/score", b'{"data": [[1, 2]]}')
        assert status == 400
        assert "x tensor(float) [N, 4]" in json.loads(body)["message"]
        assert service.request("/score", b"{")[0] == 400
        assert service.request("/elsewhere")[0] == 404
    finally:
        engine.stop(service.container)


def test_a_scoring_script_runs_unchanged(
    releases: ProjectDirectory, engine: Docker | Podman
) -> None:
    engine.load(f"oci:{releases.layout.root}:scripted-1", "mlpack.test/scripted:1")
    service = Service(engine, "mlpack.test/scripted:1")
    try:
        service.wait()
        status, body = service.request("/score", b'{"params": [1, 2, 3, 4]}')
        assert (status, json.loads(body)) == (200, {"answer": 20.5, "telemetry": "1"})
        status, body = service.request("/score", b'{"other": 1}')
        assert status == 500
        assert "KeyError" in json.loads(body)["message"]
        assert "KeyError: 'params'" in engine.logs(service.container)
    finally:
        engine.stop(service.container)


def test_it_stops_by_itself_when_asked(releases: ProjectDirectory, docker: Docker) -> None:
    docker.load(f"oci:{releases.layout.root}:bare-1", "mlpack.test/bare:1")
    service = Service(docker, "mlpack.test/bare:1")
    service.wait()
    run(*docker.command("stop", "-t", "30", service.container))
    # 137 would mean that Docker had to kill it.
    status = run(*docker.command("inspect", "-f", "{{.State.ExitCode}}", service.container))
    run(*docker.command("rm", service.container))
    assert status in ("0", "143")


def test_what_the_base_needs_is_there(releases: ProjectDirectory, docker: Docker) -> None:
    docker.load(f"oci:{releases.layout.root}:bare-1", "mlpack.test/bare:1")
    program = (
        "import asyncio, bz2, ctypes, decimal, hashlib, lzma, multiprocessing, os, sqlite3, ssl;"
        "import numpy.testing, uuid, zoneinfo, zstandard;"
        "assert len(ssl.create_default_context().get_ca_certs()) > 100;"
        "assert str(zoneinfo.ZoneInfo('Europe/Berlin')) == 'Europe/Berlin';"
        "assert ctypes.CDLL('libc.so.6').getpid() == os.getpid();"
        "assert numpy.linalg.inv(numpy.eye(3) * 2)[0, 0] == 0.5;"
        "assert numpy.isfinite(numpy.random.default_rng(1).normal());"
        "assert multiprocessing.get_context('spawn').Pool(1).map(abs, [-1]) == [1];"
        "assert os.getuid() == 65532;"
        "print('all there')"
    )
    image = ["--entrypoint", "/usr/bin/python3", "mlpack.test/bare:1"]
    said = run(*docker.command("run", "--rm", "--network", "none", *image, "-c", program))
    assert said == "all there"


def test_sizes_stay_within_the_limits(releases: ProjectDirectory) -> None:
    base = releases.lock().base
    sizes = {
        each.platform.architecture: sum(layer.layer.size for layer in each.layers)
        for each in base.platforms
    }
    assert sizes["amd64"] <= 55_000_000
    assert sizes["arm64"] <= 55_000_000


def test_a_release_is_the_base_and_one_layer(releases: ProjectDirectory, docker: Docker) -> None:
    docker.load(f"oci:{releases.layout.root}:scripted-1", "mlpack.test/scripted:1")
    said = run(
        *docker.command("inspect", "-f", "{{json .RootFS.Layers}}", "mlpack.test/scripted:1")
    )
    expected = [
        str(each.layer.diff_id)
        for locked in releases.lock().base.platforms
        if locked.platform.architecture == "amd64"
        for each in locked.layers
    ]
    assert json.loads(said)[: len(expected)] == expected
    assert len(json.loads(said)) == len(expected) + 1


def test_other_tools_read_the_base(releases: ProjectDirectory) -> None:
    copied = releases.layout.root.parent / "copy"
    run("skopeo", "copy", "-q", "--all", f"oci:{releases.layout.root}:base", f"dir:{copied}")
    assert len(list(Path(copied).iterdir())) > 8
