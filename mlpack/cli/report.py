"""``mlpack report``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.api.requests import Report
from mlpack.cli import console
from mlpack.kinds import ENGINE_CHOICE
from mlpack.settings.project_settings import MAX_DEVICES

if TYPE_CHECKING:
    from mlpack.api.report import FleetReport


@console.command(
    "report",
    Report,
    examples="""
    mlpack report
    mlpack report fan:2 --from fan:1 --devices 25000
    mlpack report $(mlpack build fan)
    mlpack report fan --tariff origin-bundle --markdown > report.md
    mlpack report fan --from none --engine podman --json
    mlpack report fan:2 --check                    exit status 3 over [budget]
    mlpack report --rollout 3                      planned, and what the devices reported
    """,
)
@click.argument("release", default="", metavar="[NAME[:VERSION]]")
@click.option(
    "--from",
    "old",
    default="",
    metavar="OLD",
    help="What the devices hold: NAME:VERSION, base or none. Default: the release before.",
)
@click.option("--engine", default="", metavar="NAME", help=f"{ENGINE_CHOICE} only.")
@click.option(
    "--devices", type=console.Count(1, MAX_DEVICES), metavar="N", help="Default: [fleet] devices."
)
@click.option(
    "--tariff", metavar="NAME|FILE", help="A tariff mlpack ships, or a file. Default: [fleet]."
)
@click.option("--platform", type=console.PLATFORM, help="Which of the release's images.")
@click.option(
    "--rollout",
    type=click.IntRange(0),
    metavar="N",
    help="A rollout of the ledger instead, planned and measured; 0 is the last one.",
)
@click.option("--check", is_flag=True, help="Exit with status 3 if it is over [budget].")
@click.option("--markdown", is_flag=True, help="Print Markdown, for a pull request or a page.")
def report(request: Report, rollout: int | None, markdown: bool) -> None:
    """Show bytes and money per release and fleet.

    NAME alone is the model's newest release; what mlpack build prints is taken as well.
    The bytes a device fetches, by part and engine; the same content as a whole
    image and as the usual build; and what a fleet pays for each. What no number
    includes is listed. If mlpack.toml has a [budget], the update is compared with it.
    """
    from mlpack.plan.report import OverBudget

    if rollout is not None:
        _rollout(rollout, markdown=markdown)
        return
    try:
        _show(console.project().report(request), markdown=markdown)
    except OverBudget as error:
        found = getattr(error, "report", None)
        if found is not None:
            _show(found, markdown=markdown)
        raise


def _show(found: FleetReport, *, markdown: bool) -> None:
    from mlpack.render.document import Bullets, Heading
    from mlpack.render.report import budget_blocks, report_blocks

    blocks = report_blocks(found.report)
    if found.budget is not None:
        blocks = (blocks[0], *budget_blocks(found.budget), *blocks[1:])
    if found.never_started:
        blocks = (*blocks, Heading("Warnings"), Bullets(found.never_started))
    console.answer_blocks(found, blocks, markdown=markdown)


def _rollout(number: int, *, markdown: bool) -> None:
    from mlpack.rollout.show import measured_blocks

    found = console.project().rollout_report(number)
    blocks = measured_blocks(found)
    console.answer_blocks(found, blocks, markdown=markdown)
