"""The whole process: ``mlpack --help``, and ``mlpack build`` of a 6 KB model."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from benchmarks.measure import Case, installed, interleaved, report
from tests.support import make_project


def main(folder: Path) -> None:
    """Time both, compared with an empty Python and one that only imports click."""
    project = make_project(folder / "project")
    model = folder / "model"
    model.mkdir()
    (model / "weights.bin").write_bytes(os.urandom(6000))
    mlpack = installed(folder)
    python = str(mlpack.with_name("python"))
    here = [str(mlpack), "-C", str(project.root)]
    subprocess.run([*here, "register", str(model)], check=True, capture_output=True)
    cases = [
        Case("python -c pass", [python, "-c", "pass"]),
        Case("python -c 'import click'", [python, "-c", "import click"]),
        Case("mlpack --help", [str(mlpack), "--help"]),
        Case("mlpack build, 6 KB model", [*here, "build", "fan"]),
    ]
    report("start-up (whole process)", cases, interleaved(cases, runs=15))
