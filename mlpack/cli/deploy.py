"""``mlpack deploy``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.api.requests import Deploy
from mlpack.cli import console
from mlpack.errors import UsageError
from mlpack.json_document import document

if TYPE_CHECKING:
    from mlpack.api.project import Project
    from mlpack.rollout.run import PreparedRollout, RolloutResult


@console.command(
    "deploy",
    Deploy,
    examples="""
    mlpack deploy --device-group vans --base               once: IoT Edge's own modules
    mlpack deploy --device-group vans --dry-run            the plan, and what would be done
    mlpack deploy --device-group vans fan:2 --wait         asks, then goes through every stage
    mlpack deploy --device-group vans --yes                one step; run it again to go on
    mlpack deploy --device-group vans --stages 1%,100% --max-failures 1% --wait --yes
    """,
)
@click.argument("release", default="", metavar="[NAME[:VERSION]]")
@console.device_group
@click.option("--stages", type=console.STAGES, help="Shares of the group: 1%,10%,50%,100%.")
@click.option("--success", type=console.SHARE, help="Share of a stage that must run it first.")
@click.option("--max-failures", type=console.SHARE, help="Share of a stage that may fail.")
@click.option("--soak", type=console.TIME, help="How long a stage lasts at least: 30m, 2h.")
@click.option("--wait", is_flag=True, help="Stay, and go through every stage.")
@click.option(
    "--poll", type=console.TIME, default="30s", show_default=True, help="How often --wait looks."
)
@click.option("--timeout", type=console.TIME, help="How long --wait stays at most; then status 3.")
@click.option("--again", is_flag=True, help="Try a release that was undone on this group before.")
@click.option("--base", is_flag=True, help="Create the group's base deployment instead.")
@click.option("--dry-run", is_flag=True, help="Show the plan; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def deploy(request: Deploy, base: bool, dry_run: bool, yes: bool) -> None:
    """Roll a release out to a device group, stage by stage.

    Prints the plan (devices, bytes, cost, time) and asks. Creates one layered deployment
    for the release, and widens its target condition when enough devices of a stage run it;
    when too many fail it deletes the deployment, and the release before applies again (status
    3). The hub keeps the whole state: after an interruption run the command again to continue;
    at the end it changes nothing. The release must have been pushed.
    """
    if base and request.release:
        raise UsageError(
            "--base creates the base deployment, which contains no release",
            hint="run the command twice, first with --base",
        )
    project = console.project()
    if base:
        _base(project, request.device_group, dry_run=dry_run, yes=yes)
        return
    prepared = project.prepare_deploy(request)
    for each in prepared.rivals:
        console.note(f"the deployment {each} has a higher priority and wins where both apply")
    if dry_run:
        console.answer({**_document(prepared, None), "dry_run": True}, lambda: _shown(prepared))
        console.note("nothing was changed: --dry-run")
        return
    console.note(f"{_shown(prepared)}\n")
    if _acts(prepared):
        console.agree(_question(prepared), yes=yes)
    _end(prepared, project.deploy(request, prepared), wait=request.wait)


def _base(project: Project, group: str, *, dry_run: bool, yes: bool) -> None:
    found = project.prepare_base_deployment(group)
    if found.exists:
        console.note(f"{found.id} is on the hub already")
    elif dry_run:
        console.note(f"would create {found.id} for {found.condition}")
    else:
        console.agree(
            f"create {found.id}: IoT Edge's own modules on every device of {group}?", yes=yes
        )
        project.create_base_deployment(found)
        console.note(f"created {found.id} for {found.condition}")
    console.answer({**document(found), "dry_run": dry_run}, found.id)


def _shown(prepared: PreparedRollout) -> str:
    """The plan, or the state of a rollout that was begun."""
    from mlpack.render.document import text
    from mlpack.rollout.show import plan_blocks

    rollout, mine = prepared.rollout, prepared.seen.deployment(prepared.rollout.id)
    if prepared.fleet is not None:
        return text(plan_blocks(prepared.fleet), console.table, console.width())
    if mine is not None and mine.state == "rolling":
        where = f"stage {mine.stage + 1} of {len(rollout.policy.stages)}"
        return f"{rollout.release} is under way on {rollout.group}: {where}"
    return f"{rollout.group} has {rollout.release} already"


def _acts(prepared: PreparedRollout) -> bool:
    from mlpack.rollout.decide import Done, Wait

    return not isinstance(prepared.next, Done | Wait)


def _question(prepared: PreparedRollout) -> str:
    rollout = prepared.rollout
    verb = "continue to roll out" if prepared.begun else "roll out"
    return f"{verb} {rollout.release} to {rollout.group}?"


def _document(prepared: PreparedRollout, outcome: RolloutResult | None) -> dict[str, object]:
    return {**(document(outcome) if outcome else {}), "plan": prepared.fleet}


def _end(prepared: PreparedRollout, outcome: RolloutResult, *, wait: bool) -> None:
    from mlpack.rollout.decide import PolicyRefused

    rollout, looked = outcome.rollout, outcome.looked
    if outcome.undone:
        console.answer(_document(prepared, outcome), "")
        raise PolicyRefused(
            f"{rollout.release} was undone on {rollout.group}: {outcome.undone}",
            hint=f"look at a device that failed: mlpack devices --device-group {rollout.group}",
        )
    if outcome.state == "rolling" and not wait:
        console.note("run the command again to continue, or stay until the end: --wait")
    said = f"{rollout.group} {rollout.release} {outcome.state}"
    if looked.targeted:
        said += f": {looked.running:,} of {looked.targeted:,} run it"
    console.answer(_document(prepared, outcome), said)
