"""Whether git would keep a file: what holds a secret must not lie where it does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from mlpack.errors import UsageError

_TIMEOUT_SECONDS = 10


class Tracked(UsageError):
    """A file for a secret that git would keep, or keeps."""


def require_untracked(path: Path) -> str:
    """Refuse a ``path`` that git would keep; return what could not be found out, or nothing.

    ``git check-ignore`` decides, for which a file that is tracked already is not ignored.
    """
    folder = _existing(path.absolute().parent)
    if not any((each / ".git").exists() for each in (folder, *folder.parents)):
        return ""
    unknown = f"git cannot be asked whether it keeps {path}: see to it that it does not"
    git = shutil.which("git")
    if git is None:
        return unknown
    command = [git, "-C", str(folder), "check-ignore", "-q", "--", str(path.absolute())]
    try:
        status = subprocess.run(
            command, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False
        ).returncode
    except (OSError, subprocess.SubprocessError):
        return unknown
    if status == 1:
        raise Tracked(
            f"git would keep {path}, which is to hold a password",
            hint=f"add {path.name} to .gitignore, or name a file outside of the repository",
        )
    return "" if status == 0 else unknown


def _existing(folder: Path) -> Path:
    while not folder.is_dir():
        folder = folder.parent
    return folder
