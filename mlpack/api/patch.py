"""``mlpack patch``: patches of any two files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import zstandard

from mlpack.json_document import document
from mlpack.stores.files import file_sha256, read_file, require_file
from mlpack.stores.patch_files import apply_to, mapped, models_beside, write_patch
from mlpack.tensor_patch import Description, InvalidPatch, describe
from mlpack.tensor_patch.describe import FileIdentity

if TYPE_CHECKING:
    from mlpack.api.requests import ApplyPatch, MakePatch
    from mlpack.api.session import Session

COMPARED = 1 << 22
"""Bytes of a file up to which it is also compressed by itself, to compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patched:
    """A patch that was written."""

    path: Path
    description: Description
    zstd: int | None
    """Bytes of the new file by zstd -19; ``None`` for large files, where that takes too long."""

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json patch make``."""
        made, whole = self.description, self.description.new.size
        return {
            "path": self.path,
            "ratio": round(made.size / whole, 6) if whole else None,
            "zstd_bytes": self.zstd,
            **document(made),
        }


@dataclass(frozen=True, slots=True)
class Applied:
    """A file made from another and a patch; its sha256 is the one that the patch declares."""

    path: Path
    description: Description

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json patch apply``."""
        return {"path": self.path, **document(self.description.new)}


def make(session: Session, request: MakePatch) -> Patched:
    """Write the patch that turns ``old`` into ``new`` to ``out``, whole or not at all.

    Each of the two is what :meth:`~mlpack.api.session.Session.model_file` finds. Raises
    :class:`~mlpack.stores.files.OutputIsInput`, and what finding and writing raise.
    """
    before, after = (session.model_file(each) for each in (request.old, request.new))
    size, compared = require_file(after), _compressed(after)
    read = (before, after, *models_beside(before), *models_beside(after))
    with (
        session.output(request.out, *read) as out,
        session.step(f"making {out.name}", size) as step,
    ):
        write_patch(before, after, out, advance=step)
    # The patch has only the beginning of the old file's sha256.
    old = FileIdentity(require_file(before), file_sha256(before))
    described = replace(inspect(out), old=old)
    return Patched(path=Path(request.out), description=described, zstd=compared)


def apply(session: Session, request: ApplyPatch) -> Applied:
    """Write what a patch turns a file into; its sha256 is proven before it has a name.

    ``old`` is what :meth:`~mlpack.api.session.Session.model_file` finds. Raises
    :class:`~mlpack.tensor_patch.InvalidPatch`, :class:`~mlpack.stores.files.OutputIsInput`, and
    what finding and writing raise.
    """
    old, patch = session.model_file(request.old), session.file(request.file)
    described = inspect(patch)
    with (
        session.output(request.out, old, patch) as out,
        session.step(f"making {out.name}", described.new.size) as step,
    ):
        apply_to(old, patch, out, advance=step)
    return Applied(Path(request.out), described)


def inspect(path: Path) -> Description:
    """Describe the patch at ``path``; raise :class:`~mlpack.tensor_patch.InvalidPatch`."""
    with mapped(path) as patch:
        try:
            return describe(patch)
        except InvalidPatch as error:
            raise InvalidPatch(f"{path}: {error}") from error


def _compressed(path: Path) -> int | None:
    if require_file(path) > COMPARED:
        return None
    return len(zstandard.ZstdCompressor(19).compress(read_file(path)))
