"""Responses of @rawhttp scripts that are sent while the script makes them."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlpack.runtime.scorer import Payload, Reply
from tests.runtime.support import release, serving, started

SCRIPT = """
import time
from pathlib import Path
from azureml.contrib.services.aml_request import rawhttp
from azureml.contrib.services.aml_response import AMLResponse

HERE = Path(__file__).parent

def init():
    pass

def slowly(name):
    try:
        for number in range(1000):
            yield b"%d\\n" % number
            until = time.monotonic() + 60
            while not (HERE / name).exists() and time.monotonic() < until:
                time.sleep(0.01)
                yield b""
    finally:
        (HERE / f"{name}.closed").touch()

def fails(after):
    for number in range(after):
        yield b"%d" % number
    raise KeyError("secret")

def hangs():
    yield b"0"
    time.sleep(30)
    yield b"1"

@rawhttp
def run(request):
    what = request.args["do"]
    if what == "fails":
        return AMLResponse(fails(int(request.args["after"])), 200)
    if what == "hangs":
        return AMLResponse(hangs(), 200)
    if what == "numbers":
        return AMLResponse(iter([1, 2]), 200)
    if what == "slowly":
        return AMLResponse(slowly(request.args["name"]), 200, {"Content-Type": "text/event-stream"})
    return AMLResponse(what, 200)
"""


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "score.py").write_text(SCRIPT)
    with serving(tmp_path, {"MLPACK_TIMEOUT": "2"}) as url:
        yield int(url.rpartition(":")[2])


def post(port: int, query: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    # The answer has the only hold on the connection then.
    connection.request("POST", f"/score?{query}", b"", {"Connection": "close"})
    return connection.getresponse()


def text(port: int, query: str) -> bytes:
    with post(port, query) as answer:
        return answer.read()


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_parts_arrive_as_they_are_made_and_others_are_answered(port: int, tmp_path: Path) -> None:
    with post(port, "do=slowly&name=a") as answer:
        assert answer.getheader("Transfer-Encoding") == "chunked"
        assert answer.getheader("Content-Type") == "text/event-stream"
        assert answer.readline() == b"0\n"
        assert text(port, "do=other") == b"other"
        (tmp_path / "a").touch()
        assert answer.read().splitlines() == [b"%d" % each for each in range(1, 1000)]
    eventually((tmp_path / "a.closed").exists)


def test_a_client_that_goes_ends_the_generator(port: int, tmp_path: Path) -> None:
    with post(port, "do=slowly&name=b") as answer:
        assert answer.readline() == b"0\n"
    eventually((tmp_path / "b.closed").exists)
    assert text(port, "do=other") == b"other"


def test_a_script_that_fails_before_its_first_part_is_answered_500(port: int) -> None:
    with post(port, "do=fails&after=0") as answer:
        assert answer.status == 500
        assert answer.getheader("x-ms-run-function-failed") == "True"
        assert answer.getheader("x-request-id")
        message = "scoring failed with KeyError; see the module's log"
        assert json.loads(answer.read()) == {"message": message}
    with post(port, "do=numbers") as answer:
        assert (answer.status, b"not of bytes" in answer.read()) == (500, True)


@pytest.mark.parametrize("query", ["do=fails&after=2", "do=hangs"])
def test_a_script_that_fails_later_cuts_the_answer(port: int, query: str) -> None:
    with post(port, query) as answer:
        assert answer.status == 200
        with pytest.raises(http.client.IncompleteRead):
            answer.read()
    assert text(port, "do=other") == b"other"


def test_other_transports_get_the_whole_body(tmp_path: Path) -> None:
    script = SCRIPT.replace("for number in range(1000)", "for number in range(0)")
    with started(release(tmp_path, script)) as module:
        (tmp_path / "c").touch()
        found = module.score_blocking(Payload(content=b"", query="do=slowly&name=c"))
        assert isinstance(found, Reply)
        assert (found.content, found.chunks) == (b"", None)
        found = module.score_blocking(Payload(content=b"", query="do=text"))
        assert isinstance(found, Reply)
        assert (found.status, found.content) == (200, b"text")
