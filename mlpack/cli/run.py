"""``mlpack run``."""

from __future__ import annotations

import click

from mlpack.api.requests import Run
from mlpack.cli import console


@console.command(
    "run",
    Run,
    examples="""
    mlpack run fan
    mlpack run fan:2 --port 8080 --engine podman
    mlpack run fan --env FAN_THRESHOLD=0.7 --network host
    """,
)
@click.argument("image", metavar="IMAGE")
@click.option("--engine", default="docker", metavar="NAME", help="docker or podman.")
@click.option(
    "--port", default=5001, type=click.IntRange(1, 65535), help="Port here.", show_default=True
)
@click.option("--network", default="", metavar="NAME", help="The container's network, as host.")
@console.env("Set in the container.")
@click.option(
    "--unconfined",
    is_flag=True,
    help="Let it write to its whole file system, with the engine's usual privileges.",
)
def run(request: Run) -> None:
    """Start a release as a container here, and wait until it answers.

    It is loaded first if the engine lacks it. Prints the address that scores; the
    container stays until it is removed by the command on stderr. As on devices, its file
    system is read-only except /tmp, and it has no privileges.
    """
    started = console.project().run(request)
    console.note(f"{started.loaded.name} runs as {started.container[:12]}; end it: {started.end}")
    console.answer(started, started.url)
