"""``mlpack serve``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mlpack.api.requests import Serve
from mlpack.cli import console
from mlpack.cli.main import SIGINT_STATUS

if TYPE_CHECKING:
    from mlpack.api.serve import Served


@console.command(
    "serve",
    Serve,
    examples="""
    mlpack serve fan
    mlpack serve fan:2 --port 8080
    mlpack serve fan --env MQTT_BROKER=localhost --env MLPACK_LOG=debug
    """,
)
@click.argument("model", metavar="NAME[:VERSION]")
@click.option(
    "--port", default=5001, type=click.IntRange(1, 65535), help="Port here.", show_default=True
)
@console.env("Set for the runtime and the scoring script.")
def serve(request: Serve) -> None:
    """Serve a model version on this machine, without a container, until interrupted.

    The runtime is the one in base images, run by this Python with its packages. Prints two
    addresses: the page on which a browser tries the model, and the one that scores. The
    runtime's log goes to stderr.
    """
    with console.project().serve(request) as served:
        try:
            console.answer(served, lambda: _text(served))
            served.wait()
        except KeyboardInterrupt:
            console.note(f"ending {served.version}")
            sys.exit(SIGINT_STATUS)


def _text(served: Served) -> str:
    return f"page    {served.page}\nscores  {served.url}"
