"""The files of a layer together with their content, in memory or on disk."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mlpack.oci.image import Layer
from mlpack.oci.layer import Entry, write_layer
from mlpack.stores.store import StagingStore

Advance = Callable[[int], None]
"""Progress callback, called with the number of bytes made; it raises to stop the work."""


@dataclass(frozen=True, slots=True)
class LayerFile:
    """One entry of a layer; ``content`` is a file's content, or the path of it."""

    entry: Entry
    content: bytes | Path = b""

    @property
    def path(self) -> str:
        """The path in the image."""
        return self.entry.path

    def read(self) -> bytes:
        """Return the content of a file."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


def file(path: str, content: bytes | Path, mode: int = 0o644) -> LayerFile:
    """Return a regular file."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    return LayerFile(Entry(path, "file", mode, size), content)


def text(path: str, content: str) -> LayerFile:
    """Return a regular file of UTF-8 text."""
    return file(path, content.encode())


def symlink(path: str, target: str) -> LayerFile:
    """Return a symbolic link."""
    return LayerFile(Entry(path, "symlink", 0o777, target=target))


def folder(path: str, mode: int = 0o755) -> LayerFile:
    """Return a directory; only empty ones are needed, because parents are added."""
    return LayerFile(Entry(path, "directory", mode))


def pack(store: StagingStore, items: Iterable[LayerFile], advance: Advance) -> Layer:
    """Write one layer of ``items`` into ``store``; call ``advance`` with each file's size."""
    found = {item.path: item for item in items}

    @contextmanager
    def open_file(path: str) -> Iterator[BinaryIO]:
        content = found[path].content
        advance(found[path].entry.size)
        with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as opened:
            yield opened

    with store.stage() as out:
        layer = write_layer((item.entry for item in found.values()), open_file, out)
        out.commit(layer.descriptor)
    return layer
