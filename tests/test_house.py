"""The house rules that a machine can check: which floor imports which, and what stays out."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / "mlpack"
MODULES = sorted(path.relative_to(CHECKOUT) for path in PACKAGE.rglob("*.py"))

FLOOR = {
    "errors": 0,
    "_version": 0,
    "words": 0,
    "oci": 1,
    "model": 2,
    "delta": 2.5,  # bytes in, bytes out; models and their recipes know nothing of it
    "plan": 3,
    "render": 3.5,  # writes what plan decides; plan reads nothing of it
    "stores": 4,
    "azure": 4.5,
    "base": 5,
    "builders": 5,
    "serve": 5,
    "api": 6,
    "cli": 7,
    "__main__": 8,
}
PURE = {"errors", "words", "oci", "model", "delta", "plan", "render"}
EFFECTS = {
    "os",
    "pathlib",
    "time",
    "random",
    "socket",
    "subprocess",
    "tempfile",
    "shutil",
    "logging",
    "urllib.request",
    "http.client",
    "sqlite3",
}
MAX_LINES = 350


def part(path: Path) -> str:
    return path.parts[1].removesuffix(".py")


def imports(path: Path, *, top_only: bool = False) -> Iterator[str]:
    """What a module imports, but for what only the type checker sees."""
    tree = ast.parse((CHECKOUT / path).read_text())
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in tree.body if top_only else ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level
            yield from (f"{dots}{node.module or ''}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_down(path: Path) -> None:
    here = part(path)
    for name in imports(path):
        if not name.startswith("mlpack."):
            continue
        there = name.split(".")[1]
        if there not in FLOOR:
            assert there in {"runtime", "__version__"}, f"{path} imports {name}"
            assert here != "runtime" or there == "runtime"
            continue
        assert here != "runtime", f"the runtime ships alone but imports {name}"
        if here != "__init__":
            assert here == there or FLOOR[there] < FLOOR[here], f"{path} imports {name}"


@pytest.mark.parametrize("path", [p for p in MODULES if part(p) in PURE], ids=str)
def test_decisions_touch_nothing(path: Path) -> None:
    for name in imports(path):
        module = name.rpartition(".")[0] or name
        assert not {name, module} & EFFECTS, f"{path} imports {name}"


@pytest.mark.parametrize("path", [p for p in MODULES if part(p) != "cli"], ids=str)
def test_only_the_command_line_reads_environment_and_clock(path: Path) -> None:
    if part(path) in {"runtime", "cli"}:
        return
    text = (CHECKOUT / path).read_text()
    for word in ("os.environ", "os.getenv", "datetime.now", "time.time(", "Path.home("):
        assert word not in text, f"{path} uses {word}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_is_one_subject(path: Path) -> None:
    text = (CHECKOUT / path).read_text()
    assert len(text.splitlines()) <= MAX_LINES
    assert ast.get_docstring(ast.parse(text)), f"{path} says nothing of itself"


HEAVY = {
    "onnx",
    "onnxruntime",
    "numpy",
    "sklearn",
    "skl2onnx",
    "scipy",
    "jinja2",
    "rich",
    "docker",
    "azure",
    "packaging",
    "deflate",
    "starlette",
    "uvicorn",
    "tomli_w",
    "sqlite3",
    "mlpack.api",
    "mlpack.stores",
}


def imported_by(*args: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mlpack", *args],
        capture_output=True,
        text=True,
        check=True,
        cwd=CHECKOUT,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip() for line in lines}


def test_help_imports_nothing_heavy() -> None:
    found = imported_by("--help")
    assert "click" in found
    assert not {name for name in found if name in HEAVY or name.split(".")[0] in HEAVY}
