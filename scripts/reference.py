"""Write docs/reference/cli.md from the commands themselves, so that it cannot lie.

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

## Output

The answer goes to stdout; notes, progress and errors go to stderr. `-q` before the command leaves
notes and progress out, `-v` adds the time of each step and the causes of an error. A terminal
gets colors, wrapped lines and tables of its width; a column that does not fit is left out and
named below. A pipe gets none of that; `NO_COLOR` and `FORCE_COLOR` are honoured.

| status | meaning |
|---|---|
| 0 | done |
| 1 | refused or failed: a file, setting, version, registry or network is not as needed |
| 2 | the command line itself cannot be right, whatever project, disk and network hold |
| 3 | a budget or a policy refused |
| 130 | interrupted; nothing half-done was left |
| 141 | the reader of the pipe went away |

With `--json` (or `MLPACK_JSON=1`) stdout has one JSON document, and an error is one line of JSON,
the last of stderr: `{"error": {"message": …, "hint": …, "status": 1}}`
([schema](schemas/cli/error.schema.json)). In every document `bytes` or `…_bytes` is a size,
`path` a file, `digest` content as `sha256:…`, `platform` an `os/architecture`, and an amount of
money a text. In a `transfer`, `total` is the sum of its parts, all in bytes. `deviceId` and
`lastSeen` in `devices` are the IoT hub's names. JSON Schemas: {schemas}.

"""
SCHEMAS = Path(__file__).resolve().parents[1] / "docs" / "reference" / "schemas" / "cli"
COLUMNS = "92"
"""click leaves two columns free."""

CALL = "import sys; sys.argv[0] = 'mlpack'; from mlpack.cli.main import main; main()"


def reference() -> str:
    """The whole page."""
    names = sorted(path.name.removesuffix(".schema.json") for path in SCHEMAS.iterdir())
    links = ", ".join(f"[{name}](schemas/cli/{name}.schema.json)" for name in names)
    head = HEAD.replace("{schemas}", links)
    return "".join([head, *_sections((), cli)]).rstrip() + "\n"


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
