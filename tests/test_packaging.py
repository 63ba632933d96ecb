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
