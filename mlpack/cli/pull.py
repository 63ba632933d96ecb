"""``mlpack pull``."""

from __future__ import annotations

import click

from mlpack.api.requests import Pull
from mlpack.cli import console


@console.command(
    "pull",
    Pull,
    examples="""
    mlpack pull registry.example.com/edge/fan:2
    mlpack pull registry.example.com/edge/fan@sha256:… --as candidate
    mlpack diff fan:1 fan:2                        what was pulled is a release like any other
    """,
)
@click.argument("reference", metavar="REFERENCE")
@click.option("--as", "name", default="", metavar="NAME", help="Call it NAME in the store.")
def pull(request: Pull) -> None:
    """Bring an image from a registry into the project's store.

    Only what the store lacks is fetched, for all platforms. A release of a model becomes a
    release of this project; any other image is oci:.mlpack/oci:NAME for other commands. Prints the
    reference with its digest.
    """
    pulled = console.project().pull(request)
    moved = console.moved(pulled.copied, pulled.traffic, "received")
    console.note(f"{pulled.release or pulled.name}: {moved}; for other commands: {pulled.written}")
    console.note_conversion(pulled.converted)
    console.answer(pulled, str(pulled.reference))
