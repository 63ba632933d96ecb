"""The files of model versions as bytes, and models that are in no store yet as files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mlpack.delta.files import Contents
from mlpack.model.version import ModelVersion
from mlpack.stores.base import verify
from mlpack.stores.layout import LayoutStore
from mlpack.stores.models import blob
from mlpack.stores.patch_files import mapped


@contextmanager
def contents(layout: LayoutStore, version: ModelVersion) -> Iterator[Contents]:
    """The files of ``version``, each checked, while the block runs.

    Raises :class:`~mlpack.stores.base.Corrupt` and :class:`~mlpack.stores.base.NotFound`.
    """
    with ExitStack() as opened:
        made = {}
        for file in version.files:
            verify(layout, blob(file))
            made[file.path] = opened.enter_context(mapped(layout.path(blob(file))))
        yield made


@contextmanager
def laid_out(files: Contents) -> Iterator[Path]:
    """A folder with ``files`` in it while the block runs."""
    with tempfile.TemporaryDirectory(prefix="mlpack-round-") as folder:
        for path, content in files.items():
            place = Path(folder) / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        yield Path(folder)
