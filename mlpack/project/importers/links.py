"""Where the links of a model's folder may lead: into the folder, or into its own cache."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

CACHED, SNAPSHOTS, BLOBS = "models--", "snapshots", "blobs"
"""Hugging Face's cache: ``models--ORG--NAME/snapshots/REVISION/FILE`` links to ``blobs/DIGEST``
(huggingface_hub's guide, *Understand caching*)."""


def allowed_folders(folder: Path) -> tuple[Path, ...]:
    """Return the folders that links in ``folder`` may lead into, without links themselves.

    These are the folder, and for a snapshot in Hugging Face's cache the blobs of the same model.
    """
    real = folder.resolve()
    for each in (real, *real.parents):
        model = each.parent.parent
        if each.parent.name == SNAPSHOTS and model.name.startswith(CACHED):
            return real, model / BLOBS
    return (real,)


def lies_in(path: Path, folders: Iterable[Path]) -> bool:
    """Return whether ``path``, links followed, lies in one of ``folders``."""
    target = path.resolve()
    return any(target.is_relative_to(each) for each in folders)


def snapshots(folder: Path) -> tuple[Path, ...]:
    """Return the snapshots of a model's folder in Hugging Face's cache; none if it is not one."""
    if not folder.resolve().name.startswith(CACHED) or not (folder / SNAPSHOTS).is_dir():
        return ()
    return tuple(sorted(each for each in (folder / SNAPSHOTS).iterdir() if each.is_dir()))
