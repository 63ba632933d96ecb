"""The sentiment example: rendered, run with a double of the container, and no key left behind."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlpack.project.directory import ProjectDirectory
from tests.doubles.sentiment import KNOWN_KEY, PATH, PORT
from tests.examples.conftest import load
from tests.runtime.support import serving
from tests.support import run, tiny_base

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "sentiment"
KEY, WRONG = "5f1d0e7c0ffee0hunter2key0000c0de", "5f1d0e7c0ffee0hunter2key0000dead"
ENDPOINT = "https://hunter2.cognitiveservices.azure.com/"
COMMENTS = (
    "The staff were kind, I love it",
    "My order never came, and you were rude",
    "It is blue",
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProjectDirectory:
    """A copy of the example with a release, and the key in the environment."""
    root = tmp_path / "sentiment"
    shutil.copytree(EXAMPLE, root)
    made = ProjectDirectory(root)
    tiny_base(made)
    (root / "escalate.onnx").write_bytes(
        load(EXAMPLE / "make_model.py").build().SerializeToString()
    )
    for args in (("register", str(root / "escalate.onnx")), ("build", "escalate")):
        done = run("-C", str(root), *args)
        assert done.exit_code == 0, done.stderr
    monkeypatch.setenv("SENTIMENT_KEY", KEY)
    monkeypatch.setenv("SENTIMENT_ENDPOINT", ENDPOINT)
    return made


def environment(manifest: Path) -> Mapping[str, str]:
    """The variables that a device gives the container."""
    agent = json.loads(manifest.read_text())["modulesContent"]["$edgeAgent"]["properties.desired"]
    module = agent["modules"]["sentiment"]
    options = json.loads(module["settings"]["createOptions"])
    assert options["HostConfig"]["PortBindings"] == {"5000/tcp": [{"HostPort": "5000"}]}
    assert options["HostConfig"]["Memory"] == 8_000_000_000
    return {name: each["value"] for name, each in module["env"].items()}


def container(given: Mapping[str, str]) -> subprocess.Popen[str]:
    """The container's process, with the variables of its module and no others of ours."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.doubles.sentiment"],
        cwd=EXAMPLE.parents[1],
        env={"PATH": os.environ["PATH"], PORT: str(port), KNOWN_KEY: KEY, **given},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def running(given: Mapping[str, str]) -> Iterator[str]:
    """The address of a container that started."""
    process = container(given)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Now listening on: "), process.communicate(timeout=30)
        yield line.removeprefix("Now listening on: ").strip()
    finally:
        process.terminate()
        process.communicate(timeout=30)


def get(url: str) -> Any:  # noqa: ANN401  # a JSON document
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def holding(root: Path) -> list[str]:
    """The files below ``root`` that have a secret."""
    files = (each for each in root.rglob("*") if each.is_file())
    return [str(each.relative_to(root)) for each in files if b"hunter2" in each.read_bytes()]


def test_the_flow_and_no_key_left_behind(project: ProjectDirectory, tmp_path: Path) -> None:
    shown = run("-C", str(project.root), "render", "escalate")
    assert "${SENTIMENT_KEY}" in shown.stdout
    asked = ("--with-secrets", "-o", "private.json")
    done = run("-C", str(project.root), "--json", "render", "escalate", *asked)
    assert done.exit_code == 0, done.stderr
    given = environment(project.root / "private.json")
    assert given == {"Eula": "accept", "Billing": ENDPOINT, "ApiKey": KEY}

    client = load(EXAMPLE / "client.py")
    release = tmp_path / "release"
    place = release / "azureml-models" / "escalate" / "1"
    place.mkdir(parents=True)
    shutil.copy(project.root / "escalate.onnx", place)
    with running(given) as sentiment, serving(release) as scorer:
        assert get(f"{sentiment}/ready")["ready"] == "ready"
        assert get(f"{sentiment}/status")["apiStatus"] == "Valid"
        scores = client.sentiment(sentiment, COMMENTS)
        assert scores == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
        many = client.sentiment(sentiment, COMMENTS * 5)
        assert many == scores * 5, "more than one request takes"
        likely = client.escalate(scorer, scores)
        assert [round(each, 2) for each in likely] == [0.0, 0.98, 0.05]
        with pytest.raises(client.Unusable, match="comment 0: Invalid document"):
            client.sentiment(sentiment, ["  "])
        flow = subprocess.run(
            [
                *(sys.executable, str(EXAMPLE / "client.py"), *COMMENTS),
                *("--sentiment", sentiment, "--release", scorer),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    assert flow.stdout.splitlines()[0] == f"0.98  {COMMENTS[1]}"
    assert holding(tmp_path) == ["sentiment/private.json"]
    assert (project.root / "private.json").stat().st_mode & 0o777 == 0o600
    assert "hunter2" not in shown.output + done.output + flow.stdout


@pytest.mark.parametrize("missing", ["Eula", "Billing", "ApiKey"])
def test_the_container_does_not_start_without_each(project: ProjectDirectory, missing: str) -> None:
    asked = ("--with-secrets", "-o", "private.json")
    assert run("-C", str(project.root), "render", "escalate", *asked).exit_code == 0
    given = dict(environment(project.root / "private.json"))
    del given[missing]
    out, error = container(given).communicate(timeout=60)
    assert out == ""
    assert missing.lower() in error.lower()


def test_a_placeholder_never_works(project: ProjectDirectory) -> None:
    done = run("-C", str(project.root), "render", "escalate", "-o", "shown.json")
    assert "ApiKey.value: ${SENTIMENT_KEY} is filled in by" in done.stderr.replace("\n", " ")
    given = environment(project.root / "shown.json")
    _, error = container(given).communicate(timeout=60)
    assert "Invalid Billing Endpoint URI" in error
    with running({**given, "Billing": ENDPOINT}) as sentiment:
        assert get(f"{sentiment}/status")["apiStatus"] == "Invalid"


def test_a_wrong_key_is_401(project: ProjectDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTIMENT_KEY", WRONG)
    asked = ("--with-secrets", "-o", "private.json")
    assert run("-C", str(project.root), "render", "escalate", *asked).exit_code == 0
    client = load(EXAMPLE / "client.py")
    with running(environment(project.root / "private.json")) as sentiment:
        assert get(f"{sentiment}/status")["apiStatusMessage"] == "Api Key is invalid."
        with pytest.raises(client.Unusable, match=f"{PATH} answers 401: .*Api Key is invalid"):
            client.sentiment(sentiment, COMMENTS)
        with pytest.raises(urllib.error.HTTPError, match="503"):
            get(f"{sentiment}/ready")
