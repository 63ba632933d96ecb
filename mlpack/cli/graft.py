"""``mlpack graft``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.api.requests import Graft
from mlpack.cli import console
from mlpack.kinds import ENGINE_CHOICE
from mlpack.plan.refusals import warnings

if TYPE_CHECKING:
    from mlpack.api.graft import PlatformGraft


@console.command(
    "graft",
    Graft,
    examples="""
    mlpack graft docker-archive:v1.tar docker-archive:v2.tar -o oci:images:v2
    mlpack graft oci:images:v1 oci:built:latest -o oci:images:v2 --engine containerd
    mlpack graft registry.example.com/fan:1 oci:built:latest -o registry.example.com/fan:2
    mlpack graft fan:1 oci:built:latest -o fan:2     a release: mlpack report, diff, push
    mlpack diff oci:images:v1 oci:images:v2          what a device fetches now
    """,
)
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.option(
    "-o",
    "out",
    required=True,
    metavar="REF",
    help="Where it goes: NAME:VERSION in this project, oci:DIR:TAG, or a registry.",
)
@click.option("--engine", default="", metavar="NAME", help=f"{ENGINE_CHOICE}.")
@click.option("--platform", type=console.PLATFORM, help="Graft only the images for this platform.")
def graft(request: Graft) -> None:
    """Turn an image built by any tool into one layer on what devices hold.

    Compares the file systems of OLD and NEW, times left out, and writes OLD, one layer
    with what differs, and NEW's settings: for every platform that both have. What was
    written is read back and must have NEW's file system. Where NEW itself costs a device
    on OLD no more, NEW is written, and the answer says so; but nothing is written that
    the devices' engine refuses or unpacks to other files. OLD and NEW are written as
    for mlpack diff. As NAME:VERSION it is a release like those of mlpack build.
    """
    made = console.project().graft(request)
    for each in made.platforms:
        _notes(each, f"{each.platform}: " if len(made.platforms) > 1 else "")
    for why in dict.fromkeys(each.why for each in made.left_out):
        names = ", ".join(str(each.platform) for each in made.left_out if each.why == why)
        console.note(f"left out, since {why}: {names}")
    console.note_conversion(made.converted)
    console.answer(made, made.reference)


def _notes(made: PlatformGraft, where: str) -> None:
    found, choice = made.difference, made.choice
    console.note(
        f"{where}{found.added} paths added, {found.changed} changed, {found.removed} removed"
        if found.entries
        else f"{where}the file systems are equal except for times"
    )
    for each in choice.old_refusals:
        console.note(f"warning: {where}{each}; the graft leads from these to NEW")
    refused = choice.graft_refusals if choice.strategy == "graft" else choice.new_refusals
    for line in warnings(refused):
        console.note(f"warning: {where}{line}; or name what devices run with --engine")
    for each in choice.new_refusals if choice.strategy == "graft" and not refused else ():
        console.note(f"{where}NEW itself was not an option: {each}")
    if choice.strategy == "new":
        same = choice.image.digest == made.new.digest
        how = "unchanged" if same else f"with OCI's media types ({choice.image.digest})"
        console.note(f"{where}{choice.why}: what was written is NEW, {how}")
    elif made.layer:
        console.note(f"{where}one layer of {console.size(made.layer.size)} on OLD")
    else:
        console.note(f"{where}OLD's layers with NEW's settings; no layer was needed")
    other = f"; NEW itself: {console.size(choice.new.total)}" if choice.strategy == "graft" else ""
    cost = choice.transfer
    console.note(
        f"{where}a device on OLD fetches {console.size(cost.total)} with {cost.engine}{other}"
    )
