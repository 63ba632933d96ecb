"""``mlpack status``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mlpack.cli import options, output

if TYPE_CHECKING:
    from mlpack.plan.status import GroupStatus


@options.command(
    "status",
    examples="""
    mlpack status
    mlpack status --device-group vans --watch
    mlpack status --json
    """,
)
@options.optional_group
@click.option("--watch", is_flag=True, help="Look again and again, until all is complete.")
@click.option(
    "--poll", type=options.TIME, default="30s", show_default=True, help="How often --watch looks."
)
def status(name: str, watch: bool, poll: int) -> None:
    """Show how the rollouts to the device groups stand.

    For each group its latest release, and a bar per stage: how many of the devices up to
    that stage run it. How many have it from the hub is the hub's own count, some minutes old.
    """
    from mlpack.api.status import status as look

    project = options.project()
    hub = options.hub(project)
    while True:
        found = look(project, hub, name)
        if watch and sys.stdout.isatty():
            click.clear()
        _show(found)
        if not found:
            output.note("mlpack.toml has no device group: mlpack groups says how to add one")
        if not watch or all(each.current is None or _still(each) for each in found):
            return
        options.sleep(poll)


def _show(found: tuple[GroupStatus, ...]) -> None:
    from mlpack.render.status import status_blocks

    document = {"groups": [each.to_json() for each in found]}
    output.answer_blocks(document, [block for each in found for block in status_blocks(each)])


def _still(each: GroupStatus) -> bool:
    return each.current is not None and each.current.state == "complete"
