"""The work of the core: imports, help, and from two models to a rendered release."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

import mlpack
from mlpack.cli.main import cli
from mlpack.project.directory import ProjectDirectory
from tests.support import dense_onnx, make_project, run

SERVE = {"httptools", "onnxruntime", "orjson", "paho", "PIL", "prometheus_client", "starlette"}
SERVE |= {"uvicorn", "werkzeug"}
RUNTIME = ("mlpack.runtime.", "mlpack.registry.serve.")
"""What the extra ``serve`` is for; all else imports without any extra."""

BARE = find_spec("onnxruntime") is None


def modules() -> Iterator[str]:
    for each in pkgutil.walk_packages(mlpack.__path__, "mlpack.", onerror=lambda _: None):
        if not each.name.endswith("__main__"):
            yield each.name


def test_all_modules_import_and_only_the_server_needs_an_extra() -> None:
    missing = {}
    for name in modules():
        try:
            importlib.import_module(name)
        except ImportError as error:
            missing[name] = str(error.name).partition(".")[0]
    assert {name: of for name, of in missing.items() if of not in SERVE} == {}
    assert [name for name in missing if not name.startswith(RUNTIME)] == []
    assert bool(missing) == BARE


def commands(group: click.Group, *above: str) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        yield (*above, name)
        if isinstance(found, click.Group):
            yield from commands(found, *above, name)


@pytest.mark.parametrize("words", list(commands(cli)), ids=" ".join)
def test_help_of(words: tuple[str, ...]) -> None:
    done = run(*words, "--help")
    assert done.exit_code == 0
    assert f"mlpack {' '.join(words)}" in done.output


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    """A project on a tiny base with two releases, the second close to the first."""
    made = make_project(tmp_path / "fan")
    for steps in (0, 3):
        dense_onnx(made.root / "fan.onnx", tuned=steps)
        for command in (("register", "fan.onnx"), ("build", "fan")):
            done = run("-C", str(made.root), *command)
            assert done.exit_code == 0, done.output
    return made


def document(project: ProjectDirectory, *words: str) -> dict[str, object]:
    done = run("-C", str(project.root), "--json", *words)
    assert done.exit_code == 0, done.output
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_releases_are_compared_and_their_cost_is_reported(project: ProjectDirectory) -> None:
    transfer = document(project, "diff", "fan:1", "fan:2")["transfer"]
    assert isinstance(transfer, dict)
    assert transfer["total"] < 100_000
    document(project, "report", "fan", "--devices", "1000")
    document(project, "models")
    document(project, "show", "fan:2")
    document(project, "base", "show")


@pytest.mark.parametrize("target", ["iotedge", "kubernetes", "aci"])
def test_a_release_is_rendered(project: ProjectDirectory, target: str) -> None:
    done = run("-C", str(project.root), "render", "fan", "--target", target)
    assert done.exit_code == 0, done.output
    digest = project.layout.resolve("fan-2").digest
    assert f"registry.example.com/edge/fan@{digest}" in done.stdout


def test_a_patch_is_made_and_applied(tmp_path: Path) -> None:
    old, new = (dense_onnx(tmp_path / f"{steps}.onnx", tuned=steps) for steps in (0, 3))
    patch, out = tmp_path / "patch", tmp_path / "out"
    assert run("patch", "make", str(old), str(new), "-o", str(patch)).exit_code == 0
    assert patch.stat().st_size < new.stat().st_size / 2
    assert run("patch", "apply", str(old), str(patch), "-o", str(out)).exit_code == 0
    assert out.read_bytes() == new.read_bytes()


if BARE:

    @pytest.mark.parametrize("words", [("serve", "fan"), ("registry", "serve")], ids=" ".join)
    def test_an_extra_is_named(project: ProjectDirectory, words: tuple[str, ...]) -> None:
        done = run("-C", str(project.root), *words)
        assert done.exit_code == 1
        assert "Traceback" not in done.output
        assert "[serve]'" in done.stderr


def test_the_program_starts(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlpack", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert mlpack.__version__ in done.stdout
