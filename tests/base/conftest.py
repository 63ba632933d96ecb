"""The small world that bases are made from in tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlpack.project.directory import ProjectDirectory
from tests.base.doubles import World, serving


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A package index on loopback, which uv is told of, and an image with a Python."""
    with serving(tmp_path / "world") as found:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{found.url}/simple")
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
        yield found


@pytest.fixture
def project(tmp_path: Path, world: World) -> ProjectDirectory:
    """A project whose base is made from that world."""
    return new_project(tmp_path / "project", world.source_text)


def new_project(
    root: Path, source: str, *, requirements: str = "", settings: str = ""
) -> ProjectDirectory:
    """A project in ``root``; ``settings`` are added to ``[base]``."""
    root.mkdir(parents=True)
    (root / "mlpack.toml").write_text(
        f'[model]\nname = "fan"\n\n[base]\nfrom = "{source}"\n{settings}'
    )
    (root / "requirements.in").write_text(requirements)
    return ProjectDirectory(root)
