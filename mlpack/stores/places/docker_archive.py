"""``docker-archive:PATH[:NAME]``: a file of ``docker save``, to read from."""

from __future__ import annotations

from pathlib import Path

from mlpack.oci.descriptor import Descriptor
from mlpack.stores.archive import ArchiveStore, split
from mlpack.stores.store import Readable


def read(text: str, directory: Path) -> tuple[Readable, Descriptor]:
    """Find the image at ``PATH[:NAME]``; without a name the only one."""
    path, name = split(text, directory)
    archive = ArchiveStore(path)
    return archive, archive.resolve(name)
