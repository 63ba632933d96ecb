"""``mlpack patch``: the codec of patches for any two files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import zstandard

from mlpack.delta import Description, InvalidPatch, describe
from mlpack.model.version import parse_name
from mlpack.stores.base import verify
from mlpack.stores.models import ModelStore, blob
from mlpack.stores.patch_files import NotAFile, apply_to, mapped, write_patch
from mlpack.stores.project import Project

COMPARED = 1 << 22
"""Bytes of a file up to which it is also compressed by itself, to compare."""


def _nothing(_: int) -> None:
    """Say nothing of the progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patched:
    """A patch that was written."""

    path: Path
    description: Description
    zstd: int | None
    """Bytes of the new file by zstd -19; ``None`` for large files, where that takes too long."""

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json patch make``."""
        made, whole = self.description, self.description.new.size
        return {
            "file": str(self.path),
            "ratio": round(made.size / whole, 6) if whole else None,
            "zstd": self.zstd,
            **made.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Applied:
    """A file that was made of another and a patch, and is what the patch declares."""

    path: Path
    description: Description

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json patch apply``."""
        return {"file": str(self.path), **self.description.new.to_json()}


def make(
    project: Project | None,
    old: Path,
    new: Path,
    out: Path,
    *,
    directory: Path = Path(),
    advance: Callable[[int], object] = _nothing,
) -> Patched:
    """Write the patch that makes ``new`` of ``old`` to ``out``, whole or not at all.

    Each of the two is a file below ``directory`` or, where there is none and ``project`` has
    it, the one file of a model version (``NAME:VERSION``). ``advance`` is told how many bytes
    of ``new`` are done. Raises :class:`~mlpack.stores.patch_files.NotAFile`, and
    :class:`~mlpack.stores.base.Corrupt` where the store's file is not what was registered.
    """
    before, after = (_find(project, directory, each) for each in (old, new))
    write_patch(before, after, directory / out, advance=advance)
    made = inspect(directory / out)
    return Patched(path=out, description=made, zstd=_compressed(after))


def apply(
    old: Path, patch: Path, out: Path, *, advance: Callable[[int], object] = _nothing
) -> Applied:
    """Write to ``out`` what ``patch`` makes of ``old``; its sha256 is proven before it has a name.

    ``advance`` is told how many bytes of it are done. Raises
    :class:`~mlpack.delta.InvalidPatch` and :class:`~mlpack.stores.patch_files.NotAFile`.
    """
    described = inspect(patch)
    apply_to(old, patch, out, advance=advance)
    return Applied(out, described)


def inspect(path: Path) -> Description:
    """What the patch at ``path`` is made of; raise :class:`~mlpack.delta.InvalidPatch`."""
    with mapped(path) as patch:
        try:
            return describe(patch)
        except InvalidPatch as error:
            raise InvalidPatch(f"{path}: {error}") from error


def _find(project: Project | None, directory: Path, given: Path) -> Path:
    path = directory / given
    if path.exists() or project is None or ":" not in given.name or given.parent != Path():
        return path
    version = ModelStore(project.layout).get(*parse_name(str(given)))
    if len(version.files) != 1:
        raise NotAFile(
            f"{version} is {len(version.files)} files, and a patch is for one",
            hint="name the files themselves",
        )
    target = blob(version.files[0])
    verify(project.layout, target)
    return project.layout.path(target)


def _compressed(path: Path) -> int | None:
    if path.stat().st_size > COMPARED:
        return None
    return len(zstandard.ZstdCompressor(19).compress(path.read_bytes()))
