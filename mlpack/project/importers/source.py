"""The sources of a registration: a model's files, its scoring script, its commit."""

from __future__ import annotations

import ast
import hashlib
import io
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from mlpack.errors import MlpackError
from mlpack.model.comparison import Comparison
from mlpack.model.rows import NOT_TRIED, Independence
from mlpack.model.version import Framework, ModelFile, ModelSignature
from mlpack.oci.descriptor import Digest, check_path
from mlpack.stores.files import NotAFile, open_file, read_file, require_file
from mlpack.stores.store import CHUNK


class UnreadableModel(MlpackError):
    """A file or directory that cannot be registered as a model."""

    hint = "mlpack registers ONNX files, directories, and scikit-learn pickles (--trust-pickle)"


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The metadata of an ONNX file."""

    signature: ModelSignature
    ir_version: int
    opsets: Mapping[str, int]
    domains: tuple[str, ...]
    independence: Independence = NOT_TRIED


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A model that was read, before it has a name."""

    framework: Framework
    content: Mapping[str, Path | bytes]
    """The file to read, or bytes made here, by path in the model version."""

    graph: Graph | None = None
    notes: tuple[str, ...] = field(default=())
    """Notes for the user, a sentence each."""

    compared: Comparison | None = None
    """How it answers compared with the estimator it was converted from."""

    def open(self, path: str) -> BinaryIO:
        """Open one file of it."""
        found = self.content[path]
        return io.BytesIO(found) if isinstance(found, bytes) else open_file(found)


@contextmanager
def opened(source: ModelSource, path: str) -> Iterator[BinaryIO]:
    """Open the file ``path`` of ``source`` while the block runs."""
    with source.open(path) as content:
        yield content


def measure(source: ModelSource) -> tuple[ModelFile, ...]:
    """Return size and digest of every file, ordered by path; memory stays flat."""
    found = []
    for path in sorted(source.content):
        check_file_name(path)
        with source.open(path) as content:
            found.append(replace(measure_file(content), path=path))
    return tuple(found)


def check_file_name(path: str) -> None:
    """Raise unless ``path`` can be in an image, and on one line."""
    check_path(path)
    if not path.isprintable():
        raise UnreadableModel(
            f"the file name {path!r} holds a line break or control character",
            hint="rename the file",
        )


def measure_file(content: BinaryIO) -> ModelFile:
    """Read ``content`` to its end; the path of what is returned is empty."""
    running, size = hashlib.sha256(), 0
    while chunk := content.read(CHUNK):
        running.update(chunk)
        size += len(chunk)
    return ModelFile("", size, Digest(running.hexdigest()))


def require_regular(path: Path) -> int:
    """Return the size of a regular file; raise if it is missing, empty or special."""
    try:
        size = require_file(path)
    except NotAFile as error:
        raise UnreadableModel(str(error), hint=error.hint) from error
    if not size:
        raise UnreadableModel(f"{path} is empty (0 bytes)", hint="export the model again")
    return size


def utf8(text: str | bytes) -> str:
    """Return a text of an ONNX file; protobuf returns bytes if it is not UTF-8."""
    if isinstance(text, bytes):
        raise UnreadableModel(
            f"a name in the model is not UTF-8: {text!r}", hint="rename it, and export it again"
        )
    return text


def first_line(error: BaseException) -> str:
    """Return the message of ``error`` on one line of at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(" .:")


MAX_BYTES = 1024 * 1024
OLDEST_PYTHON = (3, 11)
"""The Python of debian:bookworm; newer syntax would fail on the device."""


def read_scoring(path: Path) -> tuple[str, ...]:
    """Return notes on the scoring script for the user; raise if Python cannot parse it."""
    require_regular(path)
    tree = parse_script(path)
    missing = [name for name in ("init", "run") if name not in _bound(tree)]
    if missing:
        names = " and ".join(f"{name}()" for name in missing)
        return (f"{path.name} defines no {names}, which a scoring script needs",)
    return ()


def parse_script(path: Path) -> ast.Module:
    """Parse a script or a module of it, which may be empty; raise :class:`UnreadableModel`."""
    size = require_file(path)
    if size > MAX_BYTES:
        raise UnreadableModel(
            f"{path} is {size} bytes, more than the {MAX_BYTES} of a scoring script",
            hint="put data into the model's directory and read it from AZUREML_MODEL_DIR",
        )
    try:
        return ast.parse(read_file(path), filename=str(path), feature_version=OLDEST_PYTHON)
    except SyntaxError as error:
        line = f":{error.lineno}" if error.lineno else ""
        raise UnreadableModel(
            f"{path}{line}: {error.msg}", hint="correct the scoring script"
        ) from error
    except RecursionError as error:
        raise UnreadableModel(
            f"{path} is nested too deeply for Python", hint="correct the scoring script"
        ) from error
    except ValueError as error:  # a null byte, before Python 3.11.4
        raise UnreadableModel(f"{path}: {error}", hint="correct the scoring script") from error


def _bound(tree: ast.Module) -> set[str]:
    """Return the names that a module binds, or may bind, at its top level."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(each.asname or each.name for each in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names | ({"init", "run"} if "*" in names else set())


def source_commit(directory: Path) -> str:
    """Return the checked-out commit, with ``-dirty`` if files differ from it; empty without git.

    That a version is known by its commit is a convenience: nothing that goes
    wrong here may stop a registration.
    """
    git = shutil.which("git")
    if git is None:
        return ""
    # An excluded-everything describe is the one call that tells commit and state together.
    command = [git, "-C", str(directory), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
