"""Listing and dropping model versions; one that is damaged does not stand in the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlpack.project.directory import ProjectDirectory
from mlpack.stores.integrity import validate
from tests.support import make_project, run, tiny_onnx


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    """A project with fan:1 and fan:2."""
    made = make_project(tmp_path / "fan")
    for version in (1, 2):
        model = tiny_onnx(tmp_path / f"{version}.onnx", bias=version)
        assert run("-C", str(made.root), "register", str(model), "--name", "fan").exit_code == 0
    return made


def damage(project: ProjectDirectory, version: str) -> None:
    """Change one byte of a version's document, as a failing disk does."""
    path = project.layout.path(project.layout.resolve(f"model/fan/{version}"))
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_damaged_version_does_not_stand_in_the_way(
    project: ProjectDirectory, tmp_path: Path, how: str
) -> None:
    at = ("-C", str(project.root))
    if how == "changed":
        damage(project, "1")
    else:
        project.layout.path(project.layout.resolve("model/fan/1")).unlink()
    listed = run(*at, "--json", "models")
    assert listed.exit_code == 0, listed.stderr
    document = json.loads(listed.stdout)
    assert [each["version"] for each in document["models"]] == ["2"]
    assert list(document["damaged"]) == ["fan:1"]
    assert "fan:1 cannot be read: " in listed.stderr
    assert "drop it with: mlpack models --drop fan:1" in listed.stderr
    assert run(*at, "show", "fan:2").exit_code == 0
    assert run(*at, "build", "fan").exit_code == 0
    added = run(*at, "--json", "register", str(tiny_onnx(tmp_path / "3.onnx", bias=3)))
    assert added.exit_code == 0, added.stderr
    assert json.loads(added.stdout)["version"] == "3", "1 may have been released"


def test_what_is_damaged_is_not_registered_over(project: ProjectDirectory, tmp_path: Path) -> None:
    at = ("-C", str(project.root))
    damage(project, "2")
    again = ("register", str(tmp_path / "2.onnx"), "--name", "fan", "--version", "2")
    refused = run(*at, *again)
    assert refused.exit_code == 1
    assert "fan:2 is registered and cannot be read" in refused.stderr
    assert "hint: drop it first: mlpack models --drop fan:2" in refused.stderr
    assert run(*at, "models", "--drop", "fan:2").stdout == "fan:2\n"
    assert run(*at, *again).exit_code == 0
    assert validate(project.layout) == ()


def test_only_damaged_versions_are_no_model_to_list(project: ProjectDirectory) -> None:
    for version in ("1", "2"):
        damage(project, version)
    listed = run("-C", str(project.root), "models")
    assert (listed.exit_code, listed.stdout) == (0, "")
    assert "no model is registered" not in listed.stderr


def test_a_dropped_version_is_gone_and_its_release_stays(project: ProjectDirectory) -> None:
    at = ("-C", str(project.root))
    assert run(*at, "build", "fan:1").exit_code == 0
    dropped = run(*at, "models", "--drop", "fan:1")
    assert (dropped.exit_code, dropped.stdout) == (0, "fan:1\n")
    assert "its release stays: sha256:" in dropped.stderr
    assert [
        each["version"] for each in json.loads(run(*at, "--json", "models").stdout)["models"]
    ] == ["2"]
    assert run(*at, "report", "fan:1").exit_code == 0
    assert validate(project.layout) == ()
    for args, said in (
        (("--drop", "fan:1"), "no version '1'"),
        (("--drop", "fan"), "names no version"),
        (("--drop", "pump:1"), "no model 'pump'"),
        (("fan", "--drop", "fan:2"), "do not go together"),
    ):
        done = run(*at, "models", *args)
        assert done.exit_code in (1, 2)
        assert said in done.stderr
