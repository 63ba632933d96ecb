"""``mlpack serve``: the runtime as a child process of the command."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlpack.installation import install_command
from mlpack.project.directory import ProjectDirectory
from tests.support import free_port, make_project, run, tiny_onnx

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os

def init():
    assert os.getcwd() == os.environ["AML_APP_ROOT"]

def run(raw):
    return {"said": os.environ["SAID"], "there": sorted(os.listdir())}
"""
SECONDS = 60


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    """A project with one version of a bare model, one with a script, one whose script is broken."""
    made = make_project(tmp_path / "project", base=False)
    script, broken = tmp_path / "score.py", tmp_path / "broken.py"
    script.write_text(SCRIPT)
    broken.write_text("import absent\n\ndef init(): ...\n\ndef run(raw): ...\n")
    model = str(tiny_onnx(tmp_path / "m.onnx"))
    for more in ([], ["--scoring", str(script)], ["--scoring", str(broken)]):
        done = run("-C", str(made.root), "register", model, *more)
        assert done.exit_code == 0, done.stderr
    return made


@contextmanager
def serving(project: ProjectDirectory, *args: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, started, and what it printed first."""
    temporary = project.root / "tmp"
    temporary.mkdir(exist_ok=True)
    arguments = ["-C", str(project.root), "serve"]
    process = subprocess.Popen(
        # A shell's background job ignores SIGINT, and so would we.
        [*("env", "--default-signal=INT", sys.executable, "-m", "mlpack"), *arguments, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
        env={**os.environ, "TMPDIR": str(temporary), "MLPACK_DRAIN": "0"},
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        # Nobody holds its pipes any more: the runtime ends with it, however it ends.
        process.communicate(timeout=SECONDS)


def ask(url: str, body: bytes) -> object:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_scores_and_ends_when_asked(project: ProjectDirectory, number: signal.Signals) -> None:
    port = free_port()
    with serving(project, "fan:1", "--port", str(port)) as (process, page):
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        assert page == f"page    http://127.0.0.1:{port}/"
        assert url == f"http://127.0.0.1:{port}/score"
        assert ask(url, b'{"data": [[1, 2, 3, 4]]}') == {"result": [[20.5]]}
        process.send_signal(number)
        _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert "ending fan:1" in said
    assert "Traceback" not in said
    assert list((project.root / "tmp").iterdir()) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_script_finds_what_it_finds_in_a_container(project: ProjectDirectory) -> None:
    port = str(free_port())
    way = ["--port", port, "--env", "SAID=this=that", "--json"]
    with serving(project, "fan:2", *way) as (process, first):
        assert process.stdout is not None
        document = json.loads(first + "".join(iter(process.stdout.readline, "}\n")) + "}")
        assert (document["name"], document["version"]) == ("fan", "2")
        answer = ask(document["url"], b"{}")
        assert document["page"] == f"http://127.0.0.1:{port}/"
    files = ["azureml-models", "mlpack.json", "score.py"]
    assert answer == {"said": "this=that", "there": files}


def test_a_script_that_does_not_start_is_said_with_what_is_missing(
    project: ProjectDirectory,
) -> None:
    (project.root / "requirements.in").write_text("numpy\nabsent>=2\nother; sys_platform=='no'\n")
    with serving(project, "fan:3", "--port", str(free_port())) as (process, url):
        _, said = process.communicate(timeout=SECONDS)
    assert (process.returncode, url) == (1, "")
    first, *_, error, hint = said.splitlines()
    command = f"-m pip install -r {project.root}/requirements.in"
    assert first.startswith("not installed here: absent>=2; ")
    assert first.endswith(command)
    assert "No module named 'absent'" in said
    assert error == "error: the runtime ended with status 1 before it answered"
    assert "perhaps it lacks absent>=2: " in hint
    assert hint.endswith(command)


def test_a_runtime_that_ends_by_itself_is_an_error(project: ProjectDirectory) -> None:
    with serving(project, "fan:1", "--port", str(free_port())) as (process, _):
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)],
            capture_output=True,
            text=True,
            check=True,
        )
        os.kill(int(children.stdout), signal.SIGKILL)
        _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "error: the runtime ended with status -9" in said


def test_what_is_wrong_is_said_before_anything_starts(
    project: ProjectDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: str) -> list[str]:
        done = run("-C", str(project.root), "serve", *args)
        assert done.exit_code in (1, 2)
        return done.stderr.splitlines()

    assert refused("fan:9")[0].startswith("error: model 'fan' has no version '9'")
    assert refused("fan", "--env", "X")[1] == "hint: write it as --env KEY=VALUE"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        # Nothing is answered here, so the runtime itself finds out.
        port = str(taken.getsockname()[1])
        assert "ended with status 1" in refused("fan:1", "--port", port)[-2]
    monkeypatch.setattr("mlpack.api.serve._IMPORTED", ("orjson", "absent"))
    assert refused("fan:1") == [
        "error: the runtime needs absent, not installed here",
        f"hint: install the extra serve: {install_command('serve')}",
    ]


def test_a_file_that_changed_in_the_store_is_not_served(
    project: ProjectDirectory, tmp_path: Path
) -> None:
    blob = next(
        each
        for each in (project.layout.root / "blobs" / "sha256").iterdir()
        if each.read_bytes() == (tmp_path / "m.onnx").read_bytes()
    )
    blob.chmod(0o644)
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    done = run("-C", str(project.root), "serve", "fan:1", "--port", str(free_port()))
    assert done.exit_code == 1
    assert "m.onnx in the store is not what was registered" in done.stderr
