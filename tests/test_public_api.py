"""What ``from mlpack import …`` offers, and that it loads nothing before it is used."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import mlpack
from mlpack.api import requests
from mlpack.api.project import Project
from tests.support import make_project, tiny_onnx

CHECKOUT = Path(__file__).resolve().parents[1]
REQUESTS = [
    kind
    for kind in vars(requests).values()
    if isinstance(kind, type) and kind.__module__ == requests.__name__
]


def test_every_public_name_can_be_imported() -> None:
    for name in mlpack.__all__:
        assert getattr(mlpack, name) is not None
    assert set(dir(mlpack)) == set(mlpack.__all__)
    assert len(mlpack.__all__) == len(set(mlpack.__all__))


def test_what_type_checkers_see_is_what_is_loaded() -> None:
    tree = ast.parse((CHECKOUT / "mlpack" / "__init__.py").read_text())
    (hidden,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {
        alias.name: each.module
        for each in hidden.body
        if isinstance(each, ast.ImportFrom)
        for alias in each.names
    }
    assert seen == {
        name: f"mlpack.{module}"
        for module, names in mlpack._NAMES.items()
        for name in names.split()
    }
    assert {*seen, "__version__"} == set(mlpack.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        mlpack.nothing  # noqa: B018


def test_importing_mlpack_imports_nothing_else() -> None:
    code = "import sys, mlpack; print(*(n for n in sys.modules if n.startswith('mlpack.')))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CHECKOUT
    )
    assert done.stdout.split() == ["mlpack._version"]


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.__name__)
def test_a_request_is_frozen_public_and_says_what_it_asks(kind: type) -> None:
    assert getattr(mlpack, kind.__name__) is kind
    assert kind.__dataclass_params__.frozen
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}(")
    # Only its subjects come without their names.
    bare = [each for each in dataclasses.fields(kind) if not each.kw_only]
    assert 1 <= len(bare) <= 3


def test_no_method_takes_what_a_session_has() -> None:
    """No clock, registry, hub or environment is handed in."""
    for name, method in inspect.getmembers(Project, inspect.isfunction):
        if name.startswith("_"):
            continue
        assert method.__doc__, name
        parameters = inspect.signature(method).parameters
        assert not {"now", "clock", "hub", "registries", "environment"} & parameters.keys(), name


def test_a_public_name_has_one_meaning() -> None:
    defined: dict[str, list[str]] = {}
    for path in sorted((CHECKOUT / "mlpack").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name in mlpack.__all__:
                defined.setdefault(node.name, []).append(path.name)
    assert {name: places for name, places in defined.items() if len(places) > 1} == {}


def test_a_request_of_another_kind_is_a_type_error(tmp_path: Path) -> None:
    project = Project.open(make_project(tmp_path / "fan", base=False).root)
    for verb in (
        "build",
        "push",
        "pull",
        "load",
        "report",
        "plan",
        "diff",
        "graft",
        "copy",
        "round",
    ):
        for wrong in (5, None, requests.Init()):
            with pytest.raises(TypeError, match="expected a "):
                getattr(project, verb)(wrong)


def test_a_project_stays_where_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, elsewhere = make_project(tmp_path / "fan", base=False), tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    project = Project.open("fan")
    monkeypatch.chdir(elsewhere)
    project.register(tiny_onnx(tmp_path / "fan.onnx"))
    assert (made.root / ".mlpack").is_dir()
    assert not list(elsewhere.iterdir())
