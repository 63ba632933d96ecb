"""``mlpack graft``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.cli import options, output

if TYPE_CHECKING:
    from mlpack.api.graft import PlatformGraft


@options.command(
    "graft",
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
@click.option("--engine", default="", metavar="NAME", help="moby, containerd or podman.")
@click.option("--platform", metavar="OS/ARCH", help="Graft only the images for this platform.")
def graft(old: str, new: str, out: str, engine: str, platform: str | None) -> None:
    """Turn an image built by any tool into one layer on what devices hold.

    Compares the file systems of OLD and NEW, times left out, and writes OLD, one layer
    with what differs, and NEW's settings: for every platform that both have. What was
    written is read back and must have NEW's file system. Where NEW itself costs a device
    on OLD no more, NEW is written, and the answer says so. OLD and NEW are written as
    for mlpack diff. As NAME:VERSION it is a release like those of mlpack build.
    """
    from mlpack.api import graft as api
    from mlpack.oci.descriptor import Platform

    with output.progress("reading layers") as advance:
        made = api.graft(
            options.project_if_any(),
            old,
            new,
            out,
            engine=engine,
            platform=Platform.parse(platform) if platform else None,
            registries=options.registries(),
            advance=advance,
            now=options.now(),
        )
    for each in made.platforms:
        _talk(each, f"{each.platform}: " if len(made.platforms) > 1 else "")
    if made.left_out:
        names = ", ".join(str(each) for each in made.left_out)
        output.note(f"left out, since OLD has no image for it: {names}")
    output.answer(made.to_json(), made.reference)


def _talk(made: PlatformGraft, where: str) -> None:
    found, choice = made.difference, made.choice
    output.note(
        f"{where}{found.added} paths added, {found.changed} changed, {found.removed} removed"
        if found.entries
        else f"{where}the file systems are equal but for times"
    )
    if choice.strategy == "new":
        output.note(f"{where}{choice.why}: what was written is NEW, unchanged")
    elif made.layer:
        output.note(f"{where}one layer of {output.size(made.layer.size)} on OLD")
    else:
        output.note(f"{where}OLD's layers with NEW's settings; no layer was needed")
    other = f"; NEW itself: {output.size(choice.new.total)}" if choice.strategy == "graft" else ""
    cost = choice.transfer
    output.note(
        f"{where}a device on OLD fetches {output.size(cost.total)} with {cost.engine}{other}"
    )
