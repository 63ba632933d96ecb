"""Servers to measure: a module's runtime and its peer, each a process, with the fan's model."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from mlpack.base.python import find_uv

CHECKOUT = Path(__file__).resolve().parents[1]
PEER = "azureml-inference-server-http==1.5.1"

NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": "/nonexistent"}
"""As in a container: a base holds no bytecode, and a read-only one gets none."""


def make_fan(app: Path) -> Path:
    """The fan's scoring script with a network of its size (4-60-30-10-2) and random weights."""
    random = np.random.default_rng(0)
    sizes, nodes, constants, last = (4, 60, 30, 10, 2), [], [], "params"
    for place, (given, made) in enumerate(pairwise(sizes)):
        weights = random.normal(size=(given, made)).astype(np.float32)
        constants.append(numpy_helper.from_array(weights, f"w{place}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{place}"], [f"m{place}"]))
        nodes.append(helper.make_node("Tanh", [f"m{place}"], [f"t{place}"]))
        last = f"t{place}"
    nodes.append(helper.make_node("Softmax", [last], ["probabilities"]))
    nodes.append(helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0))
    graph = helper.make_graph(
        nodes,
        "fan",
        [helper.make_tensor_value_info("params", TensorProto.FLOAT, ["N", 4])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    place_of_model = app / "azureml-models" / "fan" / "1"
    place_of_model.mkdir(parents=True)
    onnx.save(model, str(place_of_model / "model.onnx"))
    shutil.copy(CHECKOUT / "templates" / "fan" / "score.py", app)
    return app


def make_peer(place: Path) -> Path:
    """A virtual environment with the peer; its program."""
    uv = find_uv()
    same = [f"numpy=={np.__version__}", f"onnxruntime=={onnxruntime.__version__}"]
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(place)], check=True)
    python = str(place / "bin" / "python")
    subprocess.run([uv, "pip", "install", "-q", "--python", python, PEER, *same], check=True)
    # wheels come without bytecode; the peer gets what this environment has
    subprocess.run([python, "-m", "compileall", "-q", str(place / "lib")], check=False)
    return place / "bin" / "azmlinfsrv"


class Server:
    """A process that serves on a port."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    def connect(self) -> http.client.HTTPConnection:
        """A connection that is kept."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)


def mlpack_command() -> list[str]:
    """The runtime as a container starts it."""
    return [sys.executable, "-m", "mlpack.runtime"]


@contextmanager
def serving(
    app: Path, command: Sequence[str], environment: Mapping[str, str] = {}
) -> Iterator[Server]:
    """Start a server; it may not be up yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    [model] = (app / "azureml-models").glob("*/*")
    settings = {
        "AML_APP_ROOT": str(app),
        "AZUREML_MODEL_DIR": str(model),
        "MLPACK_DRAIN": "0",
        "MLPACK_HOST": "127.0.0.1",
        "MLPACK_PORT": str(port),
        "PYTHONPATH": str(CHECKOUT),
    }
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    peer = ["--entry_script", "score.py", "--port", str(port)] if "azml" in command[0] else []
    with (app / f"{port}.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *peer],
            cwd=app,
            env={**own, **settings, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield Server(process, port)
    finally:
        process.terminate()
        process.wait(30)


def wait(server: Server, body: bytes) -> None:
    """Until a request is scored."""
    deadline = time.monotonic() + 60
    while True:
        try:
            connection = server.connect()
            connection.request("POST", "/score", body, {"content-type": "application/json"})
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("a server did not come up")
        time.sleep(0.002)


def resident(status: str) -> float:
    """MB of memory in a process's status."""
    [kib] = re.findall(r"VmRSS:\s+(\d+)", status)
    return int(kib) * 1024 / 1e6


def memory(pid: int) -> float:
    """MB of memory of a running process."""
    return resident(Path(f"/proc/{pid}/status").read_text())


def family(pid: int) -> list[int]:
    """A process and all below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in family(int(child)))]
