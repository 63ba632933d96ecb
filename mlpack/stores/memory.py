"""Content in memory: for tests, dry runs and notebooks."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO

from mlpack.oci.descriptor import Descriptor
from mlpack.oci.digest import Digest, Hashing
from mlpack.stores.base import Corrupt, NotFound, absent, verified


class MemoryStore:
    """Two dictionaries: blobs by digest, descriptors by name."""

    def __init__(self) -> None:
        self._blobs: dict[Digest, bytes] = {}
        self._names: dict[str, Descriptor] = {}

    def exists(self, target: Descriptor) -> bool:
        """Whether ``target`` is here with its size."""
        held = self._blobs.get(target.digest)
        return held is not None and len(held) == target.size

    @contextmanager
    def open(self, target: Descriptor) -> Iterator[BinaryIO]:
        """Open the bytes of ``target``."""
        if target.digest not in self._blobs:
            raise absent(target.digest, "memory")
        yield io.BytesIO(self._blobs[target.digest])

    def put(self, target: Descriptor, content: BinaryIO) -> None:
        """Keep ``content`` as ``target``."""
        self._blobs[target.digest] = b"".join(verified(content, target))

    def resolve(self, name: str) -> Descriptor:
        """What ``name`` points at."""
        if name not in self._names:
            raise NotFound(f"memory has no name {name!r}")
        return self._names[name]

    def tag(self, target: Descriptor, name: str) -> None:
        """Point ``name`` at ``target``."""
        if not self.exists(target):
            raise absent(target.digest, "memory")
        self._names[name] = target

    def tags(self) -> Mapping[str, Descriptor]:
        """Every name, in order."""
        return {name: self._names[name] for name in sorted(self._names)}

    @contextmanager
    def stage(self) -> Iterator[_Staged]:
        """A place to write one blob."""
        yield _Staged(self)


class _Staged(Hashing):
    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._bytes = io.BytesIO()
        super().__init__(self._bytes)

    def commit(self, target: Descriptor) -> None:
        if self.size != target.size:
            raise Corrupt(f"{target.digest} is {self.size} bytes, not {target.size}")
        self._bytes.seek(0)
        self._store.put(target, self._bytes)
