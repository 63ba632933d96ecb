"""The commands of docs/start/first-hour.md, typed as they stand."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from tests.e2e.console_blocks import CHECKOUT, commands, run_commands
from tests.e2e.engines import needs
from tests.support import free_port

PAGE = CHECKOUT / "docs" / "start" / "first-hour.md"


def script(text: str, port: int) -> list[str]:
    """The page's commands; what it has open in one shell runs until the last row is scored."""
    address, lines = f"localhost:{port}", []
    for line in commands(text):
        if line.startswith("mlpack serve"):
            wait = f"curl -sf --retry 120 --retry-connrefused --retry-delay 1 {address} >&2"
            lines += [f"{line} --port {port} >&2 & server=$!", "trap 'kill $server' EXIT", wait]
        else:
            lines.append(line.replace("localhost:5001", address))
        if line.startswith("head"):
            lines += ["kill $server", "trap - EXIT"]
    return lines


@pytest.mark.slow
def test_the_first_hour_runs_as_it_stands(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("skl2onnx")
    needs("mmdebstrap", "curl")
    text = PAGE.read_text(encoding="utf-8")
    training = re.search(r"<!-- train.py -->\n```python\n(.*?)```", text, re.DOTALL)
    assert training is not None
    (tmp_path / "churn").mkdir()
    (tmp_path / "churn" / "train.py").write_text(training[1], encoding="utf-8")
    done = run_commands(script(text, free_port()), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "labels equal" in done.stderr
    assert "label: leaves" in done.stdout
    scored = list(csv.DictReader((tmp_path / "churn" / "scored.csv").read_text().splitlines()))
    assert len(scored) == 100
    assert {row["label"] for row in scored} == {"leaves", "stays"}
    manifest = (tmp_path / "churn" / "deployment.json").read_text()
    assert "registry.example.com/edge/churn@sha256:" in manifest
