"""Made-up requests from ``/swagger.json``: none is answered 500, or otherwise than it says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case

from tests.runtime.support import FAN, PICTURE, release, serving
from tests.support import repeats, tiny_onnx

SCRIPTS = {"generic": None, "fan": FAN, "picture": PICTURE}

# No schema can say that bytes are a tensor or a picture, or that a shape has as many elements as
# the data beside it; so of what a schema allows, some is rightly refused with 400.
NOT_ASKED = "positive_data_acceptance"


@pytest.fixture(scope="module", params=SCRIPTS)
def address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("module")
    made = release(folder, SCRIPTS[request.param])
    tiny_onnx(made.model_dir / "model.onnx")
    with serving(folder) as found:
        yield found


@pytest.mark.slow
def test_no_request_breaks_it(address: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run"),
            f"{address}/swagger.json",
            *("--exclude-checks", NOT_ASKED, "--phases", "coverage,fuzzing"),
            *(
                "--max-examples",
                str(repeats(10, 30)),
                "--seed",
                "7",
                "--generation-database",
                "none",
            ),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"(\d{3,}) generated, \1 passed", done.stdout), done.stdout
    assert httpx.get(address).text == "Healthy"


def test_json_that_the_schema_allows_is_scored(address: str) -> None:
    schema = schemathesis.openapi.from_url(f"{address}/swagger.json")
    operation = schema["/score"]["POST"]

    @settings(max_examples=repeats(10, 30), suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def score(case: Case[Any]) -> None:
        if case.media_type == "application/json":
            case.call_and_validate()
            assert case.call().status_code == 200

    score()
