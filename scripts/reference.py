"""Write docs/reference.md from the commands themselves, so that it cannot lie.

``make docs`` runs it; a test fails when the file is not what it writes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click

from mlpack.cli.main import cli

HEAD = """# Command reference

Written by `make docs` from the commands' own help; do not edit.

"""
COLUMNS = "92"
"""click leaves two columns free."""

CALL = "import sys; sys.argv[0] = 'mlpack'; from mlpack.cli.main import main; main()"


def reference() -> str:
    """The whole page."""
    return "".join([HEAD, *_sections((), cli)]).rstrip() + "\n"


def _sections(names: tuple[str, ...], command: click.Command) -> list[str]:
    parts = [_section(names)]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                parts += _sections((*names, name), child)
    return parts


def _section(names: tuple[str, ...]) -> str:
    # As a user asks: in this process, click would repeat the help option it made for another call.
    done = subprocess.run(
        [sys.executable, "-c", CALL, *names, "--help"],
        env={**os.environ, "COLUMNS": COLUMNS, "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    text = re.sub(r"[ \t]+$", "", done.stdout.rstrip("\n"), flags=re.MULTILINE)
    return f"## {' '.join(('mlpack', *names))}\n\n```text\n{text}\n```\n\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
