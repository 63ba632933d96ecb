"""The real base: the same again from its lock, and its sizes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mlpack.project.directory import ProjectDirectory
from tests.support import build_base, run

pytestmark = pytest.mark.e2e


def test_the_same_lock_gives_the_same_base_elsewhere(
    real_project: ProjectDirectory, tmp_path: Path
) -> None:
    other = ProjectDirectory(tmp_path / "another" / "place")
    other.root.mkdir(parents=True)
    for name in ("mlpack.toml", "requirements.in", "mlpack.lock"):
        shutil.copy(real_project.root / name, other.root)
    before = os.umask(0o077)
    try:
        made = build_base(other)
    finally:
        os.umask(before)
    assert not made.already
    assert made.base == real_project.lock().base
    assert made.missing == ()


def test_the_base_in_numbers(real_project: ProjectDirectory) -> None:
    shown = run("-C", str(real_project.root), "base", "show")
    assert shown.exit_code == 0
    for role in ("debian", "packages", "runtime", "entry", "whole base"):
        assert role in shown.stdout
