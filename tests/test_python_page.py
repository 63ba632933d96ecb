"""The page on the Python API: its code runs, in order, as a reader would run it."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

import mlpack
from mlpack.project.directory import ProjectDirectory
from tests.support import tiny_base, tiny_onnx

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "python.md"


def test_every_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_onnx(tmp_path / "model.onnx")
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) > 5
    names: dict[str, Any] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for number, block in enumerate(blocks):
            exec(compile(block, f"{PAGE.name}, example {number + 1}", "exec"), names)
            if number == 0:
                prepare(tmp_path / "fan")
    said = printed.getvalue()
    assert "fan:1 0.95" in said
    assert "layer 0 bytes" in said, "the callback was called"
    assert "'9'" in said, "the error names the version"
    assert (tmp_path / "fan" / "deployment.json").is_file()


def prepare(root: Path) -> None:
    """Make the base, which takes minutes for a real one."""
    (root / "requirements.in").write_text("numpy\nonnxruntime\n")
    tiny_base(ProjectDirectory(root))


def test_the_table_names_methods_and_requests_that_exist() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    for _, methods, requests, *_ in rows:
        for method in re.findall(r"`(\w+)`", methods):
            assert callable(getattr(mlpack.Project, method))
        for request in re.findall(r"`(\w+)`", requests):
            assert request in mlpack.__all__
