"""``mlpack status``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mlpack.cli import console

if TYPE_CHECKING:
    from mlpack.rollout.show import GroupStatus


@console.command(
    "status",
    examples="""
    mlpack status
    mlpack status --device-group vans --watch
    mlpack status --json
    """,
)
@console.optional_group
@click.option("--watch", is_flag=True, help="Look again until all rollouts are complete.")
@click.option(
    "--poll", type=console.TIME, default="30s", show_default=True, help="How often --watch looks."
)
def status(device_group: str, watch: bool, poll: int) -> None:
    """Show the rollouts to the device groups.

    For each group its latest release, and a bar per stage: how many of the devices up to
    that stage run it. How many have received it is the hub's own count, a few minutes old.
    """
    project = console.project()
    while True:
        found = project.status(device_group)
        if watch and sys.stdout.isatty():
            click.clear()
        _show(found)
        if not found:
            console.note("mlpack.toml has no device group: mlpack groups shows how to add one")
        if not watch or all(
            each.current is None or each.current.state == "complete" for each in found
        ):
            return
        project.sleep(poll)


def _show(found: tuple[GroupStatus, ...]) -> None:
    from mlpack.rollout.show import status_blocks

    console.answer_blocks(
        {"groups": found}, [block for each in found for block in status_blocks(each)]
    )
