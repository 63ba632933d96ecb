"""The runtime's answers, without a socket; and once as a process, with one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from mlpack.runtime.scoring import BadRequest, Script, find_onnx, open_scorer
from mlpack.runtime.server import MOST_BODY, application
from mlpack.runtime.settings import NotServable, Settings, only_model
from tests.support import tiny_onnx

RUNTIME = Path(__file__).resolve().parents[2] / "mlpack" / "runtime"


class Fake:
    """A scorer that does what the test says."""

    def __init__(self, score: Callable[[bytes], object]) -> None:
        self.score = score


async def ask(scorer: Fake, method: str, path: str, body: bytes = b"") -> httpx.Response:
    transport = httpx.ASGITransport(app=application(scorer))
    async with httpx.AsyncClient(transport=transport, base_url="http://module") as client:
        return await client.request(method, path, content=body)


def answer(scorer: Fake, method: str, path: str, body: bytes = b"") -> httpx.Response:
    import asyncio

    return asyncio.run(ask(scorer, method, path, body))


def test_ready() -> None:
    found = answer(Fake(lambda body: None), "GET", "/")
    assert (found.status_code, found.text) == (200, "Healthy")


@pytest.mark.parametrize(
    ("result", "body"),
    [
        ({"a": [1, 2.5]}, b'{"a":[1,2.5]}'),
        # Azure ML sends a text as a JSON string, even where it holds JSON.
        ('{"a": 1}', b'"{\\"a\\": 1}"'),
        (None, b"null"),
        ({1: float("nan")}, b'{"1":null}'),
    ],
)
def test_results_are_json(result: object, body: bytes) -> None:
    found = answer(Fake(lambda _: result), "POST", "/score", b"{}")
    assert (found.status_code, found.content) == (200, body)
    assert found.headers["content-type"] == "application/json"


def refuse(body: bytes) -> object:
    raise BadRequest("no such thing")


def fail(body: bytes) -> object:
    raise ValueError("secret value")


def test_a_bad_request_is_400() -> None:
    found = answer(Fake(refuse), "POST", "/score", b"{}")
    assert (found.status_code, found.json()) == (400, {"message": "no such thing"})


@pytest.mark.parametrize("score", [fail, lambda body: object()])
def test_a_failure_is_500_and_says_little(score: Callable[[bytes], object]) -> None:
    found = answer(Fake(score), "POST", "/score", b"{}")
    assert found.status_code == 500
    assert "scoring failed with" in found.json()["message"]
    assert "secret" not in found.text
    assert found.headers["x-ms-run-function-failed"] == "True"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/score", 405), ("POST", "/", 405), ("GET", "/other", 404), ("PUT", "/score", 405)],
)
def test_other_requests_are_refused(method: str, path: str, status: int) -> None:
    found = answer(Fake(lambda body: None), method, path)
    assert found.status_code == status
    assert "message" in found.json()


def test_a_request_that_is_too_large_is_refused() -> None:
    seen: list[bytes] = []
    found = answer(Fake(seen.append), "POST", "/score", b"a" * (MOST_BODY + 1))
    assert found.status_code == 413
    assert not seen


def settings(root: Path, **environment: str) -> Settings:
    return Settings.read({"AML_APP_ROOT": str(root), **environment})


def test_where_things_are_is_what_azure_ml_says(tmp_path: Path) -> None:
    found = settings(tmp_path, AZUREML_MODEL_DIR="/models/a/1", AZUREML_ENTRY_SCRIPT="x/run.py")
    assert found.model_dir == Path("/models/a/1")
    assert found.script == tmp_path / "x/run.py"
    assert found.port == 5001
    assert found.environment["ORT_DISABLE_TELEMETRY"] == "1"
    assert Settings.read({}).script == Path("/var/azureml-app/score.py")


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", ""])
def test_ports_are_checked(port: str, tmp_path: Path) -> None:
    if not port:
        assert settings(tmp_path, MLPACK_PORT=port).port == 5001
        return
    with pytest.raises(SystemExit, match="is not a port"):
        settings(tmp_path, MLPACK_PORT=port)


def test_the_only_model_is_found(tmp_path: Path) -> None:
    (tmp_path / "fan" / "1").mkdir(parents=True)
    assert only_model(tmp_path) == tmp_path / "fan" / "1"
    (tmp_path / "fan" / "2").mkdir()
    assert only_model(tmp_path) == tmp_path


def test_a_bare_model_is_scored_from_its_signature(tmp_path: Path) -> None:
    tiny_onnx(tmp_path / "model.onnx", bias=1.0)
    scorer = open_scorer(settings(tmp_path, AZUREML_MODEL_DIR=str(tmp_path)))
    assert scorer.score(b'{"data": [[1, 2, 3, 4]]}') == {"result": [[21.0]]}
    with pytest.raises(BadRequest, match="x tensor"):
        scorer.score(b'{"data": [[1]]}')


def test_which_onnx_file_is_the_model(tmp_path: Path) -> None:
    with pytest.raises(NotServable, match="holds 0 ONNX models"):
        find_onnx(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.onnx").touch()
    assert find_onnx(tmp_path).name == "a.onnx"
    (tmp_path / "b.onnx").touch()
    with pytest.raises(NotServable, match="holds 2 ONNX models"):
        find_onnx(tmp_path)
    (tmp_path / "model.onnx").touch()
    assert find_onnx(tmp_path).name == "model.onnx"


def test_a_model_that_does_not_load_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(NotServable, match=r"model\.onnx cannot be loaded"):
        open_scorer(settings(tmp_path, AZUREML_MODEL_DIR=str(tmp_path)))


def script(folder: Path, text: str) -> Path:
    path = folder / "score.py"
    path.write_text(text)
    return path


def test_a_script_is_started_once_and_run_for_each_request(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("factor = 3\n")
    text = (
        "import beside_it\nstarted = []\ndef init():\n    started.append(1)\n"
        "def run(raw):\n    return {'n': len(started), 'raw': raw * beside_it.factor}\n"
    )
    found = Script(script(tmp_path, text))
    assert found.score("ä".encode()) == {"n": 1, "raw": "äää"}
    assert found.score(b"b") == {"n": 1, "raw": "bbb"}
    with pytest.raises(BadRequest, match="not UTF-8"):
        found.score(b"\xff")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def run(raw): return raw\n", r"has no function init\(\)"),
        ("def init(): pass\n", r"has no function run\(\)"),
        ("run = 1\ndef init(): pass\n", r"has no function run\(\)"),
        ("import no_such_module\n", "cannot be imported"),
        ("def init(:\n", "cannot be imported"),
        ("def init(): raise KeyError('x')\ndef run(raw): pass\n", r"init\(\) in .* failed"),
    ],
)
def test_a_script_that_cannot_score_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(NotServable, match=message):
        Script(script(tmp_path, text))


def start(folder: Path, **environment: str) -> subprocess.Popen[str]:
    """Run the runtime as a base does: alone, under its shipped name."""
    packages = folder / "packages"
    shutil.copytree(RUNTIME, packages / "mlpack_runtime", ignore=shutil.ignore_patterns("__*__"))
    for name in ("__init__.py", "__main__.py"):
        shutil.copy(RUNTIME / name, packages / "mlpack_runtime")
    return subprocess.Popen(
        [sys.executable, "-m", "mlpack_runtime"],
        env={"PYTHONPATH": str(packages), "PATH": os.environ["PATH"], **environment},
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_it_runs_alone_and_ends_when_asked(tmp_path: Path) -> None:
    tiny_onnx(tmp_path / "model.onnx", bias=0.0)
    port = free_port()
    process = start(
        tmp_path,
        AZUREML_MODEL_DIR=str(tmp_path),
        AML_APP_ROOT=str(tmp_path),
        MLPACK_HOST="127.0.0.1",
        MLPACK_PORT=str(port),
    )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(url) as ready:
                    assert ready.status == 200
                break
            except urllib.error.URLError:
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < deadline
                time.sleep(0.05)
        with urllib.request.urlopen(f"{url}/score", b'{"data": [[0, 0, 0, 1]]}') as scored:
            assert json.load(scored) == {"result": [[3.0]]}
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode in (0, -signal.SIGTERM)
    assert "ready on port" in said
    assert "Traceback" not in said


def test_without_a_model_it_ends_with_one_line(tmp_path: Path) -> None:
    process = start(tmp_path, AML_APP_ROOT=str(tmp_path), AZUREML_MODEL_DIR=str(tmp_path))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "holds 0 ONNX models" in said
    assert "Traceback" not in said
