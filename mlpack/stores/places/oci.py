"""``oci:PATH[:TAG]``: an OCI image layout, to read from and to copy to."""

from __future__ import annotations

from pathlib import Path

from mlpack.errors import UsageError
from mlpack.model.version import LATEST
from mlpack.oci.descriptor import Descriptor
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import NotFound, Readable, Store


def read(text: str, directory: Path) -> tuple[Readable, Descriptor]:
    """Find the image at ``PATH[:TAG]``; without a tag the only one."""
    path, tag = _split(text, directory)
    layout = LayoutStore.existing(directory / path)
    known = ", ".join(n for n, each in layout.tags().items() if not each.artifact_type)
    if tag:
        try:
            return layout, layout.resolve(tag)
        except NotFound as error:
            raise NotFound(str(error), hint=f"it has: {known or 'no names'}") from error
    entries = [each for each in layout.entries() if not each.artifact_type]
    if len(entries) != 1:
        raise UsageError(
            f"{path} holds {len(entries)} images",
            hint=f"add :TAG, one of: {known or 'no names'}",
        )
    return layout, entries[0]


def write(text: str, directory: Path) -> tuple[Store, str]:
    """Return the layout at ``PATH[:TAG]``, created if missing, and the tag (``latest``)."""
    path, tag = _split(text, directory)
    if not path or text.endswith(":"):
        raise UsageError(f"'oci:{text}' lacks a path or tag", hint="write it as oci:PATH:TAG")
    return LayoutStore(directory / path), tag or LATEST


def _split(text: str, directory: Path) -> tuple[str, str]:
    """Return path and tag; the path may hold a colon, and what exists as a directory is one."""
    if ":" not in text or (directory / text).is_dir():
        return text, ""
    path, _, tag = text.rpartition(":")
    return path, tag
