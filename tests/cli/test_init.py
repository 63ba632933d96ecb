"""``mlpack init``: what it writes, and what it leaves as it is."""

from __future__ import annotations

import json
import shlex
from dataclasses import fields, replace
from pathlib import Path

import pytest

from mlpack.errors import UsageError
from mlpack.project.directory import (
    AlreadyThere,
    ModelStore,
    ProjectDirectory,
    read_template,
    template_tree,
    write_starter,
)
from mlpack.settings.project_settings import (
    BaseSettings,
    DeviceSettings,
    FleetSettings,
    ProjectSettings,
)
from tests.support import run, tiny_onnx

MINIMAL = [".gitignore", "mlpack.toml", "requirements.in"]


def listed(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_makes_a_project_here_named_after_the_directory(tmp_path: Path) -> None:
    folder = tmp_path / "Pump-Wear"
    folder.mkdir()
    done = run("-C", str(folder), "init", "--json")
    assert json.loads(done.stdout) == {
        "path": str(folder),
        "template": "minimal",
        "name": "pump-wear",
        "files": MINIMAL,
    }
    assert listed(folder) == MINIMAL
    assert ProjectSettings.parse((folder / "mlpack.toml").read_text()).model == "pump-wear"


@pytest.mark.parametrize(
    ("folder", "name"),
    [("My Pump!", "my-pump"), ("Übung 3", "bung-3"), ("a" * 70, "a" * 63), ("模型", "model")],
)
def test_a_directory_whose_name_cannot_be_a_models_gets_one_like_it(
    tmp_path: Path, folder: str, name: str
) -> None:
    done = run("-C", str(tmp_path), "init", folder)
    assert done.exit_code == 0, done.stderr
    recipe = (tmp_path / folder / "mlpack.toml").read_text()
    assert ProjectSettings.parse(recipe).model == name
    assert f"the model is called {name!r}" in done.stderr
    assert "--name" in done.stderr
    assert "mlpack.toml" in done.stderr
    assert f"  cd {shlex.quote(str(tmp_path / folder))}\n" in done.stdout


def test_a_model_alone_needs_no_script_and_is_scored_by_its_signature(tmp_path: Path) -> None:
    run("-C", str(tmp_path), "init", "pump")
    project = ProjectDirectory(tmp_path / "pump")
    done = run("-C", str(project.root), "register", str(tiny_onnx(tmp_path / "pump.onnx")))
    assert done.exit_code == 0, done.stderr
    assert ModelStore(project.layout).get("pump").scoring is None


def test_says_what_it_wrote_and_what_comes_next(tmp_path: Path) -> None:
    done = run("-C", str(tmp_path), "init", "pump", "--name", "wear")
    assert done.exit_code == 0
    place = tmp_path / "pump"
    assert done.stdout.splitlines() == [
        "written:",
        *(f"  {place / each}" for each in MINIMAL),
        "next:",
        f"  cd {place}",
        "  mlpack register wear.onnx",
        "  mlpack serve wear",
        "  mlpack base build",
        "  mlpack build wear",
    ]


def test_the_fan_template_is_the_fan_project(tmp_path: Path) -> None:
    done = run("-C", str(tmp_path), "init", "--template", "fan", "fan")
    assert "  python train.py\n" in done.stdout
    recipe = ProjectSettings.parse((tmp_path / "fan" / "mlpack.toml").read_text())
    assert (recipe.model, recipe.scoring) == ("fan", "score.py")
    assert (tmp_path / "fan" / "score.py").read_text() == read_template("fan/score.py")
    assert (tmp_path / "fan" / ".gitignore").read_text() == read_template("fan/gitignore")
    assert not (tmp_path / "fan" / "gitignore").exists()


@pytest.mark.parametrize("name", ["Pump", "a b", "../x", "-x", "x" * 64])
def test_a_name_that_cannot_be_one_writes_nothing(tmp_path: Path, name: str) -> None:
    done = run("-C", str(tmp_path), "init", f"--name={name}")
    assert done.exit_code == 2
    assert "is not a model name" in done.stderr
    assert listed(tmp_path) == []


def test_overwrites_nothing_and_lists_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "requirements.in").write_text("mine")
    (tmp_path / "mlpack.toml").symlink_to("nowhere")
    done = run("-C", str(tmp_path), "init")
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        f"error: {tmp_path} has requirements.in, mlpack.toml already",
        "hint: choose an empty directory (mlpack init DIR), or move these files away first",
    ]
    assert listed(tmp_path) == ["mlpack.toml", "requirements.in"]
    assert (tmp_path / "requirements.in").read_text() == "mine"


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_gitignore_gets_the_lines_it_lacks(tmp_path: Path, end: str) -> None:
    (tmp_path / ".gitignore").write_text(f"*.log\n.mlpack/{end}")
    run("-C", str(tmp_path), "init")
    lines = (tmp_path / ".gitignore").read_text().splitlines()
    assert lines[:2] == ["*.log", ".mlpack/"]
    assert lines.count(".mlpack/") == 1
    assert "deployment*.json" in lines


def test_a_start_that_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / "folder").write_text("a file, so nothing can be written below it")
    files = {".gitignore": b".mlpack/\n", "a": b"1", "folder/b": b"2", "c": b"3"}
    with pytest.raises(OSError, match="folder"):
        write_starter(tmp_path, files)
    assert listed(tmp_path) == [".gitignore", "folder"]
    assert (tmp_path / ".gitignore").read_text() == "*.log\n"
    with pytest.raises(AlreadyThere, match="has folder already"):
        write_starter(tmp_path, {"folder": b""})


# --- what the templates say


def test_the_settings_in_the_minimal_template_are_the_defaults() -> None:
    text = read_template("minimal/mlpack.toml")
    expected = ProjectSettings(model="model")
    assert ProjectSettings.parse(text) == expected
    said = ProjectSettings.parse(text.replace("\n#: ", "\n"))
    # The engine is not assumed any more, but named.
    assert said == replace(expected, engine_named=True)
    assert text.count("\n#: ") == 13
    kinds = (BaseSettings, DeviceSettings, FleetSettings)
    named = [each.name for kind in kinds for each in fields(kind)]
    named += ["port", "env"]  # of [module]; the rest of it few need
    # Left out: the mirror, which has no default to show.
    shown = {"from" if each == "source" else each for each in named} - {"mirror"}
    assert {each for each in shown if f"\n#: {each} = " not in text} == set()


def test_the_commented_repository_can_be_put_in_force() -> None:
    for name in ("minimal", "fan"):
        text = read_template(f"{name}/mlpack.toml")
        said = text.replace("# [image]\n# repository", "[image]\nrepository")
        assert ProjectSettings.parse(said).repository is not None


@pytest.mark.parametrize("name", ["minimal", "fan"])
def test_a_template_folder_holds_its_files_and_no_leavings(name: str) -> None:
    files = template_tree(name)
    script = {"score.py"} if name == "fan" else set()
    assert {"gitignore", "mlpack.toml", "requirements.in"} | script <= set(files)
    assert not [each for each in files if "__pycache__" in each or each.endswith(".pyc")]


@pytest.mark.parametrize("path", ["../pyproject.toml", "minimal/../fan", "/etc/passwd", "nothing"])
def test_only_templates_can_be_read(path: str) -> None:
    with pytest.raises(UsageError):
        read_template(path)
    with pytest.raises(UsageError):
        template_tree(path)
