"""``mlpack plan``."""

from __future__ import annotations

import click

from mlpack.api.requests import Plan
from mlpack.cli import console


@console.command(
    "plan",
    Plan,
    examples="""
    mlpack plan --device-group vans
    mlpack plan --device-group vans fan:2 --stages 5%,100%
    mlpack plan --device-group vans --fleet fleet.json
    mlpack plan --device-group vans --json
    """,
)
@click.argument("release", default="", metavar="[NAME[:VERSION]]")
@console.device_group
@console.fleet
@click.option("--stages", type=console.STAGES, help="Shares of the group: 1%,10%,50%,100%.")
@click.option("--markdown", is_flag=True, help="Print Markdown, for a pull request or a page.")
def plan(request: Plan, markdown: bool) -> None:
    """Show what a release takes on a device group; nothing is sent.

    The devices by what they hold, and for each such cohort the bytes of mlpack's layer, of
    the usual build and of the whole image; what they cost by the group's tariff; how long a
    device takes at the speed of the group's link.
    """
    from mlpack.rollout.show import plan_blocks

    found = console.project().plan(request)
    console.answer_blocks(found, plan_blocks(found), markdown=markdown)
