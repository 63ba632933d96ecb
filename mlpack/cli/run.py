"""``mlpack run``."""

from __future__ import annotations

import click

from mlpack.cli import options, output


@options.command(
    "run",
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
@options.env("Set in the container.")
@click.option(
    "--unconfined",
    is_flag=True,
    help="Let it write to its whole file system, with the engine's usual privileges.",
)
def run(
    image: str,
    engine: str,
    port: int,
    network: str,
    env: tuple[tuple[str, str], ...],
    unconfined: bool,
) -> None:
    """Start a release as a container here, and wait until it answers.

    It is loaded first where the engine lacks it. Prints the address that scores; the
    container stays until it is removed, as said on stderr. As on devices, its file system
    is read-only but for /tmp, and it has no privileges.
    """
    from mlpack.api import run as api

    started = api.run(
        options.project_if_any(),
        image,
        engine=engine,
        port=port,
        network=network,
        env=dict(env),
        confined=not unconfined,
        registries=options.registries() if "/" in image else None,
    )
    output.note(f"{started.loaded.name} runs as {started.container[:12]}; end it: {started.end}")
    output.answer(started.to_json(), started.url)
