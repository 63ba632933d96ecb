"""CONTRIBUTING.md: each example, written to its path in a copy of mlpack, works there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.support import free_port, make_project, released_project

CHECKOUT = Path(__file__).resolve().parents[1]
EXAMPLES = dict(
    re.findall(
        r"^### [^\n]*`([\w./]+)`$.*?^```\w+\n(.*?)^```$",
        (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
)
FOLDERS = {"mlpack": "mlpack", "templates": "mlpack_templates"}
"""Of a checkout, and the packages they are."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of mlpack in which only the examples were added."""
    folder = tmp_path_factory.mktemp("copy")
    for name, package in FOLDERS.items():
        shutil.copytree(
            CHECKOUT / name, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for path, text in EXAMPLES.items():
        name, _, rest = path.partition("/")
        place = folder / FOLDERS[name] / rest
        assert not place.exists(), f"{path} is not a new file"
        place.write_text(text, encoding="utf-8")
    return folder


def python(copy: Path, *args: str | Path) -> str:
    """Run Python with the copy first on its path; return what it printed."""
    done = subprocess.run(
        [sys.executable, *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(copy)},
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_is_an_example_of_each_kind_and_it_is_formatted(copy: Path) -> None:
    folders = {str(Path(path).parent) for path in EXAMPLES}
    assert folders == {
        "mlpack/api/targets",
        "mlpack/plan/engines",
        "mlpack/runtime/scorers",
        "mlpack/stores/places",
        "mlpack/tensor_patch/spans",
        "templates/tariffs",
    }
    settings = ("--config", str(CHECKOUT / "pyproject.toml"))
    for path, text in EXAMPLES.items():
        if path.endswith(".py"):
            for command in (("check", *settings), ("format", "--check", *settings)):
                subprocess.run(
                    [sys.executable, "-m", "ruff", *command, "--stdin-filename", path, "-"],
                    input=text,
                    text=True,
                    check=True,
                    cwd=CHECKOUT,
                )


def test_an_engine_a_target_and_a_tariff(copy: Path, tmp_path: Path) -> None:
    root = released_project(tmp_path / "project", 2).root
    at = ("-m", "mlpack", "--json", "-C", root)
    moved = json.loads(python(copy, *at, "diff", "fan:1", "fan:2", "--engine", "lazy"))
    assert {each["action"] for each in moved["layers"]} == {"fetch"}
    assert moved["transfer"]["engine"] == "lazy"

    report = json.loads(python(copy, *at, "report", "fan", "--tariff", "depot"))
    assert "lazy" in [each["engine"] for each in report["transfers"]]
    assert report["tariff"]["currency"] == "EUR"

    job = json.loads(python(copy, *at, "render", "fan", "--target", "nomad"))
    assert "@sha256:" in job["image"]
    assert "nomad" in python(copy, "-m", "mlpack", "render", "--help")

    bundle = tmp_path / "fan.tar"
    made = python(copy, *at, "bundle", "fan:2", "--onto", "fan:1", "-o", bundle, "--engine", "lazy")
    assert json.loads(made)["load"] == "lazy load fan.tar"


def test_a_place_for_images(copy: Path, tmp_path: Path) -> None:
    project = released_project(tmp_path / "project", 1)
    at = ("-m", "mlpack", "--json", "-C", project.root)
    made = json.loads(python(copy, *at, "copy", "fan:1", f"oci:{tmp_path / 'layout'}:fan"))
    # An index and its images: skopeo copies the image for this machine.
    folder = tmp_path / "fan"
    shutil.copytree(tmp_path / "layout" / "blobs" / "sha256", folder)
    (folder / made["digest"].removeprefix("sha256:")).rename(folder / "manifest.json")
    source = f"dir:{folder}"
    again = json.loads(python(copy, *at, "copy", source, f"oci:{tmp_path / 'again'}:fan"))
    assert again["digest"] == made["digest"]


def test_a_tensor_format(copy: Path, tmp_path: Path) -> None:
    program = "import sys; from mlpack.tensor_patch.spans import find_spans; "
    program += "print(*find_spans(open(sys.argv[1], 'rb').read()))"
    file = tmp_path / "model.rawf"
    file.write_bytes(b"RAWF0001" + bytes(400))
    found = python(copy, "-c", program, file)
    assert "name='numbers', offset=8, length=400" in found
    assert "shape=(100,)" in found


def test_a_scorer(copy: Path, tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", base=False)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "colors.lookup").write_text('{"sky": "blue"}')
    at = ("-m", "mlpack", "-C", project.root)
    python(copy, *at, "register", tmp_path / "model", "--name", "fan")
    port = free_port()
    serving = subprocess.Popen(
        [sys.executable, *map(str, at), "serve", "fan", "--port", str(port)],
        env={**os.environ, "PYTHONPATH": str(copy)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert serving.stdout is not None
        assert serving.stdout.readline()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/score",
            b'{"key": "sky"}',
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            assert json.load(response) == {"value": "blue"}
    finally:
        serving.terminate()
        serving.communicate(timeout=30)
