"""``mlpack down``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlpack.cli import options, output

if TYPE_CHECKING:
    from mlpack.api.down import Down


@options.command(
    "down",
    examples="""
    mlpack down
    mlpack down vans.json --dry-run
    """,
)
@options.deployment
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and change nothing.")
def down(deployment: Path, dry_run: bool) -> None:
    """Stop and remove what mlpack up started.

    FILE is the manifest that was given to mlpack up; it is not read, and need not be there
    any more. Containers end in the reverse of the order they started in; their network goes
    with them. Images stay, and so do volumes that have a name.
    """
    from mlpack.api import down as api

    done = api.down(options.settings().directory / deployment, output.note, dry_run=dry_run)
    output.answer(done.to_json(), lambda: _text(done))


def _text(done: Down) -> str:
    if not done.removed and not done.network:
        others = f"; of {', '.join(done.others)} there is something" if done.others else ""
        return f"nothing of {done.deployment} is here{others}"
    parts = [*done.removed, *(["the network"] if done.network else [])]
    return f"{'would remove' if done.dry_run else 'removed'} {', '.join(parts)}"
