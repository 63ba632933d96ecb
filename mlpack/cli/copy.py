"""``mlpack copy``."""

from __future__ import annotations

import click

from mlpack.cli import options, output


@options.command(
    "copy",
    examples="""
    mlpack copy registry.example.com/edge/fan:2 oci:usb/images:fan-2
    mlpack copy docker-archive:old.tar registry.example.com/edge/old:1
    mlpack copy fan:2 oci:images:fan-2
    mlpack copy registry.example.com/edge/fan:2 registry.example.com/vans/fan:2
    """,
)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
def copy(source: str, target: str) -> None:
    """Copy an image between registries, layouts and archives.

    FROM is NAME[:VERSION], base, oci:PATH[:TAG], docker-archive:PATH or an image in a
    registry; TO is oci:PATH[:TAG] or a repository. Only what TO lacks moves, and nothing at
    all between repositories of one registry. Prints where the image is.
    """
    from mlpack.api.copy import copy_image

    with output.progress("copying") as bar:
        moved = copy_image(
            options.project_if_any(),
            options.registries(),
            source,
            target,
            advance=bar,
            expect=bar.expect,
        )
    output.note(output.moved(moved.copied, moved.counted))
    output.answer(moved.to_json(), moved.reference)
