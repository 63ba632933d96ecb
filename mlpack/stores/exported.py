"""A model version's files as files, for programs that read only those."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlpack.model.version import ModelVersion
from mlpack.stores.models import ModelStore


@contextmanager
def exported(store: ModelStore, version: ModelVersion) -> Iterator[Path]:
    """The model's one file, or a directory of its files, until the block ends.

    The scoring script is not among them. Raises :class:`~mlpack.stores.base.Corrupt` where
    a file is not what was registered.
    """
    with temporary() as folder:
        top = folder / version.name
        for file in version.files:
            path = top / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with store.open_file(file) as content, path.open("wb") as out:
                shutil.copyfileobj(content, out)
        yield top / version.files[0].path if len(version.files) == 1 else top


@contextmanager
def temporary() -> Iterator[Path]:
    """An empty folder, for this user alone, that is gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="mlpack-") as folder:
        yield Path(folder)
