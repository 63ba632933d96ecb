"""``/score`` over HTTP: what is answered, with which status and headers, and what is logged."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from mlpack.runtime import telemetry
from mlpack.runtime.http.app import application
from mlpack.runtime.scoring_service import ScoringService
from tests.runtime import models
from tests.runtime.support import ask, release, start, started

SCRIPT = """
def init(): pass
def run(data):
    if data == "bad": raise ValueError("no such fan")
    if data == "fail": raise KeyError("a secret")
    if data == "set": return {1, 2}
    if data == "deep":
        found = []
        for _ in range(100_000): found = [found]
        return found
    return data
"""


@pytest.fixture
def module(tmp_path: Path) -> ScoringService:
    found = start(replace(release(tmp_path, SCRIPT), max_body=1000))
    return found


def test_an_answer(module: ScoringService) -> None:
    found = ask(module, "POST", "/score", b"a")
    assert (found.status_code, found.content) == (200, b'"a"')
    assert found.headers["content-type"] == "application/json"
    assert found.headers["x-ms-run-function-failed"] == "False"
    assert float(found.headers["x-ms-run-fn-exec-ms"]) > 0
    assert len(found.headers["x-request-id"]) == 32


def test_ids_are_given_back(module: ScoringService) -> None:
    given = {"x-request-id": "a", "x-ms-client-request-id": "b"}
    found = ask(module, "POST", "/score", b"a", given)
    assert {name: found.headers[name] for name in given} == given
    assert found.headers["x-ms-request-id"] == "b"
    found = ask(module, "POST", "/score", b"a", {"x-request-id": "a" * 101})
    assert (found.status_code, found.json()["field"]) == (431, "x-request-id")


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"bad", 400, "no such fan"),
        (b"\xff", 400, "not UTF-8"),
        (b"fail", 500, "scoring failed with KeyError"),
        (b"set", 500, "not JSON"),
        (b"deep", 500, "not JSON"),
        (b"x" * 1001, 413, "larger than 1000 bytes"),
    ],
)
def test_what_cannot_be_scored(
    module: ScoringService, body: bytes, status: int, message: str
) -> None:
    found = ask(module, "POST", "/score", body)
    assert found.status_code == status
    assert message in found.json()["message"]
    assert "secret" not in found.text
    assert found.headers["x-ms-run-function-failed"] == str(status == 500)
    assert ask(module, "POST", "/score", b"a").status_code == 200


def test_a_body_of_unknown_length_is_bounded(module: ScoringService) -> None:
    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 400

    async def send(count: int) -> httpx.Response:
        transport = httpx.ASGITransport(app=application(module))
        async with httpx.AsyncClient(transport=transport, base_url="http://module") as client:
            return await client.post("/score", content=chunks(count))

    assert asyncio.run(send(3)).status_code == 413
    assert asyncio.run(send(2)).json() == "x" * 800


def test_bodies_are_bounded_together(tmp_path: Path) -> None:
    hold = "import time\ndef init(): pass\ndef run(data): time.sleep(0.3)\n"
    with started(replace(release(tmp_path, hold), max_body=1000)) as found:

        async def send(size: int) -> int:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://module") as client:
                return (await client.post("/score", content=b"x" * size)).status_code

        async def main() -> list[int]:
            return list(await asyncio.gather(*(send(size) for size in (1000,) * 4 + (1,))))

        app = application(found)
        assert sorted(asyncio.run(main())) == [200, 200, 200, 200, 503]
        assert found.body_bytes == 0
        assert asyncio.run(send(1000)) == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/score?a=1", 200),
        ("OPTIONS", "/score", 200),
        ("PUT", "/score", 405),
        ("POST", "/", 405),
        ("GET", "/other", 404),
        ("GET", "/", 200),
    ],
)
def test_other_requests(module: ScoringService, method: str, path: str, status: int) -> None:
    found = ask(module, method, path)
    assert found.status_code == status
    if status >= 400:
        assert "/score" in found.json()["message"]


def test_pictures_of_other_kinds_are_not_given_to_a_script_as_text(module: ScoringService) -> None:
    answer = ask(module, "POST", "/score", b"GIF89a", {"content-type": "image/gif"})
    assert answer.status_code == 415
    assert "not image/gif" in answer.json()["message"]


def test_models_alone_answer_no_get(tmp_path: Path) -> None:
    settings = release(tmp_path)
    models.doubled(settings.model_dir / "model.onnx")
    with started(settings) as found:
        assert ask(found, "GET", "/score").status_code == 405
        answer = ask(found, "POST", "/score", b"[" * 900_000)
        assert (answer.status_code, "is not JSON" in answer.json()["message"]) == (400, True)
        answer = ask(found, "POST", "/score", b'{"data": [[1, 2]]}')
        assert answer.json()["field"] == "data"
        answer = ask(found, "POST", "/score", b"", {"content-type": "application/xml"})
        assert answer.status_code == 415


def test_connections_are_closed_before_the_end(module: ScoringService) -> None:
    assert "connection" not in ask(module, "POST", "/score", b"a").headers
    module.draining = True
    found = ask(module, "POST", "/score", b"a")
    assert (found.status_code, found.headers["connection"]) == (200, "close")
    assert ask(module, "GET", "/").status_code == 503


def test_figures(module: ScoringService) -> None:
    for body in (b"a", b"bad", b"fail", b"x" * 2000):
        ask(module, "POST", "/score", body)
    found = ask(module, "GET", "/metrics")
    assert found.headers["content-type"].startswith("text/plain; version=")
    lines = found.text.splitlines()
    for expected in (
        'mlpack_requests_total{code="200",route="/score"} 1.0',
        'mlpack_requests_total{code="413",route="/score"} 1.0',
        'mlpack_scores_total{code="400"} 1.0',
        'mlpack_scores_total{code="500"} 1.0',
        'mlpack_request_seconds_count{route="/score"} 4.0',
        "mlpack_run_seconds_count 3.0",
        "mlpack_queue_depth 0.0",
        "mlpack_ready 1.0",
        'mlpack_batch_requests_bucket{le="1.0"} 3.0',
    ):
        assert expected in lines
    [model] = [line for line in lines if line.startswith("mlpack_model_info{")]
    assert 'name="fan"' in model
    assert 'version="3"' in model
    assert any(line.startswith("process_resident_memory_bytes") for line in lines)
    again = ask(module, "GET", "/metrics", headers={"accept": "application/openmetrics-text"})
    assert again.text.endswith("# EOF\n")


def test_a_line_for_each_request(module: ScoringService, capfd: pytest.CaptureFixture[str]) -> None:
    ask(module, "POST", "/score?token=secret", b"a secret", {"x-request-id": "7"})
    ask(module, "POST", "/score", b"bad")
    ask(module, "GET", "/")
    ask(module, "GET", "/nothing")
    said = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [(line["path"], line["status"]) for line in said] == [
        ("/score", 200),
        ("/score", 400),
        ("/nothing", 404),
    ]
    assert said[0]["id"] == "7"
    figures = {"ms", "queue_ms", "run_ms", "joined", "bytes", "received"}
    assert {"level", "time"} | figures <= said[0].keys()
    assert "secret" not in json.dumps(said)


def test_less_is_logged_when_asked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with started(replace(release(tmp_path, SCRIPT), log="warning")) as found:
        ask(found, "POST", "/score", b"a")
        assert not capfd.readouterr().err
    with started(replace(release(tmp_path, SCRIPT), log="debug")) as found:
        ask(found, "GET", "/")
        assert json.loads(capfd.readouterr().err)["level"] == "debug"


def test_all_that_is_logged_is_json(capfd: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        telemetry.configure(logging.INFO)
        try:
            raise RuntimeError("in\nlines")
        except RuntimeError:
            logging.getLogger("score").exception("it %s", "broke")
        logging.getLogger("mlpack_runtime").debug("not this")
        logging.getLogger("mlpack_runtime").warning("wrong %d", "text")
    finally:
        logging.getLogger().handlers[:], logging.getLogger().level = before
    first, *_ = capfd.readouterr().err.splitlines()
    line = json.loads(first)
    assert (line["level"], line["message"], line["logger"]) == ("error", "it broke", "score")
    assert "RuntimeError: in\nlines" in line["traceback"]


def test_browsers_may_ask_before_any_path(tmp_path: Path) -> None:
    settings = replace(release(tmp_path, SCRIPT), cors_origins=(re.compile("https://a.example"),))
    ask_first = {"origin": "https://a.example", "access-control-request-method": "POST"}
    with started(settings) as module:
        found = ask(module, "OPTIONS", "/v2/models/fan/infer", headers=ask_first)
        assert (found.status_code, found.content) == (200, b"")
        assert found.headers["access-control-allow-origin"] == "https://a.example"
        assert found.headers["access-control-allow-methods"] == "GET, POST"
        assert found.headers["vary"] == "Origin"
        elsewhere = {**ask_first, "origin": "https://b.example"}
        found = ask(module, "OPTIONS", "/v2", headers=elsewhere)
        assert found.status_code == 405
        assert "access-control-allow-origin" not in found.headers
