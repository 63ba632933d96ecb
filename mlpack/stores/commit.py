"""The commit a model was made from, as git tells it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def source_commit(directory: Path) -> str:
    """The checked-out commit, ``-dirty`` where files differ from it; empty without git.

    That a version is known by its commit is a convenience: nothing that goes
    wrong here may stop a registration.
    """
    git = shutil.which("git")
    if git is None:
        return ""
    # An excluded-everything describe is the one call that tells commit and state together.
    command = [git, "-C", str(directory), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
