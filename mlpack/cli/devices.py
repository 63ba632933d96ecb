"""``mlpack devices``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.api.requests import Devices
from mlpack.cli import console
from mlpack.humanize import counted

if TYPE_CHECKING:
    from mlpack.plan.fleet import Device

SHOWN = 50


@console.command(
    "devices",
    Devices,
    examples="""
    mlpack devices --device-group vans
    mlpack devices --device-group vans --holds fan:1
    mlpack devices --device-group vans --json > fleet.json
    mlpack devices --device-group vans --fleet fleet.json --all
    """,
)
@console.device_group
@console.fleet
@click.option("--holds", default="", metavar="NAME:VERSION", help="Only those that hold this.")
@click.option("--all", "every", is_flag=True, help=f"Show every device, not the first {SHOWN}.")
def devices(request: Devices, every: bool) -> None:
    """Show the devices of a group, and what each runs.

    Read from the IoT hub: the release each edgeAgent reports, by the digest of its image, the
    module's status, and when the hub last heard of the device. --json writes a fleet file
    that --fleet reads, here and for mlpack plan.
    """
    from mlpack.plan.fleet import count_held

    found = console.project().devices(request)
    shown = found.devices if every else found.devices[:SHOWN]
    held = count_held(found.devices).items()
    parts = ", ".join(f"{count:,} on {_held(what)}" for what, count in held)
    summary = f"{counted(found.count, 'device')} in {found.group.name}"
    console.note(f"{summary}: {parts}" if parts else summary)
    console.answer(found, lambda: _table(shown) if shown else "")
    if len(shown) < len(found.devices):
        console.note(f"and {len(found.devices) - len(shown):,} more: --all shows them")


def _held(holds: str) -> str:
    return "nothing" if holds == "none" else holds


def _table(devices: tuple[Device, ...]) -> str:
    headers = ("device", "holds", "status", "platform", "last seen (UTC)")
    rows = [
        (
            each.id if each.count == 1 else f"{each.id} ({each.count:,} devices)",
            _held(each.holds),
            each.status or "no report",
            each.platform or "-",
            each.seen[: len("2026-11-20T20:13")].replace("T", " ") or "never",
        )
        for each in devices
    ]
    return console.table(headers, rows)
