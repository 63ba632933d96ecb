"""``mlpack load``."""

from __future__ import annotations

import click

from mlpack.api.requests import Load
from mlpack.cli import console


@console.command(
    "load",
    Load,
    examples="""
    mlpack load fan
    mlpack load fan:2 --engine podman
    mlpack load base --name localhost/base:1
    """,
)
@click.argument("image", metavar="IMAGE")
@click.option("--engine", default="docker", metavar="NAME", help="docker or podman.")
@click.option("--name", default="", metavar="REPOSITORY:TAG", help="What the engine calls it.")
def load(request: Load) -> None:
    """Bring an image into Docker or podman on this machine.

    IMAGE is written as for mlpack diff. Docker with its own image store is given only the
    layers it lacks; podman, and Docker with the containerd image store, are given all of them
    and keep what is new. Prints what the engine calls the image.
    """
    loaded = console.project().load(request)
    plan = loaded.bundle
    console.note(
        f"{loaded.engine}: {len(plan.carried)} of {len(plan.image.layers)} layers loaded, "
        f"for {plan.image.platform}"
    )
    console.note_conversion(loaded.converted)
    console.answer(loaded, loaded.name)
