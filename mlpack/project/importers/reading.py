"""Read a model from a file, a directory or a pickled estimator."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from mlpack.errors import UsageError
from mlpack.oci.descriptor import UnsafeEntry, check_path
from mlpack.project.importers import recipes
from mlpack.project.importers.estimator import EstimatorOptions, read_estimator
from mlpack.project.importers.links import allowed_folders, lies_in, snapshots
from mlpack.project.importers.onnx_file import read_onnx
from mlpack.project.importers.recognise import (
    is_onnx,
    recognise,
    recognise_folder,
    recognise_protobuf,
)
from mlpack.project.importers.source import (
    ModelSource,
    UnreadableModel,
    require_regular,
)

MAX_FILES = 10_000
"""Each file takes some 250 bytes of the version's manifest, which may be 4 MiB."""

IGNORED = frozenset({".git", ".DS_Store", ".ipynb_checkpoints", "__pycache__"})
"""Files of tools, which are not part of a model."""

PICKLES = (".pkl", ".pickle", ".joblib")
_MODEL = "model.onnx"


def read_directory(root: Path) -> ModelSource:
    """Find the files of the directory ``root``; raise :class:`UnreadableModel`.

    ``model.onnx`` on top, or the only ONNX file in it, gives the signature and is
    checked as a single file would be.
    """
    _require_snapshot(root)
    files: dict[str, Path] = {}
    ignored: set[str] = set()
    for path, real in _walk(root, allowed_folders(root), (root.resolve(),)):
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
    served = _served(root, files)
    foreign = None if served else recognise_folder(files)
    if foreign:
        notes.append(f"{root} is {foreign.name}: a scoring script must load it; {foreign.remedy}")
    return ModelSource(
        framework="directory",
        content=files,
        graph=served.graph if served else None,
        notes=(*notes, *(served.notes if served else ())),
    )


def _require_snapshot(root: Path) -> None:
    """Refuse a whole model of Hugging Face's cache, which holds each file several times."""
    found = snapshots(root)
    if found:
        raise UnreadableModel(
            f"{root} is a model's folder in Hugging Face's cache, with its blobs and snapshots",
            hint=f"register a snapshot: {found[-1]}",
        )


def _walk(
    folder: Path, roots: tuple[Path, ...], above: tuple[Path, ...]
) -> Iterator[tuple[str, Path]]:
    """Yield paths below ``folder`` and files to read, which lie in one of ``roots``.

    ``above`` finds circular links.
    """
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda each: each.name)
    for entry in listed:
        path = Path(entry.path)
        target = _resolved(path, roots)
        _require_name(entry.name, folder)
        mode = target.stat().st_mode
        if stat.S_ISDIR(mode):
            if target in above:
                raise UnreadableModel(
                    f"{path} is a link to a directory it lies in", hint="remove it"
                )
            for below, real in _walk(path, roots, (*above, target)):
                yield f"{entry.name}/{below}", real
        elif stat.S_ISREG(mode):
            yield entry.name, target
        else:
            raise UnreadableModel(
                f"{path} is a device, socket or pipe: a model holds files only",
                hint="remove it from the directory",
            )


def _resolved(path: Path, roots: tuple[Path, ...]) -> Path:
    try:
        target = path.resolve(strict=True)
    except FileNotFoundError as error:
        raise UnreadableModel(
            f"{path} is a link to nothing", hint="remove it, or put the file there"
        ) from error
    except (OSError, RuntimeError) as error:
        raise UnreadableModel(f"{path} is a circular link", hint="remove it") from error
    if not lies_in(target, roots):
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


def _served(root: Path, files: dict[str, Path]) -> ModelSource | None:
    """Read the ONNX file that is served without a script: ``model.onnx``, or the only one."""
    found = [path for path in files if path.endswith(".onnx")]
    if _MODEL in found:
        found = [_MODEL]
    return read_onnx(root / found[0], root) if len(found) == 1 else None


def _pickle_notes(files: dict[str, Path]) -> Iterator[str]:
    pickles = [path for path in files if path.endswith(PICKLES)]
    if pickles:
        yield (
            f"{', '.join(pickles[:3])}{' …' if len(pickles) > 3 else ''}: whoever loads a pickle "
            "runs the code in it; ship ONNX where you can"
        )


def read_model(path: Path, options: EstimatorOptions | None = None) -> ModelSource:
    """Read the model at ``path``; ``options`` are for an estimator.

    Raises :class:`~.source.UnreadableModel` and what
    :func:`~mlpack.project.importers.estimator.read_estimator` raises.
    """
    options = options or EstimatorOptions()
    if not path.is_dir() and _is_estimator(path):
        return read_estimator(path, options)
    for value, flag in ((options.features, "--features"), (options.check, "--check")):
        if value is not None:
            raise UsageError(
                f"{path} is not an estimator and declares its own inputs",
                hint=f"leave {flag} out",
            )
    return read_directory(path) if path.is_dir() else read_onnx(path)


def _is_estimator(path: Path) -> bool:
    require_regular(path)
    if path.suffix == ".onnx":
        return False
    found = recognise(path)
    if found is recipes.PICKLE or path.suffix not in PICKLES:
        return found is recipes.PICKLE
    # joblib compresses: such a file is a pickle by its name alone.
    if found is None:
        return not is_onnx(path) and recognise_protobuf(path) is None
    return found is recipes.GZIP
