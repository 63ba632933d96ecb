"""Which model this is, by the release's own record; and whether its files are those."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from .settings import NotServable, Settings

RECORD = "mlpack.json"
"""In the application's folder; releases of older versions have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of the model; its path is relative to the model's folder."""

    path: str
    sha256: str
    size: int
    source: str = ""
    """The older release's file it is made of, below the application's folder; empty where the
    image holds it as it is."""

    patch: str = ""
    """The patch that makes it of ``source``, there too; empty where both are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The model version that is served; ``loaded`` is UTC, ISO 8601."""

    name: str
    version: str
    digest: str = ""
    loaded: str = ""
    files: tuple[File, ...] = ()


def read_identity(settings: Settings, now: datetime | None = None) -> Identity:
    """The record's, or the names of the model's folders; raise :class:`NotServable`."""
    loaded = (now or datetime.now(UTC)).isoformat(timespec="seconds").replace("+00:00", "Z")
    path = settings.app_root / RECORD
    if not path.is_file():
        folder = settings.model_dir
        return Identity(name=folder.parent.name or "model", version=folder.name, loaded=loaded)
    try:
        document: dict[str, Any] = orjson.loads(path.read_bytes())
        return Identity(
            name=str(document["name"]),
            version=str(document["version"]),
            digest=str(document["digest"]),
            loaded=loaded,
            files=tuple(_file(each) for each in document["files"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotServable(f"{path} is not a record of a model: {error!r}") from error


def check_files(files: Sequence[File], folder: Path) -> None:
    """Compare the files below ``folder`` with their record; raise :class:`NotServable`."""
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
    """What to raise where the image is not as it was released."""
    return NotServable(
        f"{what}: the model is not the one that was released; pull the image again, or unset "
        "AZUREML_MODEL_DIR"
    )


def _file(document: dict[str, Any]) -> File:
    path = _inside(document["path"])
    source, patch = _inside(document.get("from", "")), _inside(document.get("patch", ""))
    if patch and not source:
        raise ValueError(f"{path} has a patch, and nothing to apply it to")
    sha256 = str(document["sha256"]).removeprefix("sha256:")
    return File(path=path, sha256=sha256, size=int(document["size"]), source=source, patch=patch)


def _inside(named: object) -> str:
    path = PurePosixPath(str(named))
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{path} is outside the model's folder")
    return str(named)
