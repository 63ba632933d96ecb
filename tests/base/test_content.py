"""What of the runtime is shipped in a base."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlpack.base import content
from mlpack.base.content import identity, runtime_files, runtime_source
from mlpack.base.wheels import Interpreter
from mlpack.settings.project_settings import BaseSettings

RUNTIME = Path(__file__).resolve().parents[2] / "mlpack" / "runtime"
DEBIAN = Interpreter("usr/bin/python3.11", (3, 11), 36, "usr/lib/python3/dist-packages")


def test_all_of_the_runtime_is_shipped_with_its_folders() -> None:
    files = {
        path.relative_to(RUNTIME).as_posix(): path.read_bytes()
        for kind in ("*.py", "*.html", "*.json")
        for path in RUNTIME.rglob(kind)
    }
    assert runtime_source() == files
    assert list(files) != []
    assert "http/__init__.py" in files
    assert {"http/page.html", "http/openapi.json"} < files.keys()


def test_the_layer_has_the_files_below_the_package() -> None:
    paths = [each.path for each in runtime_files(DEBIAN)]
    assert paths == sorted(paths)
    assert "usr/lib/python3/dist-packages/mlpack_runtime/http/page.html" in paths


def test_a_change_in_a_folder_of_the_runtime_is_another_base(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = identity(BaseSettings(), ())
    source = runtime_source()
    changed = {**source, "http/page.html": source["http/page.html"] + b" "}
    monkeypatch.setattr(content, "runtime_source", lambda: changed)
    assert identity(BaseSettings(), ()) != before
