"""``mlpack deploy``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from mlpack.cli import options, output

if TYPE_CHECKING:
    from decimal import Decimal

    from mlpack.api.deploy import Prepared
    from mlpack.api.hub import Hub
    from mlpack.api.rollout_run import Outcome
    from mlpack.stores.project import Project


@options.command(
    "deploy",
    examples="""
    mlpack deploy --device-group vans --base               once: IoT Edge's own modules
    mlpack deploy --device-group vans --dry-run            the plan, and what would be done
    mlpack deploy --device-group vans fan:2 --wait         asks, then goes through every stage
    mlpack deploy --device-group vans --yes                one step; run it again to go on
    mlpack deploy --device-group vans --stages 1%,100% --max-failures 1% --wait --yes
    """,
)
@click.argument("release", default="", metavar="[NAME[:VERSION]]")
@options.device_group
@click.option("--stages", type=options.STAGES, help="Shares of the group: 1%,10%,50%,100%.")
@click.option("--success", type=options.SHARE, help="Share of a stage that must run it first.")
@click.option("--max-failures", type=options.SHARE, help="Share of a stage that may fail.")
@click.option("--soak", type=options.TIME, help="How long a stage lasts at least: 30m, 2h.")
@click.option("--wait", is_flag=True, help="Stay, and go through every stage.")
@click.option(
    "--poll", type=options.TIME, default="30s", show_default=True, help="How often --wait looks."
)
@click.option("--timeout", type=options.TIME, help="How long --wait stays at most; then status 3.")
@click.option("--again", is_flag=True, help="Try a release that was undone on this group before.")
@click.option("--base", is_flag=True, help="Create the group's base deployment instead.")
@click.option("--dry-run", is_flag=True, help="Show the plan; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def deploy(
    release: str,
    name: str,
    stages: tuple[Decimal, ...] | None,
    success: Decimal | None,
    max_failures: Decimal | None,
    soak: int | None,
    wait: bool,
    poll: int,
    timeout: int | None,
    again: bool,
    base: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Roll a release out to a device group, stage by stage.

    Prints the plan (devices, bytes, cost, time) and asks. Creates one layered deployment
    for the release, and widens its target condition when enough devices of a stage run it;
    when too many fail it deletes the deployment, and the release before applies again (status
    3). Everything is kept in the hub: run the command again after an interruption, and it goes
    on; when all is done it changes nothing. The release must have been pushed.
    """
    from mlpack.api.deploy import Wanted, check_release_or_base, prepare
    from mlpack.api.rollout_run import Clock, run

    project = options.project()
    check_release_or_base(release, base)
    hub = options.hub(project)
    if base:
        _base(project, hub, name, dry_run=dry_run, yes=yes)
        return
    wanted = Wanted(
        stages=stages, success=success, max_failures=max_failures, soak_seconds=soak, again=again
    )
    with output.progress("reading twins", counting=True) as bar:
        prepared = prepare(project, hub, name, release, options.now(), wanted=wanted, advance=bar)
    for each in prepared.rivals:
        output.note(
            f"the deployment {each} has a higher priority: devices it means, too, keep what it says"
        )
    if dry_run:
        output.answer({**_document(prepared, None), "dry_run": True}, lambda: _shown(prepared))
        output.note("nothing was changed: --dry-run")
        return
    output.note(f"{_shown(prepared)}\n")
    if _acts(prepared):
        output.agree(_question(prepared), yes=yes)
    clock = Clock(now=options.now, sleep=options.sleep, poll_seconds=poll, timeout_seconds=timeout)
    outcome = run(
        prepared,
        hub,
        clock,
        wait=wait,
        say=output.note,
        tagging=lambda total: output.progress("tagging devices", total, counting=True),
    )
    _end(prepared, outcome, wait=wait)


def _base(project: Project, hub: Hub, name: str, *, dry_run: bool, yes: bool) -> None:
    from mlpack.api.base_deployment import create_base, prepare_base

    found = prepare_base(project, hub, name, os.environ)
    if found.exists:
        output.note(f"{found.id} is on the hub already")
    elif dry_run:
        output.note(f"would create {found.id} for {found.condition}")
    else:
        output.agree(
            f"create {found.id}: IoT Edge's own modules on every device of {name}?", yes=yes
        )
        create_base(hub, found)
        output.note(f"created {found.id} for {found.condition}")
    output.answer({**found.to_json(), "dry_run": dry_run}, found.id)


def _shown(prepared: Prepared) -> str:
    """The plan, or where a rollout stands that was begun."""
    from mlpack.render import document
    from mlpack.render.rollout import plan_blocks

    rollout, mine = prepared.rollout, prepared.seen.observation.deployment(prepared.rollout.id)
    if prepared.fleet is not None:
        return document.text(plan_blocks(prepared.fleet), output.table, output.width())
    if mine is not None and mine.state == "rolling":
        where = f"stage {mine.stage + 1} of {len(rollout.policy.stages)}"
        return f"{rollout.release} is under way on {rollout.group}: {where}"
    return f"{rollout.group} has {rollout.release} already"


def _acts(prepared: Prepared) -> bool:
    from mlpack.plan.actions import Done, Wait

    return not isinstance(prepared.next, Done | Wait)


def _question(prepared: Prepared) -> str:
    rollout = prepared.rollout
    verb = "go on rolling out" if prepared.begun else "roll out"
    return f"{verb} {rollout.release} to {rollout.group}?"


def _document(prepared: Prepared, outcome: Outcome | None) -> dict[str, object]:
    plan = prepared.fleet.to_json() if prepared.fleet else None
    return {**(outcome.to_json() if outcome else {}), "plan": plan}


def _end(prepared: Prepared, outcome: Outcome, *, wait: bool) -> None:
    from mlpack.api.deploy import PolicyRefused

    rollout, looked = outcome.rollout, outcome.looked
    if outcome.undone:
        output.answer(_document(prepared, outcome), "")
        raise PolicyRefused(
            f"{rollout.release} was undone on {rollout.group}: {outcome.undone}",
            hint=f"look at a device that failed: mlpack devices --device-group {rollout.group}",
        )
    if outcome.state == "rolling" and not wait:
        output.note("run the command again to go on, or stay with it: --wait")
    said = f"{rollout.group} {rollout.release} {outcome.state}"
    if looked.targeted:
        said += f": {looked.running:,} of {looked.targeted:,} run it"
    output.answer(_document(prepared, outcome), said)
