"""Check data: what models are compared on, read from the user's file, and the models' answers."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import util
from pathlib import Path

import numpy as np

from mlpack.delta.agreement import Array, Outputs
from mlpack.errors import MlpackError
from mlpack.model.check import LABELS, BadCheck, Check
from mlpack.runtime.problems import BadRequest
from mlpack.runtime.settings import NotServable
from mlpack.stores.importers.source import first_line
from mlpack.stores.patch_files import mapped

MAX_BYTES = 1 << 32
"""Of all arrays in a file of check data, unpacked: they are in memory at once."""

_MAX_ARRAYS = 1024


class NoOnnxruntime(MlpackError):
    """A Python that lacks what runs models."""

    hint = "pip install 'mlpack-edge[serve]'"


def read_check(path: Path) -> Check:
    """Read the file of check data at ``path`` (.npz); nothing in it is unpickled.

    Raises :class:`BadCheck` and :class:`~mlpack.stores.patch_files.NotAFile`.
    """
    with mapped(path) as content:
        sha256 = hashlib.sha256(content).hexdigest()
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = dict(_members(archive))
    except BadCheck as error:
        raise BadCheck(f"{path}: {error}", hint=error.hint) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadCheck(f"{path} is no .npz file: {first_line(error)}") from error
    if not arrays:
        raise BadCheck(f"{path} holds no array")
    labels = arrays.pop(LABELS, None)
    return Check(name=str(path), sha256=sha256, arrays=arrays, labels=labels)


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[str, Array]]:
    left = MAX_BYTES
    members = archive.infolist()
    if len(members) > _MAX_ARRAYS:
        raise BadCheck(f"it holds {len(members)} arrays, {_MAX_ARRAYS} is the most")
    for each in members:
        left -= each.file_size
        if left < 0:
            raise BadCheck(f"it unpacks to more than {MAX_BYTES >> 30} GiB: take fewer rows")
        # The bytes that the archive says there are, and no more of what a bomb unpacks to.
        with archive.open(each) as packed:
            content = packed.read(each.file_size)
        yield each.filename.removesuffix(".npy"), _array(each.filename, content)


def _array(name: str, content: bytes) -> Array:
    from mlpack.runtime.tensors import read_npy

    try:
        return read_npy(content)
    except BadRequest as error:
        reason = error.message.partition(": ")[2]
        raise BadCheck(f"{name!r} is no array of numbers or texts: {reason}") from error


@dataclass(frozen=True, slots=True)
class Answers:
    """A model's outputs for each batch, by name."""

    outputs: tuple[Outputs, ...]
    rows: int


def onnxruntime_version() -> str:
    """The version of onnxruntime here; raise :class:`NoOnnxruntime`."""
    missing = [each for each in ("onnxruntime", "orjson") if util.find_spec(each) is None]
    if missing:
        raise NoOnnxruntime(f"to compare models {' and '.join(missing)} must be installed")
    import onnxruntime

    return str(onnxruntime.__version__)


def answers(
    folder: Path, check: Check, *, advance: Callable[[int], object] = lambda _: None
) -> Answers:
    """What the ONNX model in ``folder`` answers, by the runtime that devices run.

    ``advance`` is told how many rows are done. Raises :class:`BadCheck` where the model does
    not take the data, and where it cannot be loaded.
    """
    from mlpack.runtime.onnx import find_onnx, open_model

    try:
        model = open_model(find_onnx(folder))
    except NotServable as error:
        raise BadCheck(
            str(error).replace(f"{folder}", "the model"), hint="mlpack serve shows what it needs"
        ) from error
    batches = check.fitted(model.signature)
    made = []
    for number, each in enumerate(batches.inputs):
        try:
            found = model.run(each)
        except BadRequest as error:
            raise BadCheck(f"{check.name}: {error.message}") from error
        except Exception as error:  # onnxruntime's own errors share no class
            raise BadCheck(f"{check.name}: the model fails on it: {first_line(error)}") from error
        made.append({name: _plain(name, value) for name, value in found.items()})
        done = batches.rows * (number + 1) // len(batches.inputs)
        advance(done - batches.rows * number // len(batches.inputs))
    return Answers(tuple(made), batches.rows)


def _plain(name: str, value: object) -> Array:
    """An output as an array; the maps of classifiers as a row for each, in the keys' order."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        keys = sorted(value[0], key=str)
        if all(set(each) == set(keys) for each in value):
            return np.array([[each[key] for key in keys] for each in value])
    raise BadCheck(
        f"output {name!r} is no tensor, and cannot be compared",
        hint="convert the model so that it gives tensors (skl2onnx: zipmap=False)",
    )
