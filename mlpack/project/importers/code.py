"""The code of a release: the scoring script, and the modules and files shipped with it.

Azure ML ships the whole source directory. So does mlpack if the script lies in one that the user
names; otherwise it follows the script's imports, and ships the modules next to it that they name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlpack.errors import UsageError
from mlpack.model.version import SCORING, ModelFile, check_script_path
from mlpack.project.importers.links import allowed_folders, lies_in
from mlpack.project.importers.script_imports import Imported, follow
from mlpack.project.importers.source import (
    UnreadableModel,
    check_file_name,
    measure_file,
    read_scoring,
)
from mlpack.stores.files import open_file

MAX_CODE_FILES = 2_000
"""Each takes some 250 bytes of the version's document."""

_SHOWN = 5

_TOOLS = frozenset({"__pycache__", "node_modules"})
_SECRETS = frozenset({".env", ".jks", ".kdbx", ".key", ".keystore", ".p12", ".pem", ".pfx"})
_SECRET_NAMES = frozenset({"credentials", "id_dsa", "id_ecdsa", "id_ed25519", "id_rsa", "secrets"})
_COMPILED = frozenset({".pyc", ".pyo"})
_ENVIRONMENT = "pyvenv.cfg"


@dataclass(frozen=True, kw_only=True)
class Code:
    """A scoring script, and what is shipped with it."""

    script: ModelFile
    files: tuple[ModelFile, ...] = ()
    """Modules and other files, in the order of their paths."""

    places: Mapping[str, Path] = field(default_factory=dict)
    """Where each file and the script is, by its path in the release."""

    imports: frozenset[str] = frozenset()
    """Top-level names of modules that must be installed."""

    notes: tuple[str, ...] = ()


def read_code(script: Path, directory: Path | None = None, model: Path | None = None) -> Code:
    """Read the scoring script, and the files of its source ``directory``, or what it imports.

    The ``model`` is not shipped a second time. Raises :class:`~.source.UnreadableModel`, and
    :class:`~mlpack.errors.UsageError` if the script is not in the directory.
    """
    notes = read_scoring(script)
    if directory is None:
        return _with_imports(script, notes, model)
    root, file = directory.resolve(), script.parent.resolve() / script.name
    if not file.is_relative_to(root):
        raise UsageError(
            f"{script} is not in the source directory {directory}",
            hint="name the directory that holds the script",
        )
    places: dict[str, Path] = {}
    left: set[str] = set()
    for path, found in _walk(root, allowed_folders(root), left):
        if model is None or found != model.resolve():
            places[path] = found
    if len(places) > MAX_CODE_FILES:
        raise UnreadableModel(
            f"{directory} holds more than {MAX_CODE_FILES} files to ship with the script",
            hint="keep the sources in a directory of their own",
        )
    if left:
        notes = (*notes, f"not shipped from {directory}: {_listed(sorted(left))}")
    name = file.relative_to(root).as_posix()
    made = _measured(name, {**places, name: file}, notes)
    return replace(made, imports=follow(file, (file.parent, root)).others)


def _with_imports(script: Path, notes: tuple[str, ...], model: Path | None) -> Code:
    found = follow(script, (script.parent,))
    notes = (*notes, *_read_files(script, found, model))
    if len(found.modules) == 1:
        # Alone it has one path whatever it is called: renamed, it is the same content.
        return replace(_measured(SCORING, {SCORING: script}, notes), imports=found.others)
    made = _measured(script.name, found.modules, notes)
    shipped = f"{script.name} is shipped with {_listed([each.path for each in made.files])}"
    return replace(made, imports=found.others, notes=(*notes, shipped))


def _read_files(script: Path, found: Imported, model: Path | None) -> Iterator[str]:
    """Say which files next to the script its code names, and are not shipped."""
    shipped = [*found.modules.values(), *([model] if model else [])]
    kept = [each.resolve() for each in shipped]
    named = [
        text
        for text in sorted(found.texts)
        if not Path(text).is_absolute()
        and (script.parent / text).is_file()
        and not lies_in(script.parent / text, kept)
    ]
    if named:
        yield (
            f"{script.name} names {_listed(named)}, which is not shipped with it: if it reads that "
            f"file there, register with --code {script.parent}"
        )


def _measured(script: str, places: Mapping[str, Path], notes: tuple[str, ...]) -> Code:
    found = []
    for path in sorted(places):
        check_script_path(path)
        check_file_name(path)
        with open_file(places[path]) as content:
            found.append(replace(measure_file(content), path=path))
    return Code(
        script=next(each for each in found if each.path == script),
        files=tuple(each for each in found if each.path != script),
        places=places,
        notes=notes,
    )


def _walk(folder: Path, roots: tuple[Path, ...], left: set[str]) -> Iterator[tuple[str, Path]]:
    """Yield the files of a source directory by their paths below it; add others to ``left``."""
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda each: each.name)
    for entry in listed:
        path = Path(entry.path)
        if _is_left_out(path):
            left.add(entry.name)
        elif entry.is_dir(follow_symlinks=False):
            for below, file in _walk(path, roots, left):
                yield f"{entry.name}/{below}", file
        elif path.is_file() and lies_in(path, roots):
            yield entry.name, path.resolve()
        elif path.is_dir() or not path.is_symlink():
            left.add(entry.name)
        else:
            raise UnreadableModel(
                f"{path} is a link to nothing, or out of the source directory",
                hint="copy the file itself into the directory, or remove the link",
            )


def _is_left_out(path: Path) -> bool:
    """Return whether a file or folder is hidden, of a tool, or likely to hold a secret."""
    name = path.name.lower()
    secret = path.suffix.lower() in _SECRETS or path.stem.lower() in _SECRET_NAMES
    return (
        name.startswith(".")
        or name in _TOOLS
        or path.suffix in _COMPILED
        or (secret and path.suffix != ".py")
        or (path / _ENVIRONMENT).is_file()
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
