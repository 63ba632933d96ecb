"""What this machine has: programs and disk space."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def find_program(name: str) -> Path | None:
    """Where the program ``name`` lies on the path."""
    found = shutil.which(name)
    return Path(found) if found else None


def is_root() -> bool:
    """Whether this process may do everything here."""
    return os.geteuid() == 0


def free_bytes(path: Path) -> int:
    """Bytes free for files at ``path``, or at the nearest folder above it that exists."""
    existing = next(each for each in (path, *path.resolve().parents) if each.exists())
    return shutil.disk_usage(existing).free
