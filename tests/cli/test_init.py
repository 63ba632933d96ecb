"""``mlpack init``: what it writes, and what it leaves as it is."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from mlpack.errors import UsageError
from mlpack.model.recipe import BaseRecipe, DeviceRecipe, FleetRecipe, Recipe
from mlpack.stores.starter import AlreadyThere, write_starter
from mlpack.stores.templates import read_template, template_tree
from tests.support import run, tiny_onnx

MINIMAL = [".gitignore", "mlpack.toml", "requirements.in", "score.py"]


def listed(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_makes_a_project_here_named_after_the_directory(tmp_path: Path) -> None:
    folder = tmp_path / "Pump-Wear"
    folder.mkdir()
    done = run("-C", str(folder), "init", "--json")
    assert json.loads(done.stdout) == {
        "directory": str(folder),
        "template": "minimal",
        "name": "pump-wear",
        "files": MINIMAL,
    }
    assert listed(folder) == MINIMAL
    assert Recipe.parse((folder / "mlpack.toml").read_text()).model == "pump-wear"


def test_a_directory_whose_name_is_no_model_name_keeps_the_templates(tmp_path: Path) -> None:
    run("-C", str(tmp_path), "init", "My Pump!")
    assert Recipe.parse((tmp_path / "My Pump!" / "mlpack.toml").read_text()).model == "model"


def test_says_what_it_wrote_and_what_comes_next(tmp_path: Path) -> None:
    done = run("-C", str(tmp_path), "init", "pump", "--name", "wear")
    assert done.exit_code == 0
    place = tmp_path / "pump"
    assert done.stdout.splitlines() == [
        "written:",
        *(f"  {place / each}" for each in MINIMAL),
        "next:",
        f"  cd {place}",
        "  mlpack base build",
        "  mlpack register wear.onnx",
        "  mlpack build wear",
    ]


def test_the_fan_template_is_the_fan_project(tmp_path: Path) -> None:
    done = run("-C", str(tmp_path), "init", "--template", "fan", "fan")
    assert "  python train.py\n" in done.stdout
    recipe = Recipe.parse((tmp_path / "fan" / "mlpack.toml").read_text())
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
    (tmp_path / "score.py").write_text("mine")
    (tmp_path / "mlpack.toml").symlink_to("nowhere")
    done = run("-C", str(tmp_path), "init")
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        f"error: {tmp_path} has score.py, mlpack.toml already",
        "hint: choose an empty directory (mlpack init DIR), or move these files away first",
    ]
    assert listed(tmp_path) == ["mlpack.toml", "score.py"]
    assert (tmp_path / "score.py").read_text() == "mine"


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
    expected = Recipe(model="model", scoring="score.py")
    assert Recipe.parse(text) == expected
    said = Recipe.parse(text.replace("\n#: ", "\n"))
    assert said == expected
    assert text.count("\n#: ") == 13
    named = [*BaseRecipe.__slots__, *DeviceRecipe.__slots__, *FleetRecipe.__slots__]
    named += ["port", "env"]  # of [module]; the rest of it few need
    # Left out: the mirror, which has no default to show.
    shown = {"from" if each == "source" else each for each in named} - {"mirror"}
    assert {each for each in shown if f"\n#: {each} = " not in text} == set()


def test_the_commented_repository_can_be_put_in_force() -> None:
    for name in ("minimal", "fan"):
        text = read_template(f"{name}/mlpack.toml")
        said = text.replace("# [image]\n# repository", "[image]\nrepository")
        assert Recipe.parse(said).repository is not None


@pytest.mark.parametrize("name", ["minimal", "fan"])
def test_a_template_folder_holds_its_files_and_no_leavings(name: str) -> None:
    files = template_tree(name)
    assert {"gitignore", "mlpack.toml", "requirements.in", "score.py"} <= set(files)
    assert not [each for each in files if "__pycache__" in each or each.endswith(".pyc")]


@pytest.mark.parametrize("path", ["../pyproject.toml", "minimal/../fan", "/etc/passwd", "nothing"])
def test_only_templates_can_be_read(path: str) -> None:
    with pytest.raises(UsageError):
        read_template(path)
    with pytest.raises(UsageError):
        template_tree(path)


# --- the scoring script that works for any model


@pytest.fixture
def score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    run("-C", str(tmp_path), "init", "p")
    (tmp_path / "models").mkdir()
    tiny_onnx(tmp_path / "models" / "tiny.onnx")
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path / "models"))
    spec = importlib.util.spec_from_file_location("score", tmp_path / "p" / "score.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_scoring_script_scores_a_model_of_one_input(score: ModuleType) -> None:
    score.init()
    # tiny_onnx: y = x · [0, 1, 2, 3] + 0.5
    assert score.run('{"data": [[1, 1, 1, 1], [0, 0, 0, 2]]}') == {"result": [[6.5], [6.5]]}
    assert score.run('{"inputs": {"x": [[1, 2, 3, 4]]}}') == {"result": [[20.5]]}


@pytest.mark.parametrize(
    ("request_text", "reason"),
    [
        ("[]", "send"),
        ('{"x": 1}', "send"),
        ('{"inputs": {"y": 1}}', "the model's inputs are x"),
        ('{"data": [["a"]]}', "could not convert"),
        ("{", "Expecting"),
    ],
)
def test_the_scoring_script_says_what_it_cannot_read(
    score: ModuleType, request_text: str, reason: str
) -> None:
    score.init()
    with pytest.raises(ValueError, match=reason):
        score.run(request_text)


def test_the_scoring_script_scores_several_inputs_and_outputs(
    score: ModuleType, tmp_path: Path
) -> None:
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("Identity", ["name"], ["same"]),
        ],
        "two",
        [
            helper.make_tensor_value_info("a", TensorProto.DOUBLE, ["N"]),
            helper.make_tensor_value_info("b", TensorProto.DOUBLE, ["N"]),
            helper.make_tensor_value_info("name", TensorProto.STRING, ["N"]),
        ],
        [
            helper.make_tensor_value_info("sum", TensorProto.DOUBLE, ["N"]),
            helper.make_tensor_value_info("same", TensorProto.STRING, ["N"]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "models" / "tiny.onnx"))
    score.init()
    answer = score.run('{"inputs": {"a": [1, 2], "b": [3, 0.5], "name": ["x", "y"]}}')
    assert answer == {"outputs": {"sum": [4.0, 2.5], "same": ["x", "y"]}}
    with pytest.raises(ValueError, match="send"):
        score.run('{"data": [1, 2]}')


def test_the_scoring_script_refuses_two_models(score: ModuleType, tmp_path: Path) -> None:
    tiny_onnx(tmp_path / "models" / "second.onnx")
    with pytest.raises(RuntimeError, match="holds 2 ONNX files, not one"):
        score.init()
