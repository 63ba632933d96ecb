"""The commands of a page, run as they are written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def commands(text: str) -> list[str]:
    """The commands of the blocks of console in ``text``, in their order."""
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


def run_commands(lines: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run the lines as one shell would, with this Python's programs; the first failure ends it."""
    script = "\n".join(f"echo '$ '{_quoted(line)} >&2\n{line}" for line in lines)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=directory,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def _quoted(line: str) -> str:
    return "'" + line.replace("'", "'\\''") + "'"
