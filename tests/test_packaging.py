"""The wheel holds every package and every template."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_package_is_listed_for_the_wheel() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {each.parent for each in (ROOT / "mlpack").rglob("__init__.py")}
    on_disk = {".".join(each.relative_to(ROOT).parts) for each in folders}
    assert set(settings["packages"]) == on_disk | {"mlpack_templates"}
    assert settings["package-dir"]["mlpack_templates"] == "templates"


def test_no_folder_of_code_lacks_its_init_file() -> None:
    # Without it the folder would import from a checkout and be missing from a wheel.
    folders = {each.parent for each in (ROOT / "mlpack").rglob("*.py")}
    assert {each for each in folders if not (each / "__init__.py").is_file()} == set()


def test_files_that_are_no_code_are_listed_too() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    listed = {
        Path(*package.split("."), name)
        for package, names in settings["package-data"].items()
        for name in names
        if package != "mlpack_templates"
    }
    files = (path for path in (ROOT / "mlpack").rglob("*") if path.is_file())
    others = {
        path.relative_to(ROOT)
        for path in files
        if path.suffix != ".py" and "__pycache__" not in path.parts
    }
    assert listed == others
