"""``mlpack rollback``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.api.requests import Rollback
from mlpack.cli import console
from mlpack.humanize import counted, size
from mlpack.json_document import document

if TYPE_CHECKING:
    from mlpack.api.rollback import PreparedRollback


@console.command(
    "rollback",
    Rollback,
    examples="""
    mlpack rollback --device-group vans                    to the release before
    mlpack rollback --device-group vans --to fan:1 --yes
    mlpack rollback --device-group vans --dry-run --json
    """,
)
@console.device_group
@click.option("--to", default="", metavar="NAME:VERSION|none", help="Default: the one before.")
@click.option("--dry-run", is_flag=True, help="Show what would be done; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def rollback(request: Rollback, dry_run: bool, yes: bool) -> None:
    """Go back to an earlier release, which the devices still hold.

    Deletes the deployments above it, so that it applies again. Its image is still on the
    devices, so they fetch no layer, unless a device removed images unused for a week.
    """
    project, group = console.project(), request.device_group
    found = project.prepare_rollback(request)
    if not found.gone:
        console.note(f"{group} has {found.release} already")
    else:
        console.note(_sentence(found))
    if dry_run:
        console.note("nothing was changed: --dry-run")
    elif found.gone:
        console.agree(f"return {group} to {found.release}?", yes=yes)
        project.rollback(request, found)
    console.answer({**document(found), "dry_run": dry_run}, f"{group} {found.release}")


def _sentence(found: PreparedRollback) -> str:
    moved = counted(found.devices, "device")
    said = f"{found.gone[0].release} to {found.release} on {moved} of {found.group.name}"
    if found.heir is None:
        return f"{said}: they will run no release"
    if found.transfer is None:
        return f"{said}; what they fetch is unknown, because an image is not in this project"
    layers = "no layer" if not found.transfer.layers else f"layers of {size(found.transfer.layers)}"
    total = found.transfer.total
    whole = size(total * found.devices)
    return f"{said}: {layers}, {size(total)} each for requests to the registry, {whole}"
