"""What every importer returns, and the careful reading of the user's files they share."""

from __future__ import annotations

import hashlib
import io
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from mlpack.errors import MlpackError
from mlpack.model.version import Framework, ModelFile, Signature
from mlpack.oci.digest import Digest
from mlpack.oci.tree import check_path
from mlpack.stores.base import CHUNK


class UnreadableModel(MlpackError):
    """A file or directory that cannot be registered as a model."""

    hint = "mlpack registers ONNX files, directories, and scikit-learn pickles (--trust-pickle)"


@dataclass(frozen=True, kw_only=True)
class Graph:
    """What an ONNX file says of itself."""

    signature: Signature
    ir_version: int
    opsets: Mapping[str, int]
    domains: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A model as found, before it has a name."""

    framework: Framework
    content: Mapping[str, Path | bytes]
    """Path in the model version → the file to read, or bytes made here."""

    graph: Graph | None = None
    notes: tuple[str, ...] = field(default=())
    """What the user should know, a sentence each."""

    def open(self, path: str) -> BinaryIO:
        """Open one file of it."""
        found = self.content[path]
        return io.BytesIO(found) if isinstance(found, bytes) else found.open("rb")


@contextmanager
def opened(source: ModelSource, path: str) -> Iterator[BinaryIO]:
    """Open the file ``path`` of ``source`` while the block runs."""
    with source.open(path) as content:
        yield content


def measure(source: ModelSource) -> tuple[ModelFile, ...]:
    """Size and digest of every file, in the order of their paths; memory stays flat."""
    found = []
    for path in sorted(source.content):
        check_path(path)
        if not path.isprintable():
            raise UnreadableModel(
                f"the file name {path!r} holds a line break or control character",
                hint="rename the file",
            )
        with source.open(path) as content:
            found.append(replace(measure_file(content), path=path))
    return tuple(found)


def measure_file(content: BinaryIO) -> ModelFile:
    """Read ``content`` to its end; the path of what is returned is empty."""
    running, size = hashlib.sha256(), 0
    while chunk := content.read(CHUNK):
        running.update(chunk)
        size += len(chunk)
    return ModelFile("", size, Digest(running.hexdigest()))


def require_regular(path: Path) -> int:
    """The size of the regular file ``path``; raise for one that is missing, empty or special.

    Asked before a file is opened: opening a FIFO would wait for ever.
    """
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise UnreadableModel(f"{path} does not exist", hint="check the path") from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a directory" if stat.S_ISDIR(found.st_mode) else "a device, socket or pipe"
        raise UnreadableModel(f"{path} is {kind}, not a file", hint="name a file")
    if not found.st_size:
        raise UnreadableModel(f"{path} is empty (0 bytes)", hint="export the model again")
    return found.st_size


def first_line(error: BaseException) -> str:
    """What ``error`` says, on one line of at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(" .:")
