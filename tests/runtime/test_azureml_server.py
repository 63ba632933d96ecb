"""The same scripts and requests on azureml-inference-server-http 1.5.1 and on the runtime.

Its answers are in ``azureml_server/expected.json``; ``azureml_server/record.py`` made them, and
a slow test makes them again. ``DIFFERENCES`` has every answer that differs, and
docs/reference/scoring.md the reasons.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.azureml_server import cases, record
from tests.runtime.support import serving

EXPECTED: dict[str, dict[str, Any]] = json.loads(record.EXPECTED.read_text(encoding="utf-8"))
FAILED, EXEC = "x-ms-run-function-failed", "x-ms-run-fn-exec-ms"
JSON = "application/json"


@dataclass(frozen=True)
class Difference:
    """What the runtime answers instead; headers that are ``None`` are not sent."""

    message: object = None
    status: int | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: object = None

    def of(self, theirs: dict[str, Any]) -> dict[str, Any]:
        changed = {**dict(theirs["headers"]), **self.headers}
        body = self.body or ({"json": self.message} if self.message else theirs["body"])
        headers = [[name, value] for name, value in changed.items() if value is not None]
        repeated = [each for each in theirs["headers"] if each not in headers]
        kept = [each for each in repeated if each[0] not in self.headers]
        status = self.status or theirs["status"]
        return {"status": status, "headers": sorted(headers + kept), "body": body}


def refused(status: int, message: str, **more: str) -> Difference:
    """A 4xx where Azure ML's server answers 500: the client's mistake, in the script's code."""
    return Difference({"message": message, **more}, status, {FAILED: "False"})


def told(status: int, message: str, **more: str) -> Difference:
    """The same status with another text."""
    return Difference({"message": message, **more}, status)


def aborted(status: int, message: str) -> Difference:
    headers = {FAILED: "False", EXEC: "N"}
    return Difference({"message": message}, status, headers)


_PATHS = "; paths: /, /metrics, /score, /swagger.json, /v2, /v2/health/live, /v2/health/ready"
_NO_JSON = "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
_NO_UTF8 = "the request is not UTF-8 ('utf-8' codec can't decode byte 0xff in position 0: "
_FAILED = told(500, "scoring failed with KeyError; see the module's log")
_COOKIES = ("cookies", {"a": ["1"], "b": ["2"], "c": ["3"]})
_HEALTH: dict[str, str | None] = {
    "content-type": "text/plain; charset=utf-8",
    "x-request-id": None,
    "x-ms-request-id": None,
}

DIFFERENCES: Mapping[str, Mapping[str, Difference]] = {
    "responses": {
        "json_type": aborted(
            415,
            "Did not attempt to load JSON data because the request Content-Type was not "
            "'application/json'.",
        ),
        "json_invalid": aborted(400, f"Failed to decode JSON object: {_NO_JSON}"),
        "no_argument": aborted(400, "the request has no 'do'"),
        "aborts": aborted(409, "no such fan"),
        "aborts_with_an_answer": Difference(
            status=404,
            body="own",
            headers={
                FAILED: "False",
                EXEC: "N",
                "content-type": "text/html; charset=utf-8",
                "content-length": "3",
            },
        ),
        "raises": _FAILED,
        "bytearray": Difference(body="ab"),
    },
    "plain": {
        "raises": _FAILED,
        "not_json": refused(400, f"the request is not JSON ({_NO_JSON})"),
        "not_utf8": told(400, f"{_NO_UTF8}invalid start byte)"),
        "cors_error": told(400, f"{_NO_UTF8}invalid start byte)"),
        "long_id": Difference(
            {
                "message": "x-ms-client-request-id must not exceed 100 characters",
                "field": "x-ms-client-request-id",
            },
            431,
        ),
        "delete": Difference(
            {"message": f"DELETE /score is not allowed{_PATHS}"},
            405,
            {FAILED: None, "allow": "GET, HEAD, OPTIONS, POST"},
        ),
        "missing": Difference(
            {"message": f"POST /nowhere does not exist{_PATHS}"}, 404, {FAILED: None}
        ),
        "health": Difference(headers={**_HEALTH, "vary": "Accept"}),
        "cors_health": Difference(headers={**_HEALTH, "vary": "Accept, Origin"}),
    },
    "schema": {
        "absent": told(400, "the request has no frame", field="frame"),
        "list": told(400, "the request is not a JSON object"),
        "empty": told(400, "the request is not JSON (Expecting value: line 1 column 1 (char 0))"),
        "invalid": told(400, f"the request is not JSON ({_NO_JSON})"),
        "shape": refused(400, "could not convert string to float: 'x'"),
    },
}


def expected(name: str, case: str) -> dict[str, Any]:
    """What the runtime must answer: what Azure ML's server does, or the listed difference."""
    theirs = EXPECTED[name][case]
    request = cases.CASES[name][case]
    if name == "plain" and not any(key == "Origin" for key, _ in request.headers):
        # flask-cors adds the allowed origins to every answer.
        without = ("access-control-allow-origin", "vary")
        kept = [each for each in theirs["headers"] if each[0] not in without]
        theirs = {**theirs, "headers": kept}
    difference = DIFFERENCES.get(name, {}).get(case)
    return comparable(difference.of(theirs) if difference else theirs)


def comparable(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without the length of JSON, which is written without spaces here."""
    headers = dict[str, list[str]]()
    for name, value in answer["headers"]:
        headers.setdefault(name, []).append(value)
    if isinstance(answer["body"], dict) and "json" in answer["body"]:
        headers.pop("content-length", None)
    for name in {"allow", "vary"} & headers.keys():
        headers[name] = sorted(", ".join(headers[name]).split(", "))
    return {**answer, "headers": headers}


def answers(name: str, folder: Path, settings: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What the runtime answers to all requests of a script."""
    (folder / "score.py").write_text(cases.SCRIPTS[name], encoding="utf-8")
    with serving(folder, settings) as url:
        found = cases.answers(int(url.rpartition(":")[2]), name)
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def compare(name: str, folder: Path, settings: Mapping[str, str]) -> None:
    found = answers(name, folder, settings)
    wrong = {}
    for case, answer in found.items():
        ours, theirs = comparable(answer), expected(name, case)
        if name == "members" and case == "client":
            # gunicorn joins two Cookie headers by a comma, which is no cookie's end (RFC 6265).
            member, value = _COOKIES
            theirs["body"]["json"][member] = value
            assert ["Cookie", "a=1; b=2,c=3"] in theirs["body"]["json"].pop("headers")
            assert ["Cookie", "a=1; b=2; c=3"] in ours["body"]["json"].pop("headers")
        if ours != theirs:
            wrong[case] = (ours, theirs)
    assert wrong == {}


@pytest.mark.parametrize("name", ["members", "responses", "plain", "headers"])
def test_scripts_are_answered_as_by_azure_mls_server(name: str, tmp_path: Path) -> None:
    compare(name, tmp_path, cases.ENVIRONMENT if name == "plain" else {})


def installed(folder: Path, *packages: str) -> None:
    """Install packages into ``folder``; skip the test where there is no index."""
    pip = (sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), "--no-deps")
    done = subprocess.run([*pip, *packages], check=False, capture_output=True, text=True)
    if done.returncode and not os.environ.get("MLPACK_REQUIRE_E2E"):
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_scripts_with_inference_schema_are_answered_alike(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    needed = ("wrapt", "python-dateutil", "pytz", "six", "pandas", "tzdata")
    installed(packages, "inference-schema==1.8", *needed)
    compare("schema", tmp_path, {"PYTHONPATH": str(packages)})


@pytest.mark.slow
@pytest.mark.e2e
def test_the_recorded_answers_are_those_of_azure_mls_server(tmp_path: Path) -> None:
    try:
        programs = record.install(tmp_path / "venv")
    except subprocess.CalledProcessError as error:
        if os.environ.get("MLPACK_REQUIRE_E2E"):
            raise
        pytest.skip(f"pip install: {error}")
    assert record.text(record.record(programs, tmp_path)) == record.EXPECTED.read_text("utf-8")
