"""Which framework a file or folder is of, by its bytes; nothing is unpickled or executed."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from mlpack.project.importers import recipes
from mlpack.project.importers.recipes import Foreign
from mlpack.stores.files import open_file

_HEAD = 1 << 16
_TEXT = 1 << 22
"""Bytes of a file that are searched for a word."""

_MAX_MEMBERS = 100_000

_MARKS: tuple[tuple[bytes, int, Foreign], ...] = (
    (b"version https://git-lfs", 0, recipes.LFS),
    (b"TFL3", 4, recipes.TFLITE),
    (b"ORTM", 4, recipes.ORT),
    (b"ET12", 4, recipes.EXECUTORCH),
    (b"GGUF", 0, recipes.GGUF),
    (b"CBM1", 0, recipes.CATBOOST),
    (b"ftrt", 0, recipes.TENSORRT),
    (b"tree\n", 0, recipes.LIGHTGBM),
    (b"tree\r\n", 0, recipes.LIGHTGBM),
    (b"binf", 0, recipes.XGBOOST),
    (b"RDX2\n", 0, recipes.R_OBJECT),
    (b"RDX3\n", 0, recipes.R_OBJECT),
    (b"X\n\0\0\0", 0, recipes.R_OBJECT),
    # PyTorch's number of its format before 1.6, pickled.
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", 0, recipes.TORCH),
)
"""Bytes, their offset, and the kind of file that has them."""

_PICKLE_MARK = b"\x80"
_NAMES = rb"(catboost|keras|lightgbm|torch|transformers|xgboost)"
_FRAMEWORKS = re.compile(
    rb"\x8c." + _NAMES + rb"(?:\.[.\w]+)?\x94?\x8c.[.\w]+\x94?\x93"  # protocol 4 and later
    rb"|c" + _NAMES + rb"(?:\.[.\w]+)?\n[.\w]+\n",
    re.DOTALL,
)
"""Instructions of a pickle that import a name of a framework (pickletools: STACK_GLOBAL, GLOBAL).

Their texts alone may be anything: ``ColumnTransformer`` has a member ``transformers``.
"""


def recognise(path: Path) -> Foreign | None:
    """Return what the file at ``path`` is if it is neither ONNX nor text without a known form."""
    with open_file(path) as content:
        start = content.read(_HEAD)
        found = next((each for mark, at, each in _MARKS if start[at:].startswith(mark)), None)
        if found is not None:
            return found
        if start.startswith(b"PK\x03\x04"):
            return _archive(path)
        if start.startswith(b"\x89HDF"):
            keras = any(word in _text(content) for word in (b"keras_version", b"model_weights"))
            return recipes.KERAS_HDF5 if keras else recipes.HDF5
        if start.startswith(b"\x1f\x8b"):
            return recipes.R_OBJECT if _unpacked(start).startswith(_R_MARKS) else recipes.GZIP
        if start.startswith(_PICKLE_MARK):
            return recipes.PICKLE
        return _structured(start, content)


_R_MARKS = (b"X\n", b"A\n2\n", b"A\n3\n", b"RDX2", b"RDX3", b"RDA")


def _structured(start: bytes, content: BinaryIO) -> Foreign | None:
    """Return what JSON, UBJSON, XML or safetensors hold."""
    if _is_safetensors(start):
        return recipes.SAFETENSORS
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith((b"{L", b"{l", b"{U", b"{i")) and b"learner" in start[:64]:
        return recipes.XGBOOST
    if text.startswith(b"{"):
        return _json(_text(content))
    if text.startswith(b"<"):
        return _markup(start[:4096])
    return None


def _is_safetensors(start: bytes) -> bool:
    """Whether a length and JSON of tensors come first (safetensors' README, *Format*)."""
    length = int.from_bytes(start[:8], "little")
    return start[8:10] == b'{"' and 2 <= length < 1 << 32 and b'"' in start[10:]


def _json(text: bytes) -> Foreign:
    if b'"learner"' in text and b'"gradient_booster"' in text:
        return recipes.XGBOOST
    if b'"oblivious_trees"' in text or (b'"features_info"' in text and b'"trees"' in text):
        return recipes.CATBOOST
    if b'"tree_info"' in text and b'"max_feature_idx"' in text:
        return recipes.LIGHTGBM
    if b'"class_name"' in text and b'"config"' in text:
        return recipes.KERAS
    if b'"model_type"' in text or b'"architectures"' in text:
        return recipes.HUGGING_FACE
    return recipes.JSON


def _markup(text: bytes) -> Foreign:
    if b"<PMML" in text:
        return recipes.PMML
    return recipes.OPENVINO if b"<net " in text else recipes.MARKUP


def _archive(path: Path) -> Foreign:
    """Return what a ZIP archive holds, by the names of its members."""
    try:
        with open_file(path) as content, zipfile.ZipFile(content) as archive:
            names = [each.filename for each in archive.infolist()[:_MAX_MEMBERS]]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        return recipes.ZIP
    last = {name.rpartition("/")[2] for name in names}
    if {"model.weights.h5", "metadata.json"} <= last:
        return recipes.KERAS
    if "constants.pkl" in last or any("/code/" in name for name in names):
        return recipes.TORCHSCRIPT
    if "data.pkl" in last:
        return recipes.TORCH
    if "archive_format" in last or "serialized_exported_program.json" in last:
        return recipes.TORCH_EXPORT
    if names and all(name.endswith(".npy") for name in names):
        return recipes.NUMPY
    return _members(dict.fromkeys(names)) or recipes.ZIP


def recognise_folder(files: Mapping[str, Path]) -> Foreign | None:
    """Return which framework's folder has these files, given by their paths in it."""
    found = _members(files)
    if found is not recipes.HUGGING_FACE:
        return found
    return found if recognise(files["config.json"]) is recipes.HUGGING_FACE else None


def _members(names: Mapping[str, object]) -> Foreign | None:
    last = {name.rpartition("/")[2] for name in names}
    if "MLmodel" in names:
        return recipes.MLFLOW
    if "saved_model.pb" in last or "saved_model.pbtxt" in last:
        return recipes.SAVED_MODEL
    if any(name.endswith(".mlmodel") for name in last) and "Manifest.json" in last:
        return recipes.COREML
    weights = any(name.endswith((".safetensors", "pytorch_model.bin")) for name in names)
    return recipes.HUGGING_FACE if weights and "config.json" in names else None


_CORE_ML_KINDS = range(200, 4000)
"""Fields of Core ML's Model.proto for the kinds of models; ONNX's ModelProto ends far below."""


def is_onnx(path: Path) -> bool:
    """Return whether the file begins as ONNX files do, and no pickle does, and has a graph."""
    with open_file(path) as content:
        return content.read(1) == b"\x08" and 7 in _fields(content)


def recognise_protobuf(path: Path) -> Foreign | None:
    """Return what a protobuf message that is not ONNX is: Core ML or TensorFlow."""
    with open_file(path) as content:
        start = content.read(_HEAD)
        fields = set(_fields(content))
        text = _text(content)
    if 1 in fields and any(each in _CORE_ML_KINDS for each in fields):
        return recipes.COREML
    if fields == {1, 2} and (b"serving_default" in text or b"\x22\x05serve" in text):
        return recipes.SAVED_MODEL
    return recipes.FROZEN_GRAPH if 1 in fields and _NODE.match(start) else None


_NODE = re.compile(rb"\x0a..?\x0a.[\w/.\-]+\x12.(Placeholder|Const|VarHandleOp|NoOp)", re.DOTALL)
"""The first node of TensorFlow's graph: its name and its operator."""


def _fields(content: BinaryIO) -> Iterator[int]:
    """Yield the numbers of a message's fields (protobuf.dev, *Encoding*), as far as it is one."""
    end = content.seek(0, 2)
    content.seek(0)
    for _ in range(_MAX_MEMBERS):
        key = _varint(content)
        if key is None:
            return
        yield key >> 3
        kind = key & 7
        if kind == 0:
            _varint(content)
        elif kind in (1, 5):
            content.seek(8 if kind == 1 else 4, 1)
        elif kind == 2:
            content.seek(min(_varint(content) or 0, end), 1)
        else:
            return


def _varint(content: BinaryIO) -> int | None:
    value = 0
    for shift in range(0, 63, 7):
        byte = content.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None


def pickled_framework(path: Path) -> str:
    """Return the framework that a pickle imports first, by its bytes; empty for none."""
    with open_file(path) as content:
        found = _FRAMEWORKS.search(content.read(_HEAD))
    return (found[1] or found[2]).decode() if found else ""


def _text(content: BinaryIO) -> bytes:
    content.seek(0)
    return content.read(_TEXT)


def _unpacked(start: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(start, 16)
    except zlib.error:
        return b""
