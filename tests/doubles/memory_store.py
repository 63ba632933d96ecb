"""A store in memory, which behaves as the others do (``tests/stores/test_contract.py``)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO

from mlpack.oci.descriptor import Descriptor, Digest
from mlpack.stores.store import NotFound, StagedBlob, not_found, verified


class MemoryStore:
    """Two dictionaries: blobs by digest, descriptors by name."""

    def __init__(self) -> None:
        self._blobs: dict[Digest, bytes] = {}
        self._names: dict[str, Descriptor] = {}

    def exists(self, target: Descriptor) -> bool:
        """Whether ``target`` is held, with its size."""
        held = self._blobs.get(target.digest)
        return held is not None and len(held) == target.size

    @contextmanager
    def open(self, target: Descriptor) -> Iterator[BinaryIO]:
        """Open the bytes of ``target``."""
        if target.digest not in self._blobs:
            raise not_found(target.digest, "memory")
        yield io.BytesIO(self._blobs[target.digest])

    def put(self, target: Descriptor, content: BinaryIO) -> None:
        """Keep ``content`` as ``target``."""
        self._blobs[target.digest] = b"".join(verified(content, target))

    def resolve(self, name: str) -> Descriptor:
        """Return what ``name`` points at."""
        if name not in self._names:
            raise NotFound(f"memory has no name {name!r}")
        return self._names[name]

    def tag(self, target: Descriptor, name: str) -> None:
        """Point ``name`` at ``target``."""
        if not self.exists(target):
            raise not_found(target.digest, "memory")
        self._names[name] = target

    def tags(self) -> Mapping[str, Descriptor]:
        """Return every name, in order."""
        return {name: self._names[name] for name in sorted(self._names)}

    @contextmanager
    def stage(self) -> Iterator[StagedBlob]:
        """Write one blob."""
        out = io.BytesIO()

        def keep(target: Descriptor) -> None:
            self._blobs[target.digest] = out.getvalue()

        yield StagedBlob(out, keep)
