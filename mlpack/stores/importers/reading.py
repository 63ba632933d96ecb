"""Choosing the importer for what the user gave."""

from __future__ import annotations

from pathlib import Path

from mlpack.errors import UsageError
from mlpack.stores.importers.directory import PICKLES, read_directory
from mlpack.stores.importers.estimator import read_estimator
from mlpack.stores.importers.onnx_file import read_onnx
from mlpack.stores.importers.source import ModelSource, require_regular

_PICKLE_MARK = b"\x80"
"""Pickle's PROTO opcode, the first byte of every pickle since protocol 2."""


def read_model(path: Path, *, trust_pickle: bool, features: int | None) -> ModelSource:
    """Read the model at ``path``; raise :class:`~.source.UnreadableModel` naming what is wrong."""
    if not path.is_dir() and _is_estimator(path):
        return read_estimator(path, trusted=trust_pickle, features=features)
    if features is not None:
        raise UsageError(
            f"{path} is no estimator, and says its columns itself", hint="leave --features out"
        )
    return read_directory(path) if path.is_dir() else read_onnx(path)


def _is_estimator(path: Path) -> bool:
    require_regular(path)
    if path.suffix == ".onnx" or path.suffix in PICKLES:
        return path.suffix in PICKLES
    with path.open("rb") as content:
        return content.read(1) == _PICKLE_MARK
