"""Writing files so that a reader, or a crash, never sees half of one."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

SHARED = 0o644
"""What mkstemp makes is private; git, skopeo and the group read what mlpack writes."""
PRIVATE = 0o600
_PART = ".part-"


@contextmanager
def atomic(path: Path, mode: int = SHARED) -> Iterator[BinaryIO]:
    """Write ``path`` whole or not at all: beside it, fsync, rename, fsync of the folder.

    A block that raises leaves what was there, and nothing beside it.
    """
    with staged(path.parent) as (content, keep):
        yield content
        keep(path, mode)


@contextmanager
def staged(folder: Path) -> Iterator[tuple[BinaryIO, _Keep]]:
    """A nameless-to-be file in ``folder`` and the function that gives it its name.

    Its writer holds a lock on it, so one without is what a killed process left,
    and is removed here.
    """
    make_folder(folder)
    _clear_abandoned(folder)
    content, temporary = _create(folder)
    try:
        with content:
            yield content, _Keep(content, temporary)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make ``folder`` and those above it where they are not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        # What stands there is a file: to hear that it exists would help nobody.
        raise NotADirectoryError(errno.ENOTDIR, "is not a directory", str(folder)) from error


def _create(folder: Path) -> tuple[BinaryIO, Path]:
    while True:
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=_PART)
        content = os.fdopen(descriptor, "w+b")
        fcntl.flock(content, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return content, Path(name)
        # Another process took it for abandoned between its creation and our lock.
        content.close()


def _clear_abandoned(folder: Path) -> None:
    for path in folder.glob(f"{_PART}*"):
        with suppress(OSError), path.open("rb") as left:
            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)


class _Keep:
    def __init__(self, content: BinaryIO, temporary: Path) -> None:
        self._content = content
        self._temporary = temporary

    def __call__(self, path: Path, mode: int = SHARED) -> None:
        self._content.flush()
        os.fchmod(self._content.fileno(), mode)
        os.fsync(self._content.fileno())
        make_folder(path.parent)
        self._temporary.rename(path)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an inter-process lock on ``path`` while the block runs; others wait.

    The lock goes with the process (flock), so a killed one leaves none behind.
    """
    make_folder(path.parent)
    with path.open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
