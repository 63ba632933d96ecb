"""``mlpack status``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mlpack.cli import options, output

if TYPE_CHECKING:
    from mlpack.api.status import GroupStatus


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
    document = {"groups": [each.to_json() for each in found]}
    output.answer(document, lambda: "\n\n".join(map(_group, found)))


def _still(each: GroupStatus) -> bool:
    return each.current is not None and each.current.state == "complete"


def _group(each: GroupStatus) -> str:
    from mlpack.plan import deployed
    from mlpack.render.rollout import bar

    current = each.current
    if current is None:
        return f"{each.group.name}: no release is deployed"
    since = current.labels.get(deployed.SINCE, "").replace("T", " ").removesuffix("Z")
    lines = [
        f"{each.group.name}: {current.release}, {current.state}, this stage since {since} UTC",
        f"{each.targeted:,} meant, {each.applied:,} have it from the hub, {each.running:,} run it, "
        f"{each.failed:,} failed, {each.silent:,} silent",
    ]
    rows = [
        (
            stage.share,
            f"{stage.devices:,}",
            bar(stage.running, stage.devices),
            f"{stage.running:,}",
            stage.state,
        )
        for stage in each.stages
    ]
    headers = ("up to", "devices", "", "run it", "")
    lines += ["", output.table(headers, rows, right={0, 1, 3})]
    said = sorted(each.reasons.items(), key=lambda pair: -pair[1])
    lines += [f"{count:,} say: {reason}" for reason, count in said[:5]]
    if each.older:
        lines.append("kept below it: " + ", ".join(older.release for older in each.older))
    return "\n".join(lines)
