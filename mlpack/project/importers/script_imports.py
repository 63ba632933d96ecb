"""The modules that a scoring script imports: those next to it, and the names of all others."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mlpack.project.importers.links import allowed_folders, lies_in
from mlpack.project.importers.source import UnreadableModel, parse_script

PROVIDED = frozenset({"azureml", "azureml_inference_server_http", "mlpack_runtime"})
"""Packages that the runtime provides."""

_ADDS = ("sys.path.append", "sys.path.insert")
_IMPORT_BY_NAME = ("importlib.import_module", "import_module", "__import__")
_LONGEST_PATH = 255
_LONGEST_NAME = 240
_BLOCKS = (ast.stmt, ast.excepthandler, ast.match_case)
"""What holds statements; they nest less deeply than expressions, which may hold thousands."""

_CAUGHT = frozenset({"BaseException", "Exception", "ImportError", "ModuleNotFoundError"})


@dataclass(frozen=True)
class Imported:
    """What a script imports, directly or through its own modules."""

    modules: dict[str, Path] = field(default_factory=dict)
    """The script and its modules: each file by its path relative to the folder it was found in."""

    others: frozenset[str] = frozenset()
    """Top-level names of modules that must be installed."""

    texts: frozenset[str] = frozenset()
    """Texts in the code, some of which are names of files that it reads."""


def follow(script: Path, folders: Sequence[Path]) -> Imported:
    """Follow the imports of ``script`` to the modules in ``folders``, where Python looks first.

    Nothing is imported. Raises :class:`~.source.UnreadableModel` if a module cannot be parsed.
    """
    modules, others = {script.name: script}, set[str]()
    texts: set[str] = set()
    places = [(PurePosixPath(), each) for each in folders]
    waiting = [(script, "")]
    while waiting:
        file, package = waiting.pop()
        tree = parse_script(file)
        texts.update(_texts(tree))
        places += _added(tree, script.parent)
        for name, needed in _names(tree, package):
            found = dict(_files(name, places))
            for path in sorted(found.keys() - modules.keys()):
                modules[path] = found[path]
                waiting.append((found[path], _package(path)))
            if needed and not found:
                others.add(name.partition(".")[0])
    installed = others - sys.stdlib_module_names - PROVIDED
    return Imported(modules, frozenset(installed), frozenset(texts))


def _texts(tree: ast.AST) -> Iterator[str]:
    """Yield the texts in the code that could be the path of a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
            if text and text.isprintable() and len(text.encode()) <= _LONGEST_PATH:
                yield text


def _added(tree: ast.AST, root: Path) -> Iterator[tuple[PurePosixPath, Path]]:
    """Yield the folders next to the script that the code adds to ``sys.path``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _dotted(node.func) in _ADDS:
            for text in _texts(node):
                path = PurePosixPath(text)
                if not path.is_absolute() and ".." not in path.parts and (root / path).is_dir():
                    yield path, root / path


def _package(path: str) -> str:
    """Return the dotted name of the package that the module at ``path`` belongs to."""
    return ".".join(PurePosixPath(path).parts[:-1])


def _names(tree: ast.Module, package: str) -> Iterator[tuple[str, bool]]:
    """Yield dotted names that may be modules, and whether the code fails without each."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _dotted(node.func) in _IMPORT_BY_NAME:
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value:
                yield first.value, False
    for node, needed in _imports(tree):
        if isinstance(node, ast.Import):
            yield from ((each.name, needed) for each in node.names)
            continue
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        place = ".".join(filter(None, above)) if node.level else ""
        name = ".".join(filter(None, (place, node.module)))
        if name:
            yield name, needed and not node.level
        yield from ((".".join(filter(None, (name, each.name))), False) for each in node.names)


def _imports(
    node: ast.AST, needed: bool = True
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Yield import statements in any block, but those for type checkers."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node, needed
    checked = isinstance(node, ast.If) and _dotted(node.test).endswith("TYPE_CHECKING")
    tried = isinstance(node, ast.Try) and any(map(_catches, node.handlers))
    for name, value in ast.iter_fields(node):
        if checked and name == "body":
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, _BLOCKS):
                yield from _imports(child, needed and not (tried and name == "body"))


def _dotted(node: ast.AST) -> str:
    """Return a name with the names before its dots, as in ``sys.path.append``."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    parts.append(node.id if isinstance(node, ast.Name) else "")
    return ".".join(reversed(parts))


def _catches(handler: ast.ExceptHandler) -> bool:
    """Return whether an import that fails is caught."""
    if handler.type is None:
        return True
    names = (each.id for each in ast.walk(handler.type) if isinstance(each, ast.Name))
    return not _CAUGHT.isdisjoint(names)


def _files(name: str, places: Sequence[tuple[PurePosixPath, Path]]) -> Iterator[tuple[str, Path]]:
    """Yield the files of the module ``name`` and of the packages above it, from the first folder.

    Each has its path in the release, which begins with that of the folder. A folder without
    ``__init__.py`` is a package, too (PEP 420).
    """
    parts = [part for part in name.split(".") if part]
    if not all(part.isidentifier() and len(part.encode()) < _LONGEST_NAME for part in parts):
        return
    for above, folder in places:
        found = dict(_files_in(folder, parts))
        if found:
            yield from ((str(above / path), file) for path, file in found.items())
            return


def _files_in(folder: Path, parts: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for count in range(1, len(parts) + 1):
        place = PurePosixPath(*parts[:count])
        for path in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if (folder / path).is_file():
                _require_inside(folder / path, folder)
                yield str(path), folder / path
                break
        if not (folder / place).is_dir():
            return


def _require_inside(file: Path, folder: Path) -> None:
    if not lies_in(file, allowed_folders(folder)):
        raise UnreadableModel(
            f"{file} is a link out of the script's directory",
            hint="copy the module itself next to the script",
        )
