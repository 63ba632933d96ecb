"""``mlpack report``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.cli import options, output
from mlpack.model.recipe import MAX_DEVICES

if TYPE_CHECKING:
    from mlpack.oci.descriptor import Platform


@options.command(
    "report",
    examples="""
    mlpack report
    mlpack report fan:2 --from fan:1 --devices 25000
    mlpack report $(mlpack build fan)
    mlpack report fan --tariff origin-bundle --markdown > report.md
    mlpack report fan --from none --engine podman --json
    mlpack report fan:2 --check                    exit status 3 over [budget]
    mlpack report --rollout 3                      planned, and what the devices said
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
@click.option("--engine", default="", metavar="NAME", help="moby, containerd or podman only.")
@click.option(
    "--devices", type=options.Count(1, MAX_DEVICES), metavar="N", help="Default: [fleet] devices."
)
@click.option(
    "--tariff", metavar="NAME|FILE", help="A tariff mlpack ships, or a file. Default: [fleet]."
)
@click.option("--platform", type=options.PLATFORM, help="Which of the release's images.")
@click.option(
    "--rollout",
    type=click.IntRange(0),
    metavar="N",
    help="A rollout of the ledger instead, planned and measured; 0 is the last one.",
)
@click.option("--check", is_flag=True, help="End with status 3 where [budget] allows less.")
@click.option("--markdown", is_flag=True, help="Print Markdown, for a pull request or a page.")
def report(
    release: str,
    old: str,
    engine: str,
    devices: int | None,
    tariff: str | None,
    platform: Platform | None,
    rollout: int | None,
    check: bool,
    markdown: bool,
) -> None:
    """Show bytes and money per release and fleet.

    NAME alone is the model's newest release; what mlpack build prints is taken as well.
    The bytes a device fetches, by part and engine; the same content as a whole
    image and as the usual build; and what a fleet pays for each. What no number
    includes is listed and counted. Where mlpack.toml has a [budget], it is held against it.
    """
    from mlpack.api.report import report as work_out
    from mlpack.plan.budget import check as hold
    from mlpack.render.budget import budget_blocks
    from mlpack.render.report import report_blocks
    from mlpack.stores.tariffs import read_tariff

    if rollout is not None:
        _rollout(rollout, markdown=markdown)
        return
    project = options.project()
    found = work_out(
        project,
        release,
        old=old,
        engine_name=engine,
        devices=devices or 0,
        tariff=read_tariff(tariff, options.settings().directory) if tariff else None,
        platform=platform,
        registries=options.registries,
    )
    document, blocks = found.to_json(), report_blocks(found)
    budget = project.recipe.budget
    verdict = None if budget.empty and not check else hold(found, budget)
    if verdict is not None:
        document["budget"] = verdict.to_json()
        blocks = (blocks[0], *budget_blocks(verdict), *blocks[1:])
    output.answer_blocks(document, blocks, markdown=markdown)
    if verdict is not None and check:
        verdict.require()


def _rollout(number: int, *, markdown: bool) -> None:
    from mlpack.api.rollouts import rollout_report
    from mlpack.render.rollout import measured_blocks

    found = rollout_report(options.project(), number)
    blocks = measured_blocks(found.release, found.record.planned, found.record.measured)
    output.answer_blocks(found.to_json(), blocks, markdown=markdown)
