"""Every example's module as it runs on devices: not root, read-only but for /tmp, over HTTP."""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from PIL import Image

from mlpack.iotedge.module import confining_options
from mlpack.project.directory import ProjectDirectory
from tests.e2e.engines import Docker, run
from tests.examples.conftest import EXAMPLES, ZOO, load
from tests.examples.fan import trained
from tests.support import free_port, require
from tests.support import run as mlpack

pytestmark = pytest.mark.e2e

Floats = npt.NDArray[np.float32]
NAMES = ("fan", "resnet50v2", "ferplus")
PLACE = "/var/azureml-app"
WRITES = """
import errno, os
assert os.getuid() == 65532, os.getuid()
for place in ("/x", "/var/azureml-app/x", "/usr/x", "/home/x", "/var/tmp/x", "/run/x"):
    try:
        open(place, "w")
    except OSError as error:
        assert error.errno in (errno.EROFS, errno.ENOENT), (place, error)
    else:
        raise AssertionError(place)
open("/tmp/x", "w").write("x")
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0, status
assert status["NoNewPrivs"].strip() == "1"
print("confined")
"""


@dataclass(frozen=True)
class Case:
    """A module, one input of it, and what onnxruntime makes of that when called directly."""

    name: str
    tensor: Floats
    field: str
    """The input's name, for the Open Inference Protocol."""

    request: Mapping[str, object]
    expected: Mapping[str, npt.NDArray[Any]]


def softmax(scores: Floats) -> Floats:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    found: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return found


def direct(model: Path, tensor: Floats) -> list[Any]:
    """onnxruntime's own answer."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    outputs: list[Any] = session.run(None, {session.get_inputs()[0].name: tensor})
    return outputs


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Each module's files: made weights, and what goes with them."""
    made = {name: tmp_path_factory.mktemp(name) / name for name in NAMES}
    for name, folder in made.items():
        folder.mkdir()
        if name == "fan":
            (folder / "fan.onnx").write_bytes(trained())
            continue
        content = load(EXAMPLES / name / "make_weights.py").build().SerializeToString()
        (folder / "model.onnx").write_bytes(content)
    shutil.copy(EXAMPLES / "resnet50v2/model/labels.txt", made["resnet50v2"])
    shutil.copy(require(ZOO / "version-RFB-320.onnx"), made["ferplus"])
    return made


@pytest.fixture(scope="module")
def project(real_project: ProjectDirectory, folders: Mapping[str, Path]) -> ProjectDirectory:
    """Every module registered and built on the one base, as its own project's settings say."""
    for name, folder in folders.items():
        script = str(EXAMPLES / name / "score.py")
        for command in (
            ["register", str(folder), "--name", f"module-{name}", "--scoring", script],
            ["build", f"module-{name}"],
        ):
            done = mlpack("-C", str(real_project.root), *command)
            assert done.exit_code == 0, done.output
    return real_project


@pytest.fixture
def engine(docker: Docker, monkeypatch: pytest.MonkeyPatch) -> Docker:
    """Docker, named as a user names it."""
    monkeypatch.setenv("DOCKER_HOST", docker.address)
    monkeypatch.setenv("PATH", f"/usr/bin:{os.environ['PATH']}")
    return docker


@contextmanager
def running(
    project: ProjectDirectory, name: str, docker: Docker, *args: str
) -> Iterator[tuple[str, str]]:
    """The module as ``mlpack run`` starts it: where it scores, and its container."""
    port = str(free_port())
    way = ["run", f"module-{name}", "--network", "host", "--port", port, *args]
    done = mlpack("-C", str(project.root), "--json", *way)
    assert done.exit_code == 0, done.output
    started = json.loads(done.stdout)
    try:
        yield started["url"], started["container"]
    finally:
        run(*docker.command("rm", "-f", started["container"]))


def prepared(name: str, pixels: Floats) -> Floats:
    """Pixels from 0 to 255 as the network itself takes them."""
    if name == "ferplus":
        return pixels
    mean = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
    deviation = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)
    found: Floats = ((pixels / 255 - mean) / deviation).astype(np.float32)
    return found


def picture() -> bytes:
    """A JPEG in which no face is found."""
    noise = np.random.default_rng(7).integers(0, 255, (12, 9, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((300, 400)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def case(name: str, folders: Mapping[str, Path]) -> Case:
    chance = np.random.default_rng(3)
    if name == "fan":
        readings = np.array([[600, 38, 150, 47]], np.float32)
        label, probabilities = direct(folders[name] / "fan.onnx", readings)
        request: dict[str, object] = {"params": readings[0].tolist()}
        found = {"fault": label.astype(np.int64), "probability": probabilities[:, 1]}
        return Case(name, readings, "params", request, found)
    shape = (1, 3, 224, 224) if name == "resnet50v2" else (1, 1, 64, 64)
    pixels = chance.integers(0, 255, shape).astype(np.float32)
    [scores] = direct(folders[name] / "model.onnx", prepared(name, pixels))
    field = "data" if name == "resnet50v2" else "Input3"
    data = pixels[0].tolist() if name == "resnet50v2" else pixels[0, 0].tolist()
    return Case(name, pixels, field, {"data": data}, {"result": softmax(scores)})


def by_json(client: httpx.Client, case: Case) -> Mapping[str, object]:
    answer = client.post("/score", json=dict(case.request)).raise_for_status().json()
    if case.name == "fan":
        return {"fault": [int(answer["fault"])], "probability": [answer["probability"]]}
    return {"result": [answer["result"]]}


def outputs(answer: httpx.Response) -> Mapping[str, object]:
    """Tensors by name; a module with one output calls it result in any case."""
    result = answer.raise_for_status().json()["result"]
    return result if isinstance(result, dict) else {"result": result}


def by_octets(client: httpx.Client, case: Case) -> Mapping[str, object]:
    headers = {
        "Content-Type": "application/octet-stream",
        "X-Tensor-Shape": ",".join(map(str, case.tensor.shape)),
    }
    answer = client.post("/score", content=case.tensor.tobytes(), headers=headers)
    return outputs(answer)


def by_npy(client: httpx.Client, case: Case) -> Mapping[str, object]:
    buffer = io.BytesIO()
    np.save(buffer, case.tensor)
    headers = {"Content-Type": "application/x-npy"}
    answer = client.post("/score", content=buffer.getvalue(), headers=headers)
    return outputs(answer)


def by_protocol(client: httpx.Client, case: Case) -> Mapping[str, object]:
    tensor = {
        "name": case.field,
        "shape": list(case.tensor.shape),
        "datatype": "FP32",
        "data": case.tensor.ravel().tolist(),
    }
    name = f"/v2/models/module-{case.name}/infer"
    answer = client.post(name, json={"inputs": [tensor]}).raise_for_status().json()
    return {each["name"]: np.reshape(each["data"], each["shape"]) for each in answer["outputs"]}


WAYS: tuple[Callable[[httpx.Client, Case], Mapping[str, object]], ...] = (
    by_json,
    by_octets,
    by_npy,
    by_protocol,
)


@pytest.mark.parametrize("name", NAMES)
def test_a_confined_module_scores_what_onnxruntime_scores(
    project: ProjectDirectory,
    engine: Docker,
    folders: Mapping[str, Path],
    tmp_path: Path,
    name: str,
) -> None:
    asked = case(name, folders)
    with (
        running(project, name, engine) as (url, container),
        httpx.Client(base_url=url.removesuffix("/score"), timeout=60, trust_env=False) as client,
    ):
        said = run(*engine.command("exec", container, "/usr/bin/python3", "-c", WRITES))
        assert said == "confined"
        for way in WAYS:
            found = way(client, asked)
            assert set(found) == set(asked.expected), way.__name__
            for output, values in asked.expected.items():
                np.testing.assert_allclose(np.asarray(found[output]), values, rtol=1e-4, atol=1e-6)
        if name == "fan":
            return
        photo = tmp_path / "photo.jpg"
        photo.write_bytes(picture())
        answer = client.post(
            "/score", content=photo.read_bytes(), headers={"Content-Type": "image/jpeg"}
        )
        scored = answer.raise_for_status().json()
        expected = softmax(direct(folders[name] / "model.onnx", _pixels(name, photo))[0])
        np.testing.assert_allclose(scored["result"], expected[0], rtol=1e-4, atol=1e-6)
        shown = mlpack("score", url, str(photo))
        assert shown.exit_code == 0, shown.output
        assert scored["top"][0]["label"] in shown.stdout.splitlines()[2]


def _pixels(name: str, photo: Path) -> Floats:
    """What the example's own preprocessing makes of a picture without a face."""
    script = load(EXAMPLES / name / "score.py")
    image = Image.open(photo)
    found = script.crop(image) if name == "resnet50v2" else script.grey(image, None)
    shape = (1, 3, 224, 224) if name == "resnet50v2" else (1, 1, 64, 64)
    return prepared(name, np.reshape(found, shape).astype(np.float32))


class Clients:
    """Threads that ask, each request over a connection of its own, until none is taken."""

    def __init__(self, port: int, count: int = 8) -> None:
        self._port = port
        self.count = count
        self.ends: Counter[str] = Counter()
        self.answered = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._go_on) for _ in range(count)]

    def start(self) -> None:
        for each in self._threads:
            each.start()

    def join(self) -> None:
        for each in self._threads:
            each.join(60)

    @property
    def lost(self) -> dict[str, int]:
        return {end: count for end, count in self.ends.items() if end.startswith("lost")}

    def _go_on(self) -> None:
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=2)
            try:
                connection.connect()
            except OSError:
                return  # nobody took it: a balancer asks elsewhere
            connection.sock.settimeout(30)
            self.ends[self._ask(connection)] += 1

    def _ask(self, connection: http.client.HTTPConnection) -> str:
        body = json.dumps({"params": [600, 38, 150, 47]})
        try:
            connection.request("POST", "/score", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            return f"lost: {error!r}"
        finally:
            connection.close()
        self.answered.release()
        return str(answer.status)


def test_no_accepted_request_is_lost_when_it_is_stopped(
    project: ProjectDirectory, engine: Docker
) -> None:
    with running(project, "fan", engine) as (url, container):
        clients = Clients(int(url.removesuffix("/score").rpartition(":")[2]))
        clients.start()
        for _ in range(200):
            assert clients.answered.acquire(timeout=30)
        # As edgeAgent stops a module; Kubernetes gives it longer.
        run(*engine.command("stop", "-t", "10", container))
        clients.join()
        status = run(*engine.command("inspect", "-f", "{{.State.ExitCode}}", container))
    assert status == "0", "it ended by itself: a killed one has 137"
    assert clients.ends["200"] > 200
    assert set(clients.ends) - set(clients.lost) == {"200"}
    assert clients.lost == {}


def test_a_file_that_was_tampered_with_ends_the_container_with_a_clear_line(
    project: ProjectDirectory, engine: Docker, folders: Mapping[str, Path], tmp_path: Path
) -> None:
    with running(project, "fan", engine):
        pass  # loaded
    other = tmp_path / "fan.onnx"
    content = bytearray((folders["fan"] / "fan.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    other.write_bytes(content)
    inside = f"{PLACE}/azureml-models/module-fan/1/fan/fan.onnx"
    done = subprocess.run(
        [
            *engine.command("run", "--rm", "--network", "host", *confining_options()),
            *("-e", f"MLPACK_PORT={free_port()}", "-v", f"{other}:{inside}:ro"),
            "localhost/module-fan:1",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    [line] = (done.stdout + done.stderr).splitlines()
    said = json.loads(line)
    assert said["level"] == "error"
    assert f"{inside} has {len(content)} bytes and sha256" in said["message"]
    assert "the model is not the released one" in said["message"]
