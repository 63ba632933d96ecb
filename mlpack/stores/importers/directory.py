"""A directory as a model: every file in it, links followed but never out of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from mlpack.oci.tree import UnsafeEntry, check_path
from mlpack.stores.importers.onnx_file import read_onnx
from mlpack.stores.importers.source import Graph, ModelSource, UnreadableModel

MAX_FILES = 10_000
"""Each file takes some 250 bytes of the version's manifest, which may be 4 MiB."""

IGNORED = frozenset({".git", ".DS_Store", ".ipynb_checkpoints", "__pycache__"})
"""Left by tools, and no part of a model."""

PICKLES = (".pkl", ".pickle", ".joblib")
_MODEL = "model.onnx"


def read_directory(root: Path) -> ModelSource:
    """Find the files of the directory ``root``; raise :class:`UnreadableModel`.

    ``model.onnx`` on top, or the only ONNX file in it, gives the signature and is
    checked as a single file would be.
    """
    files: dict[str, Path] = {}
    ignored: set[str] = set()
    for path, real in _walk(root, root.resolve(), (root.resolve(),)):
        if IGNORED.intersection(path.split("/")):
            ignored.update(IGNORED.intersection(path.split("/")))
            continue
        files[path] = real
        if len(files) > MAX_FILES:
            raise UnreadableModel(
                f"{root} holds more than {MAX_FILES} files",
                hint="is it the right directory? pack small files into one otherwise",
            )
    if not files:
        raise UnreadableModel(f"{root} is an empty directory", hint="export the model into it")
    notes = [f"left out: {', '.join(sorted(ignored))}"] if ignored else []
    notes += _pickle_notes(files)
    return ModelSource(
        framework="directory", content=files, graph=_graph(root, files), notes=tuple(notes)
    )


def _walk(folder: Path, root: Path, above: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    """Yield path relative to ``root`` and the file to read; ``above`` finds links in a circle."""
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda each: each.name)
    for entry in listed:
        path = Path(entry.path)
        target = _resolved(path, root)
        _require_name(entry.name, folder)
        mode = target.stat().st_mode
        if stat.S_ISDIR(mode):
            if target in above:
                raise UnreadableModel(f"{path} is a link to a directory it lies in")
            for below, real in _walk(path, root, (*above, target)):
                yield f"{entry.name}/{below}", real
        elif stat.S_ISREG(mode):
            yield entry.name, target
        else:
            raise UnreadableModel(
                f"{path} is a device, socket or pipe: a model holds files only",
                hint="remove it from the directory",
            )


def _resolved(path: Path, root: Path) -> Path:
    try:
        target = path.resolve(strict=True)
    except FileNotFoundError as error:
        raise UnreadableModel(
            f"{path} is a link to nothing", hint="remove it, or put the file there"
        ) from error
    except (OSError, RuntimeError) as error:
        raise UnreadableModel(f"{path} is a link in a circle", hint="remove it") from error
    if not target.is_relative_to(root):
        raise UnreadableModel(
            f"{path} is a symlink out of the directory, to {target}",
            hint="copy the file itself into the directory",
        )
    return target


def _require_name(name: str, folder: Path) -> None:
    try:
        check_path(name)
    except UnsafeEntry as error:
        raise UnreadableModel(
            f"{folder} holds a file that cannot be in an image: {error}", hint="rename the file"
        ) from error


def _graph(root: Path, files: dict[str, Path]) -> Graph | None:
    found = [path for path in files if path.endswith(".onnx")]
    if _MODEL in found:
        found = [_MODEL]
    return read_onnx(root / found[0]).graph if len(found) == 1 else None


def _pickle_notes(files: dict[str, Path]) -> Iterator[str]:
    pickles = [path for path in files if path.endswith(PICKLES)]
    if pickles:
        yield (
            f"{', '.join(pickles[:3])}{' …' if len(pickles) > 3 else ''}: whoever loads a pickle "
            "runs the code in it; ship ONNX where you can"
        )
