"""The scoring script: checked as far as that goes without running it."""

from __future__ import annotations

import ast
from pathlib import Path

from mlpack.stores.importers.source import UnreadableModel, require_regular

MAX_BYTES = 1024 * 1024
OLDEST_PYTHON = (3, 11)
"""The Python of debian:bookworm; newer syntax would fail on the device."""


def read_scoring(path: Path) -> tuple[bytes, tuple[str, ...]]:
    """The script's bytes and what the user should know; raise where Python cannot read it."""
    size = require_regular(path)
    if size > MAX_BYTES:
        raise UnreadableModel(
            f"{path} is {size} bytes, more than the {MAX_BYTES} of a scoring script",
            hint="put data into the model's directory and read it from AZUREML_MODEL_DIR",
        )
    content = path.read_bytes()
    try:
        tree = ast.parse(content, filename=str(path), feature_version=OLDEST_PYTHON)
    except SyntaxError as error:
        line = f":{error.lineno}" if error.lineno else ""
        raise UnreadableModel(
            f"{path}{line}: {error.msg}", hint="mend the scoring script"
        ) from error
    except ValueError as error:  # a null byte, before Python 3.11.4
        raise UnreadableModel(f"{path}: {error}", hint="mend the scoring script") from error
    missing = [name for name in ("init", "run") if name not in _bound(tree)]
    if missing:
        names = " and ".join(f"{name}()" for name in missing)
        return content, (f"{path.name} defines no {names}, which a scoring script needs",)
    return content, ()


def _bound(tree: ast.Module) -> set[str]:
    """Names a module surely or possibly binds at its top level."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(each.asname or each.name for each in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names | ({"init", "run"} if "*" in names else set())
