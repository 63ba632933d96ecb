"""Who uses a layout: any number of processes that write, or one that collects garbage.

What a verb writes, or finds to be there, may have no name before its last step. So it holds a lock
on the layout's marker with others, and no process removes unnamed blobs until it ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlpack.errors import MlpackError
from mlpack.stores.files import atomic, locked

_VERSION = b'{"imageLayoutVersion":"1.0.0"}'


class StoreInUse(MlpackError):
    """A store that something writes into."""

    hint = "wait until it has ended; mlpack registry serve ends when it is interrupted"


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Keep :func:`alone` off the layout at ``root`` during the block; wait while it is held."""
    with _locked(root, fcntl.LOCK_SH):
        yield


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Have the layout at ``root`` alone during the block.

    Raises :class:`StoreInUse` if something writes into it.
    """
    try:
        with _locked(root, fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield
    except BlockingIOError:
        raise StoreInUse(f"another process of mlpack writes into {root}") from None


@contextmanager
def _locked(root: Path, how: int) -> Iterator[None]:
    with locked(names_lock(root)):
        marker = mark(root)
    opened = os.open(marker, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(opened, how)
        yield
    finally:
        os.close(opened)


def names_lock(root: Path) -> Path:
    """Return the lock file of a layout's names, which is next to it."""
    return root.with_name(f"{root.name}.lock")


def mark(root: Path) -> Path:
    """Return the file that makes ``root`` a layout; it is written if it is missing.

    The caller holds :func:`names_lock`.
    """
    marker = root / "oci-layout"
    if not marker.is_file():
        with atomic(marker) as out:
            out.write(_VERSION)
    return marker
