"""The house rules that a machine can check: which floor imports which, and what stays out."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / "mlpack"
MODULES = sorted(path.relative_to(CHECKOUT) for path in PACKAGE.rglob("*.py"))

FLOOR = {
    "errors": 0,
    "_version": 0,
    "humanize": 0,
    "installation": 0,
    "interruptions": 0,
    "kinds": 0,
    "oci": 1,
    "json_document": 1.5,
    "model": 2,
    "settings": 2.3,  # mlpack.toml as values
    "tensor_patch": 2.5,  # bytes in, bytes out; models and settings know nothing of it
    "plan": 3,
    "iotedge": 3.4,
    "render": 3.6,  # writes what plan decides; plan reads nothing of it
    "stores": 4,
    "registry": 4.2,
    "project": 4.4,
    "azure": 4.5,
    "engines": 4.6,
    "base": 5,
    "builders": 5,
    "rollout": 5.5,
    "api": 6,
    "cli": 7,
    "__main__": 8,
}
PURE = {
    "errors",
    "kinds",
    "humanize",
    "oci",
    "model",
    "settings",
    "tensor_patch",
    "plan",
    "render",
    "iotedge",
}
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
EDGES: set[str | Path] = {"runtime", "cli", Path("mlpack/api/session.py")}
"""What may read environment and clock: parts, or single modules by their path."""

MAX_LINES = 500
"""Few, full files: ``benchmarks walks`` counts those that a reader opens to follow a verb."""


def part(path: Path) -> str:
    return path.parts[1].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """What a module imports, but for what only the type checker sees."""
    tree = ast.parse((CHECKOUT / path).read_text())
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level
            yield from (f"{dots}{node.module or ''}.{alias.name}" for alias in node.names)


def offends(here: str, name: str) -> bool:
    """Whether ``name`` is above ``here``, or outside the runtime, which ships alone."""
    if not name.startswith("mlpack."):
        return False
    there = name.split(".")[1]
    if here == "runtime":
        return there != "runtime"
    if there in {"runtime", "__version__"}:
        return False
    return there not in FLOOR or (here not in {"__init__", there} and FLOOR[there] >= FLOOR[here])


def test_imports_point_down() -> None:
    offenders = [
        f"{path} imports {name}"
        for path in MODULES
        for name in imports(path)
        if offends(part(path), name)
    ]
    assert offenders == []


def test_decisions_touch_nothing() -> None:
    offenders = [
        f"{path} imports {name}"
        for path in MODULES
        if part(path) in PURE
        for name in imports(path)
        if {name, name.rpartition(".")[0] or name} & EFFECTS
    ]
    assert offenders == []


def test_only_the_command_line_reads_environment_and_clock() -> None:
    offenders = [
        f"{path} uses {word}"
        for path in MODULES
        if part(path) not in EDGES and path not in EDGES
        for word in ("os.environ", "os.getenv", "datetime.now", "time.time(", "Path.home(")
        if word in (CHECKOUT / path).read_text()
    ]
    assert offenders == []


def test_a_module_is_one_subject() -> None:
    texts = {path: (CHECKOUT / path).read_text() for path in MODULES}
    lines = {path: len(text.splitlines()) for path, text in texts.items()}
    assert {path: count for path, count in lines.items() if count > MAX_LINES} == {}
    assert [path for path, text in texts.items() if not ast.get_docstring(ast.parse(text))] == []


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
    "mlpack.project",
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
