"""The identity of the served model, from the release's record, and the check of its files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from .settings import NotServable, RuntimeSettings

RECORD = "mlpack.json"
"""In the application's folder; releases by early versions of mlpack lack it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One file of the model; its path is relative to the model's folder."""

    path: str
    sha256: str
    size: int
    source: str = ""
    """The file of the anchor release that it is made from, below the application's folder; empty if
    the image has the file itself."""

    packed: str = ""
    """The packed file that it is made from, also there: a patch of an empty file."""

    patch: str = ""
    """The patch to apply to ``source``, or to what ``packed`` holds; empty if it is the same."""

    @property
    def complete(self) -> bool:
        """Whether the image has the file itself."""
        return not (self.source or self.packed)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """The served model version; ``loaded`` is UTC, ISO 8601."""

    name: str
    version: str
    digest: str = ""
    loaded: str = ""
    files: tuple[FileRecord, ...] = ()
    rows_independent: bool = False
    """Whether the build proved that row i of each output depends on row i of the inputs alone."""


def read_identity(settings: RuntimeSettings, now: datetime | None = None) -> ModelIdentity:
    """Return the record's identity, or one made of the model folder's names.

    Raises :class:`NotServable`.
    """
    loaded = (now or datetime.now(UTC)).isoformat(timespec="seconds").replace("+00:00", "Z")
    path = settings.app_root / RECORD
    if not path.is_file():
        folder = settings.model_dir
        return ModelIdentity(name=folder.parent.name or "model", version=folder.name, loaded=loaded)
    try:
        document: dict[str, Any] = orjson.loads(path.read_bytes())
        return ModelIdentity(
            name=str(document["name"]),
            version=str(document["version"]),
            digest=str(document["digest"]),
            loaded=loaded,
            files=tuple(_file(each) for each in document["files"]),
            rows_independent=document.get("rows_independent") is True,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotServable(f"{path} is not a valid model record: {error!r}") from error


def check_files(files: Sequence[FileRecord], folder: Path) -> None:
    """Compare the files below ``folder`` with the record; raise :class:`NotServable`."""
    for each in files:
        path = folder / each.path
        try:
            size = path.stat().st_size
            with path.open("rb") as content:
                sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        except OSError as error:
            raise damaged(f"{path} cannot be read ({error.strerror})") from error
        if (size, sha256) != (each.size, each.sha256):
            raise damaged(
                f"{path} has {size} bytes and sha256 {sha256}, not {each.size} and {each.sha256}"
            )


def damaged(what: str) -> NotServable:
    """Return the error for an image whose files are not the released ones."""
    return NotServable(
        f"{what}: the model is not the released one; pull the image again, or unset "
        "AZUREML_MODEL_DIR"
    )


def _file(document: dict[str, Any]) -> FileRecord:
    path = _inside(document["path"])
    source, packed, patch = (
        _inside(document.get(each, "")) for each in ("from", "packed", "patch")
    )
    if source and packed:
        raise ValueError(f"{path} has two files to make it from")
    if patch and not (source or packed):
        raise ValueError(f"{path} has a patch but no file to apply it to")
    sha256 = str(document["sha256"]).removeprefix("sha256:")
    return FileRecord(
        path=path,
        sha256=sha256,
        size=int(document["size"]),
        source=source,
        packed=packed,
        patch=patch,
    )


def _inside(named: object) -> str:
    path = PurePosixPath(str(named))
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{path} is outside the model's folder")
    return str(named)
