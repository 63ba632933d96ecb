"""``mlpack plan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlpack.cli import options, output

if TYPE_CHECKING:
    from decimal import Decimal


@options.command(
    "plan",
    examples="""
    mlpack plan --device-group vans
    mlpack plan --device-group vans fan:2 --stages 5%,100%
    mlpack plan --device-group vans --fleet fleet.json
    mlpack plan --device-group vans --json
    """,
)
@click.argument("release", default="", metavar="[NAME[:VERSION]]")
@options.device_group
@options.fleet
@click.option("--stages", type=options.STAGES, help="Shares of the group: 1%,10%,50%,100%.")
@click.option("--markdown", is_flag=True, help="Print Markdown, for a pull request or a page.")
def plan(
    release: str, name: str, fleet: Path | None, stages: tuple[Decimal, ...] | None, markdown: bool
) -> None:
    """Show what a release takes on a device group; nothing is sent.

    The devices by what they hold, and for each such cohort the bytes of mlpack's layer, of
    the usual build and of the whole image; what they cost by the group's tariff; how long a
    device takes at the speed of the group's link.
    """
    from mlpack.api.devices import devices
    from mlpack.api.groups import find_group
    from mlpack.api.plan import plan as work_out
    from mlpack.render.rollout import plan_blocks

    project = options.project()
    group = find_group(project, name)
    with output.progress("reading twins", counting=True) as bar:
        held = devices(
            project, name, fleet=fleet, open_hub=lambda: options.hub(project), advance=bar
        )
    found = work_out(project, group, release, held.devices, stages=stages or ())
    output.answer_blocks(found.to_json(), plan_blocks(found), markdown=markdown)
