"""The record of a release's model, and files that are not what it says."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlpack.runtime.identity import ModelIdentity, check_files, read_identity
from mlpack.runtime.settings import NotServable, RuntimeSettings
from tests.runtime import models
from tests.runtime.support import release, start, started

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def record(settings: RuntimeSettings, **changes: object) -> None:
    files = [
        {
            "path": path.relative_to(settings.model_dir).as_posix(),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size": path.stat().st_size,
        }
        for path in settings.model_dir.rglob("*")
        if path.is_file()
    ]
    document = {"name": "fan", "version": "3", "digest": "sha256:abc", "files": files}
    (settings.app_root / "mlpack.json").write_text(json.dumps(document | changes))


def test_the_record_says_which_model_it_is(tmp_path: Path) -> None:
    settings = release(tmp_path)
    models.doubled(settings.model_dir / "sub" / "model.onnx")
    record(settings)
    found = read_identity(settings, NOW)
    assert (found.name, found.version, found.digest) == ("fan", "3", "sha256:abc")
    assert found.loaded == "2026-01-02T03:04:05Z"
    with started(settings) as module:
        assert module.identity.files == found.files


def test_without_a_record_the_folders_say_it(tmp_path: Path) -> None:
    found = read_identity(release(tmp_path), NOW)
    assert found == ModelIdentity(name="fan", version="3", loaded="2026-01-02T03:04:05Z")


def test_files_that_were_changed_are_not_served(tmp_path: Path) -> None:
    settings = release(tmp_path)
    path = models.doubled(settings.model_dir / "model.onnx")
    record(settings)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(NotServable, match=r"model\.onnx has .* is not the released one"):
        start(settings)
    path.write_bytes(content + b"\0")
    with pytest.raises(NotServable, match="pull the image again"):
        start(settings)
    path.unlink()
    with pytest.raises(NotServable, match="cannot be read"):
        check_files(read_identity(settings).files, settings.model_dir)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": [{"path": "../score.py", "sha256": "0", "size": 1}]},
        {"files": [{"path": "/etc/passwd", "sha256": "0", "size": 1}]},
        {"files": [{"path": "a"}]},
        {"files": 5},
    ],
)
def test_records_that_make_no_sense(changes: dict[str, object], tmp_path: Path) -> None:
    settings = release(tmp_path)
    record(settings, **changes)
    with pytest.raises(NotServable, match=r"mlpack\.json is not"):
        read_identity(settings)


def test_a_record_that_is_no_json(tmp_path: Path) -> None:
    settings = release(tmp_path)
    (tmp_path / "mlpack.json").write_text("{")
    with pytest.raises(NotServable, match=r"mlpack\.json is not"):
        read_identity(settings)
