"""Mutated patches, a hundred thousand of each version in CI, in a process that may take 2 GiB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support import repeats

COUNT = repeats(400, 120_000)


def test_a_mutated_patch_is_refused_or_makes_the_new_file() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.runtime.patch.fuzz", str(COUNT)],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for version in (1, 2):
        assert f"version {version}: {COUNT} mutated patches, no wrong byte" in done.stdout
