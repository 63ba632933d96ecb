"""``mlpack gc``: remove what nothing in the project's store names any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpack.project.directory import LOCK, ProjectDirectory
from mlpack.stores.files import read_file
from mlpack.stores.garbage import Blob, remove, unnamed
from mlpack.stores.store_use import alone

if TYPE_CHECKING:
    from mlpack.api.session import Session


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """Blobs of the store that nothing names."""

    blobs: tuple[Blob, ...]
    removed: bool
    """Whether they were removed; otherwise they would be."""

    @property
    def bytes(self) -> int:
        """Bytes of all of them."""
        return sum(each.bytes for each in self.blobs)

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json gc``."""
        return {"removed": self.removed, "bytes": self.bytes, "blobs": self.blobs}


def gc(session: Session, *, delete: bool = False) -> Garbage:
    """Find the blobs that no name, release, record or lock leads to; with ``delete`` remove them.

    Raises :class:`~mlpack.stores.store_use.StoreInUse` if another process writes into the store:
    what it has written may have no name yet. Interrupted, it leaves a store that is whole.
    """
    project = session.project
    if not delete or not project.layout.has_names:
        return Garbage(blobs=unnamed(project.layout, _mentions(project)), removed=delete)
    with project.exclusive(), alone(project.layout.root):
        found = unnamed(project.layout, _mentions(project))
        with session.step("removing blobs", sum(each.bytes for each in found)) as step:
            for each in remove(project.layout, found):
                step(each.bytes)
    return Garbage(blobs=found, removed=True)


def _mentions(project: ProjectDirectory) -> tuple[str, ...]:
    """Return the text of mlpack.lock, readable or not: its base and anchors stay."""
    lock = project.root / LOCK
    return (read_file(lock).decode(errors="replace"),) if lock.is_file() else ()
