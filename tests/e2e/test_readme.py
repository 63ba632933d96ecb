"""The README's tour, typed as it stands."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.console_blocks import CHECKOUT, commands, run_commands
from tests.e2e.engines import needs


def tour() -> list[str]:
    """The commands of the block after ``<!-- tour -->``."""
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    return commands(text.partition("<!-- tour -->\n")[2].partition("\n```\n")[0] + "\n```")


def test_the_tour_runs_as_it_stands(tmp_path: Path) -> None:
    needs("mmdebstrap", "skopeo")
    lines = tour()
    assert len(lines) == 20
    done = run_commands(lines, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "fan" / "deployment.json").is_file()
    assert '"io.mlpack.version":"2"' in done.stdout.replace(" ", "")
