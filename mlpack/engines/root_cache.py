"""Root file systems of bases, unpacked once each below the user's cache, for trial starts."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mlpack.interruptions import held_back
from mlpack.oci.image import Image
from mlpack.stores.files import make_folder
from mlpack.stores.layout import LayoutStore
from mlpack.stores.unpack import unpack

KEPT = 4
"""Roots that stay, the last used first; one takes some 120 MB."""

_MOUNT_POINTS = ("dev", "proc", "run", "sys", "tmp")
_PART, _PLACED = ".part", ".placed"


@dataclass(frozen=True, slots=True)
class RootCache:
    """The roots below ``folder``, each named by the digest of its image."""

    folder: Path

    def path(self, base: Image) -> Path:
        """Return where the root of ``base`` is, or would be."""
        return self.folder / base.digest.hex

    @contextmanager
    def using(self, base: Image) -> Iterator[Path]:
        """Return the root of ``base`` and keep others from removing it during the block."""
        root = self.path(base)
        with _lock(root, fcntl.LOCK_SH):
            yield root

    @contextmanager
    def holding(self, base: Image, app: Path, place: str) -> Iterator[None]:
        """Have the directory ``app`` at ``place`` in the root of ``base`` during the block.

        For machines that mount nothing: one process at a time, and what a killed one left is
        replaced by the next.
        """
        root = self.path(base)
        with _lock(root, fcntl.LOCK_EX, _PLACED), ExitStack() as undo:
            for name in ("tmp", "run"):
                undo.callback(_empty, root / name)
            undo.callback(_empty, root / place)
            _empty(root / place)
            shutil.copytree(app, root / place, symlinks=True, dirs_exist_ok=True)
            yield

    def make(self, store: LayoutStore, base: Image, warm: Callable[[Path], None]) -> Path:
        """Return the root of ``base``, unpacked from ``store`` if it is not there yet.

        ``warm`` is called once with a new root, before anybody else sees it. Raises ``OSError``,
        and what :func:`~mlpack.stores.unpack.unpack` raises.
        """
        root = self.path(base)
        make_folder(self.folder)
        if root.is_dir():
            with _lock(root, fcntl.LOCK_SH):  # raises now if the cache is another user's
                os.utime(root)
            return root
        with _lock(root, fcntl.LOCK_EX):
            if not root.is_dir():
                self._unpack(store, base, root, warm)
        self._remove_old()
        return root

    def _unpack(
        self, store: LayoutStore, base: Image, root: Path, warm: Callable[[Path], None]
    ) -> None:
        part = root.with_name(root.name + _PART)
        shutil.rmtree(part, ignore_errors=True)  # of a killed process: the lock is ours
        part.mkdir()
        try:
            unpack(store, base.layers, part)
            for name in _MOUNT_POINTS:
                if not (part / name).is_dir():
                    (part / name).mkdir()
            warm(part)
            part.rename(root)
        except BaseException:
            with held_back():
                shutil.rmtree(part, ignore_errors=True)
            raise

    def _remove_old(self) -> None:
        """Remove all roots but the last used, unless they are in use."""
        roots = [each for each in self.folder.iterdir() if each.is_dir()]
        roots.sort(key=lambda each: each.stat().st_mtime, reverse=True)
        for root in roots[KEPT:]:
            with suppress(OSError), _lock(root, fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(root, ignore_errors=True)


def _empty(folder: Path) -> None:
    """Remove what is in ``folder``."""
    with held_back(), suppress(FileNotFoundError):
        for each in list(folder.iterdir()):
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each, ignore_errors=True)
            else:
                each.unlink(missing_ok=True)


@contextmanager
def _lock(root: Path, how: int, kind: str = ".lock") -> Iterator[None]:
    """Hold a lock on the file next to ``root``; it ends with the process."""
    path = root.with_name(root.name + kind)
    held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, how)
        yield
    finally:
        os.close(held)
