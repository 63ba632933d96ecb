"""``mlpack rollback``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.cli import options, output
from mlpack.words import counted, size

if TYPE_CHECKING:
    from mlpack.api.rollback import Rollback


@options.command(
    "rollback",
    examples="""
    mlpack rollback --device-group vans                    to the release before
    mlpack rollback --device-group vans --to fan:1 --yes
    mlpack rollback --device-group vans --dry-run --json
    """,
)
@options.device_group
@click.option("--to", default="", metavar="NAME:VERSION|none", help="Default: the one before.")
@click.option("--dry-run", is_flag=True, help="Show what would be done; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def rollback(name: str, to: str, dry_run: bool, yes: bool) -> None:
    """Go back to an earlier release, which the devices still hold.

    Deletes the deployments above it, so that it applies again. Its image is on the devices
    still, so that no layer is fetched, unless the device removed images it had not used for a week.
    """
    from mlpack.api.rollback import prepare_rollback, run_rollback

    project = options.project()
    hub = options.hub(project)
    found = prepare_rollback(project, hub, name, to)
    if not found.gone:
        output.note(f"{name} has {found.release} already")
    else:
        output.note(_sentence(found))
    if dry_run:
        output.note("nothing was changed: --dry-run")
    elif found.gone:
        output.agree(f"take {name} back to {found.release}?", yes=yes)
        run_rollback(found, hub, options.now, say=output.note)
    output.answer({**found.to_json(), "dry_run": dry_run}, f"{name} {found.release}")


def _sentence(found: Rollback) -> str:
    moved = counted(found.devices, "device")
    said = f"{found.gone[0].release} to {found.release} on {moved} of {found.group.name}"
    if found.heir is None:
        return f"{said}: they will run no release"
    if found.transfer is None:
        return f"{said}; what they fetch is not known, as an image is not in this project"
    layers = "no layer" if not found.transfer.layers else f"layers of {size(found.transfer.layers)}"
    total = found.transfer.total
    return (
        f"{said}: {layers}, {size(total)} each to ask the registry, {size(total * found.devices)}"
    )
