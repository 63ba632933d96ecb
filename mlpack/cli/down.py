"""``mlpack down``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.api.requests import Down
from mlpack.cli import console

if TYPE_CHECKING:
    from mlpack.api.up import DownResult


@console.command(
    "down",
    Down,
    examples="""
    mlpack down
    mlpack down vans.json --dry-run
    """,
)
@console.deployment
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and change nothing.")
def down(request: Down) -> None:
    """Stop and remove what mlpack up started.

    FILE is the manifest that mlpack up was run with; it is not read, and need not exist any
    more. docker compose stops and removes the containers and their network. Images stay, and
    so do volumes that have a name.
    """
    done = console.project().down(request)
    console.answer(done, lambda: _text(done))


def _text(done: DownResult) -> str:
    if not done.removed and not done.network:
        others = f"; {', '.join(done.others)} is running" if done.others else ""
        return f"no containers of {done.deployment} are here{others}"
    parts = [*done.removed, *(["the network"] if done.network else [])]
    return f"{'would remove' if done.dry_run else 'removed'} {', '.join(parts)}"
