"""The external data of an ONNX file: the files next to it that hold its weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mlpack.project.importers.links import lies_in
from mlpack.project.importers.source import UnreadableModel, require_regular, utf8

if TYPE_CHECKING:
    from onnx import TensorProto

_BESIDE = "keep the model and its external data in one directory, without links out of it"


def external_files(
    model: Path, tensors: Iterable[TensorProto], folders: Sequence[Path]
) -> dict[str, Path]:
    """Return the files that ``tensors`` name, by their path relative to the model's directory.

    A file must lie in that directory or below it, or behind a link into ``folders``, and hold what
    the tensor says it holds there. Raises :class:`UnreadableModel`.
    """
    found: dict[str, Path] = {}
    for tensor in tensors:
        if tensor.data_location != tensor.EXTERNAL:
            continue
        said = {utf8(each.key): utf8(each.value) for each in tensor.external_data}
        location = said.get("location", "")
        path = str(PurePosixPath(location))  # onnxruntime takes ./weights as well
        if path not in found:
            found[path] = _beside(model, location, folders)
        _check_span(model, tensor, said, found[path])
    return found


def _beside(model: Path, location: str, folders: Sequence[Path]) -> Path:
    named = PurePosixPath(location)
    if not location or named.is_absolute() or ".." in named.parts or "\\" in location:
        raise UnreadableModel(
            f"{model} keeps weights at {location!r}, outside its directory", hint=_BESIDE
        )
    path = model.parent / named
    if not lies_in(path, folders):
        raise UnreadableModel(
            f"{model} keeps weights at {location!r}, a link out of its directory", hint=_BESIDE
        )
    if not path.exists():
        raise UnreadableModel(
            f"{model} keeps weights in {location!r}, which is missing",
            hint="put the external data file next to the model",
        )
    require_regular(path)
    return path


def _check_span(model: Path, tensor: TensorProto, said: dict[str, str], path: Path) -> None:
    """Refuse a tensor that declares more bytes than its file has, before they are allocated."""
    try:
        offset, length = int(said.get("offset", "0")), int(said.get("length", "0"))
    except ValueError as error:
        raise UnreadableModel(
            f"{model}: tensor {tensor.name!r} has an offset or length that is not a number"
        ) from error
    needed = max(length, _bytes_of(tensor))
    size = path.stat().st_size
    if offset < 0 or length < 0 or offset + needed > size:
        raise UnreadableModel(
            f"{model}: tensor {tensor.name!r} declares {needed} bytes at {offset} of "
            f"{path.name}, which has {size}",
            hint="copy the external data file again, whole",
        )


def _bytes_of(tensor: TensorProto) -> int:
    """Return the bytes of the declared shape; 0 for element types without a fixed size."""
    from onnx import TensorProto

    widths = {
        TensorProto.FLOAT: 4,
        TensorProto.DOUBLE: 8,
        TensorProto.FLOAT16: 2,
        TensorProto.BFLOAT16: 2,
        TensorProto.INT8: 1,
        TensorProto.UINT8: 1,
        TensorProto.BOOL: 1,
        TensorProto.INT16: 2,
        TensorProto.UINT16: 2,
        TensorProto.INT32: 4,
        TensorProto.UINT32: 4,
        TensorProto.INT64: 8,
        TensorProto.UINT64: 8,
    }
    count = widths.get(tensor.data_type, 0)  # type: ignore[call-overload]
    for size in tensor.dims:
        count *= max(0, size)
    return int(count)
