"""Validation data, read from the user's file, and the answers of models to it."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import util
from pathlib import Path

import numpy as np

from mlpack.errors import MlpackError
from mlpack.installation import install_command
from mlpack.model.validation_data import LABELS, InvalidValidationData, ValidationData
from mlpack.project.importers.source import first_line
from mlpack.runtime.http_errors import BadRequest
from mlpack.runtime.settings import NotServable
from mlpack.stores.files import open_file
from mlpack.stores.patch_files import mapped
from mlpack.tensor_patch.output_comparison import Array, Outputs

MAX_BYTES = 1 << 32
"""The limit for all arrays of a file, unpacked: they are in memory at once."""

_MAX_ARRAYS = 1024


class NoOnnxruntime(MlpackError):
    """A Python without the packages that run models."""


def read_check(path: Path) -> ValidationData:
    """Read the validation data at ``path`` (.npz); nothing in it is unpickled.

    Raises :class:`InvalidValidationData` and :class:`~mlpack.stores.files.NotAFile`.
    """
    with mapped(path) as content:
        sha256 = hashlib.sha256(content).hexdigest()
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            arrays = dict(_members(archive))
    except InvalidValidationData as error:
        raise InvalidValidationData(f"{path}: {error}", hint=error.hint) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InvalidValidationData(f"{path} is not an .npz file: {first_line(error)}") from error
    if not arrays:
        raise InvalidValidationData(f"{path} holds no array")
    labels = arrays.pop(LABELS, None)
    return ValidationData(name=str(path), sha256=sha256, arrays=arrays, labels=labels)


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[str, Array]]:
    left = MAX_BYTES
    members = archive.infolist()
    if len(members) > _MAX_ARRAYS:
        raise InvalidValidationData(f"it holds {len(members)} arrays, more than {_MAX_ARRAYS}")
    for each in members:
        left -= each.file_size
        if left < 0:
            raise InvalidValidationData(
                f"it unpacks to more than {MAX_BYTES >> 30} GiB: take fewer rows"
            )
        # Not more bytes than the archive declares: a bomb unpacks to more.
        with archive.open(each) as packed:
            content = packed.read(each.file_size)
        yield each.filename.removesuffix(".npy"), _array(each.filename, content)


def _array(name: str, content: bytes) -> Array:
    from mlpack.runtime.tensors import read_npy

    try:
        return read_npy(content)
    except BadRequest as error:
        reason = error.message.partition(": ")[2]
        raise InvalidValidationData(
            f"{name!r} is not an array of numbers or texts: {reason}"
        ) from error


@dataclass(frozen=True, slots=True)
class Answers:
    """A model's outputs for each batch, by name."""

    outputs: tuple[Outputs, ...]
    rows: int


def onnxruntime_version() -> str:
    """Return the version of onnxruntime; raise :class:`NoOnnxruntime`."""
    missing = [each for each in ("onnxruntime", "orjson") if util.find_spec(each) is None]
    if missing:
        raise NoOnnxruntime(
            f"to compare models {' and '.join(missing)} must be installed",
            hint=f"install the extra serve: {install_command('serve')}",
        )
    import onnxruntime

    return str(onnxruntime.__version__)


def answers(folder: Path, check: ValidationData, *, rows: int | None = None) -> Answers:
    """Score validation data with the ONNX model in ``folder``, by the runtime that devices run.

    With ``rows`` it is those of the first batches, at least one. Raises
    :class:`InvalidValidationData` if the model does not take the data or cannot be loaded.
    """
    from mlpack.runtime.onnx import find_onnx, open_model

    try:
        model = open_model(find_onnx(folder))
    except NotServable as error:
        raise InvalidValidationData(
            str(error).replace(f"{folder}", "the model"), hint="mlpack serve shows what it needs"
        ) from error
    batches = check.fitted(model.signature)
    made = []
    count = len(batches.inputs)
    for each in batches.inputs[: rows and max(rows * count // batches.rows, 1)]:
        try:
            found = model.run(each)
        except BadRequest as error:
            raise InvalidValidationData(f"{check.name}: {error.message}") from error
        except Exception as error:  # onnxruntime's own errors share no class
            raise InvalidValidationData(
                f"{check.name}: the model fails on it: {first_line(error)}"
            ) from error
        made.append({name: _plain(name, value) for name, value in found.items()})
    return Answers(tuple(made), batches.rows)


def _plain(name: str, value: object) -> Array:
    """Return an output as an array; a classifier's maps become rows, in the order of keys."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        keys = sorted(value[0], key=str)
        if all(set(each) == set(keys) for each in value):
            return np.array([[each[key] for key in keys] for each in value])
    raise InvalidValidationData(
        f"output {name!r} is not a tensor, and cannot be compared",
        hint="convert the model so that it outputs tensors (skl2onnx: zipmap=False)",
    )
