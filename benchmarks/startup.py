"""The whole process: ``mlpack --help``, and ``mlpack build`` of a 6 KB model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import Case, interleaved, report
from tests.support import make_project

MLPACK = [sys.executable, "-m", "mlpack"]


def main(folder: Path) -> None:
    """Time both beside an empty Python, and beside one that only imports click."""
    project = make_project(folder / "project")
    model = folder / "model"
    model.mkdir()
    (model / "weights.bin").write_bytes(os.urandom(6000))
    here = [*MLPACK, "-C", str(project.root)]
    subprocess.run([*here, "register", str(model)], check=True, capture_output=True)
    cases = [
        Case("python -c pass", [sys.executable, "-c", "pass"]),
        Case("python -c 'import click'", [sys.executable, "-c", "import click"]),
        Case("mlpack --help", [*MLPACK, "--help"]),
        Case("mlpack build, 6 KB model", [*here, "build", "fan"]),
    ]
    report("start-up (whole process)", cases, interleaved(cases, runs=15))
