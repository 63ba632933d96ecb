"""Write docs/reference.md from the commands themselves, so that it cannot lie.

``make docs`` runs it; a test fails when the file is not what it writes.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from mlpack.cli.main import cli

HEAD = """# Command reference

Written by `make docs` from the commands' own help; do not edit.

"""


def reference() -> str:
    """The whole page."""
    context = click.Context(cli, info_name="mlpack", terminal_width=90, max_content_width=90)
    parts = [HEAD, _section("mlpack", cli, context)]
    parts += _children("mlpack", cli, context)
    return "".join(parts).rstrip() + "\n"


def _children(name: str, group: click.Group, parent: click.Context) -> list[str]:
    parts = []
    for child in group.list_commands(parent):
        command = group.get_command(parent, child)
        if command is None:
            continue
        context = click.Context(
            command, parent, child, terminal_width=90, max_content_width=90
        )
        parts.append(_section(f"{name} {child}", command, context))
        if isinstance(command, click.Group):
            parts += _children(f"{name} {child}", command, context)
    return parts


def _section(name: str, command: click.Command, context: click.Context) -> str:
    text = re.sub(r"[ \t]+$", "", command.get_help(context), flags=re.MULTILINE)
    return f"## {name}\n\n```text\n{text}\n```\n\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
