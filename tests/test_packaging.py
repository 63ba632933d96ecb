"""The wheel and the source distribution hold all that runs, and install in an empty environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mlpack.installation import requirement_with

ROOT = Path(__file__).resolve().parents[1]


def test_every_package_is_listed_for_the_wheel() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {each.parent for each in (ROOT / "mlpack").rglob("__init__.py")}
    on_disk = {".".join(each.relative_to(ROOT).parts) for each in folders}
    assert set(settings["packages"]) == on_disk | {"mlpack_docs", "mlpack_templates"}
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
        if package not in ("mlpack_docs", "mlpack_templates")
    }
    files = (path for path in (ROOT / "mlpack").rglob("*") if path.is_file())
    others = {
        path.relative_to(ROOT)
        for path in files
        if path.suffix != ".py" and "__pycache__" not in path.parts
    }
    assert listed == others


@pytest.fixture(scope="session")
def dists(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A wheel and a source distribution, built from a copy of what git has here."""
    folder = tmp_path_factory.mktemp("dists")
    listed = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).split("\n")
    for name in filter(None, listed):
        target = folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    run("uv", "build", "--quiet", "--out-dir", str(folder / "out"), cwd=folder / "source")
    (wheel,), (sdist,) = ((folder / "out").glob(each) for each in ("*.whl", "*.tar.gz"))
    return {"wheel": wheel, "sdist": sdist}


def run(program: str, *arguments: str, cwd: Path, **environment: str) -> str:
    beside = Path(sys.executable).parent / program
    command = [str(beside) if beside.is_file() else program, *arguments]
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_it_installs_in_an_empty_environment(
    kind: str, dists: dict[str, Path], tmp_path: Path
) -> None:
    venv = tmp_path / "venv"
    run("uv", "venv", "--quiet", "--python", sys.executable, str(venv), cwd=tmp_path)
    python = str(venv / "bin" / "python")
    requirement = f"mlpack-edge @ {dists[kind].as_uri()}"
    run("uv", "pip", "install", "--quiet", "--python", python, requirement, cwd=tmp_path)
    mlpack = str(venv / "bin" / "mlpack")
    assert run(mlpack, "--version", cwd=tmp_path)
    checks = json.loads(run(mlpack, "--json", "doctor", "--quick", cwd=tmp_path))["checks"]
    serve = next(each for each in checks if each["name"] == "[serve]")
    assert f"pip install '{dists[kind]}[serve]'" in serve["advice"]
    # Its documentation and its templates came with it.
    listed = json.loads(run(mlpack, "--json", "docs", cwd=tmp_path))["pages"]
    assert {each["page"] for each in listed} == {
        path.relative_to(ROOT / "docs").with_suffix("").as_posix()
        for path in (ROOT / "docs").rglob("*.md")
    }
    assert run(mlpack, "docs", "reference/settings", cwd=tmp_path).startswith("# ")
    run(mlpack, "init", "fan", "--template", "fan", cwd=tmp_path)
    assert (tmp_path / "fan" / "train.py").is_file()


@pytest.mark.parametrize(
    ("document", "requirement"),
    [
        (None, "'mlpack-edge[azure]'"),
        ("nonsense", "'mlpack-edge[azure]'"),
        ("[]", "'mlpack-edge[azure]'"),
        ('{"url": "file:///a%20b/mlpack", "dir_info": {}}', "'/a b/mlpack[azure]'"),
        (
            '{"url": "file:///src", "dir_info": {"editable": true}}',
            "-e '/src[azure]'",
        ),
        (
            '{"url": "https://user:secret@example.com/m.git", "vcs_info": {"vcs": "git"}}',
            "'mlpack-edge[azure] @ git+https://example.com/m.git'",
        ),
    ],
)
def test_hints_install_from_where_mlpack_came_from(document: str | None, requirement: str) -> None:
    assert requirement_with("azure", document) == requirement
