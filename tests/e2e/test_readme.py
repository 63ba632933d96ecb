"""The README's tour, typed as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.engines import needs

CHECKOUT = Path(__file__).resolve().parents[2]


def tour() -> list[str]:
    """The commands of the block after ``<!-- tour -->``."""
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- tour -->\n```console\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return [line.removeprefix("$ ") for line in block[1].splitlines()]


def test_the_tour_runs_as_it_stands(tmp_path: Path) -> None:
    needs("mmdebstrap", "skopeo")
    commands = tour()
    assert len(commands) == 20
    script = "\n".join(f"echo '$ {line}' >&2\n{line}" for line in commands)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "fan" / "deployment.json").is_file()
    assert '"io.mlpack.version":"2"' in done.stdout.replace(" ", "")
