"""``mlpack load``."""

from __future__ import annotations

import click

from mlpack.cli import options, output


@options.command(
    "load",
    examples="""
    mlpack load fan
    mlpack load fan:2 --engine podman
    mlpack load base --name localhost/base:1
    """,
)
@click.argument("image", metavar="IMAGE")
@click.option("--engine", default="docker", metavar="NAME", help="docker or podman.")
@click.option("--name", default="", metavar="REPOSITORY:TAG", help="What the engine calls it.")
def load(image: str, engine: str, name: str) -> None:
    """Bring an image into Docker or podman on this machine.

    IMAGE is written as for mlpack diff. Docker is given only the layers it lacks; podman
    says of none that it has it, is given all, and keeps what is new to it. Prints what
    the engine calls the image.
    """
    from mlpack.api import load as api

    loaded = api.load(
        options.project_if_any(),
        image,
        engine=engine,
        name=name,
        registries=options.registries() if "/" in image else None,
    )
    plan = loaded.bundle
    output.note(
        f"{engine}: {len(plan.carried)} of {len(plan.image.layers)} layers given, "
        f"for {plan.image.platform}"
    )
    output.answer(loaded.to_json(), loaded.name)
