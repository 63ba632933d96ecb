"""``mlpack devices``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlpack.cli import options, output
from mlpack.words import counted

if TYPE_CHECKING:
    from mlpack.plan.fleet import Device

SHOWN = 50


@options.command(
    "devices",
    examples="""
    mlpack devices --device-group vans
    mlpack devices --device-group vans --holds fan:1
    mlpack devices --device-group vans --json > fleet.json
    mlpack devices --device-group vans --fleet fleet.json --all
    """,
)
@options.device_group
@options.fleet
@click.option("--holds", default="", metavar="NAME:VERSION", help="Only those that hold this.")
@click.option("--all", "every", is_flag=True, help=f"Show every device, not the first {SHOWN}.")
def devices(name: str, fleet: Path | None, holds: str, every: bool) -> None:
    """Show the devices of a group, and what each runs.

    Asked of the IoT hub: the release each edgeAgent reports, by the digest of its image, the
    module's status, and when the hub last heard of the device. --json writes a fleet file
    that --fleet reads, here and for mlpack plan.
    """
    from dataclasses import replace

    from mlpack.api.devices import devices as list_devices
    from mlpack.plan.fleet import held

    project = options.project()
    with output.progress("reading twins", counting=True) as bar:
        found = list_devices(
            project, name, fleet=fleet, open_hub=lambda: options.hub(project), advance=bar
        )
    if holds:
        kept = tuple(each for each in found.devices if each.holds == holds)
        found = replace(found, devices=kept)
    shown = found.devices if every else found.devices[:SHOWN]
    said = ", ".join(f"{count:,} on {what}" for what, count in held(found.devices).items())
    output.note(f"{counted(found.count, 'device')} in {name}{f': {said}' if said else ''}")
    output.answer(found.to_json(), lambda: _table(shown) if shown else "")
    if len(shown) < len(found.devices):
        output.note(f"and {len(found.devices) - len(shown):,} more: --all shows them")


def _table(devices: tuple[Device, ...]) -> str:
    headers = ("device", "holds", "status", "platform", "last seen (UTC)")
    rows = [
        (
            each.id if each.count == 1 else f"{each.id} and like it, {each.count:,}",
            each.holds,
            each.status or "says nothing",
            each.platform or "-",
            each.seen[: len("2026-11-20T20:13")].replace("T", " ") or "never",
        )
        for each in devices
    ]
    return output.table(headers, rows)
