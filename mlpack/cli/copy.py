"""``mlpack copy``."""

from __future__ import annotations

import click

from mlpack.api.requests import Copy
from mlpack.cli import console


@console.command(
    "copy",
    Copy,
    examples="""
    mlpack copy registry.example.com/edge/fan:2 oci:usb/images:fan-2
    mlpack copy docker-archive:old.tar registry.example.com/edge/old:1
    mlpack copy fan:2 oci:images:fan-2
    mlpack copy registry.example.com/edge/fan:2 registry.example.com/vans/fan:2
    """,
)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
def copy(request: Copy) -> None:
    """Copy an image between registries, layouts and archives.

    FROM is NAME[:VERSION], base, oci:PATH[:TAG], docker-archive:PATH[:NAME],
    oci-archive:PATH[:NAME] or an image in a registry; TO is oci:PATH[:TAG] or a
    repository. Only what TO lacks moves, and nothing at all between repositories of one
    registry. A layout names an image with OCI's media types; one with Docker's gets another
    digest there, and its own back in a registry. Prints where the image is.
    """
    moved = console.project().copy(request)
    console.note(console.moved(moved.copied, moved.traffic, "copied"))
    console.note_conversion(moved.converted)
    console.answer(moved, moved.reference)
