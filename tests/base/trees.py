"""The file system a base makes, read back from its layers by Python's own tar reader."""

from __future__ import annotations

import tarfile

from mlpack.model.lock import LockedBase
from mlpack.oci.descriptor import Platform
from mlpack.stores.layout import LayoutStore


def tree(store: LayoutStore, base: LockedBase, platform: Platform) -> dict[str, bytes]:
    """Content by path: bytes of a file, nothing for a directory or a link."""
    locked = base.on(platform)
    assert locked is not None
    found: dict[str, bytes] = {}
    for each in locked.layers:
        with (
            store.open(each.layer.descriptor) as content,
            tarfile.open(fileobj=content, mode="r:*") as archive,
        ):
            for member in archive:
                opened = archive.extractfile(member)
                found[member.name] = opened.read() if opened else b""
    return found
