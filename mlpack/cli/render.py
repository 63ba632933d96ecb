"""``mlpack render``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlpack.cli import options, output

if TYPE_CHECKING:
    from mlpack.oci.descriptor import Platform
    from mlpack.oci.reference import Reference


@options.command(
    "render",
    examples="""
    mlpack render fan -o deployment.json
    mlpack render fan:2 --platform linux/arm64
    mlpack render $(mlpack build fan)
    """,
)
@click.argument("release", metavar="NAME[:VERSION]")
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the manifest to FILE, whole or not at all, instead of printing it.",
)
@click.option(
    "--repository", type=options.REPOSITORY, help="Use this instead of [image] repository."
)
@click.option(
    "--platform", type=options.PLATFORM, help="Name the image of one platform, not of all of them."
)
def render(
    release: str, path: Path | None, repository: Reference | None, platform: Platform | None
) -> None:
    """Write the IoT Edge deployment manifest of a release.

    The image is pinned by its digest, and the manifest is checked as a device and
    IoT Hub would check it. NAME alone is the model's newest release; what
    mlpack build prints is taken as well.
    """
    from mlpack.api.render import render as render_release
    from mlpack.stores.files import atomic

    rendered = render_release(
        options.project(),
        release,
        repository=repository,
        platform=platform,
    )
    if path is None:
        output.answer(rendered.to_json(), rendered.text.rstrip("\n"))
        return
    target = options.settings().directory / path
    if target.is_dir():
        raise click.BadParameter(f"{path} is a directory", param_hint="-o")
    with atomic(target) as out:
        out.write(rendered.text.encode())
    output.note(f"{path}: module {rendered.module} runs {rendered.image}")
    output.answer({**rendered.to_json(), "path": str(path)}, "")
