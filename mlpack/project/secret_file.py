"""Files that hold a secret: for their owner alone to read, and never where git keeps them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from mlpack.errors import MlpackError
from mlpack.stores.files import PRIVATE, atomic, followed

_TIMEOUT_SECONDS = 10


class Tracked(MlpackError):
    """A file for a secret that git tracks, or would track."""


def write_secret(path: Path, content: bytes) -> str:
    """Write ``path`` whole or not at all, mode 0600; return what :func:`require_untracked` does.

    Raises :class:`Tracked` before anything is written.
    """
    note = require_untracked(path)
    with atomic(path, mode=PRIVATE) as out:
        out.write(content)
    return note


def require_untracked(path: Path) -> str:
    """Raise :class:`Tracked` unless git ignores ``path``; return a note if git cannot tell.

    ``git check-ignore`` decides; it does not count a file as ignored that is tracked already,
    whatever .gitignore lists. Outside of a repository any path is fine.
    """
    path = followed(path)
    folder = _existing(path.absolute().parent)
    if not any((each / ".git").exists() for each in (folder, *folder.parents)):
        return ""
    unknown = f"git cannot tell whether it tracks {path}: make sure that it does not"
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
            f"git tracks {path}, or would track it, and it is to hold a password",
            hint=f"add {path.name} to .gitignore (git rm --cached it if it is tracked), or name a "
            "file outside of the repository",
        )
    return "" if status == 0 else unknown


def _existing(folder: Path) -> Path:
    while not folder.is_dir():
        folder = folder.parent
    return folder
