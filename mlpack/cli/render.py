"""``mlpack render``."""

from __future__ import annotations

from pathlib import Path

import click

from mlpack.cli import options, output


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
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the manifest to FILE, whole or not at all, instead of printing it.",
)
@click.option("--repository", metavar="REPOSITORY", help="Use this instead of [image] repository.")
@click.option(
    "--platform", metavar="OS/ARCH", help="Name the image of one platform, not of all of them."
)
def render(release: str, path: Path | None, repository: str | None, platform: str | None) -> None:
    """Write the IoT Edge deployment manifest of a release.

    The image is pinned by its digest, and the manifest is checked as a device and
    IoT Hub would check it. NAME alone is the model's newest release; what
    mlpack build prints is taken as well.
    """
    from mlpack.api.render import render as render_release
    from mlpack.oci.descriptor import Platform
    from mlpack.oci.reference import Reference
    from mlpack.stores.files import atomic

    rendered = render_release(
        options.project(),
        release,
        repository=Reference.parse(repository) if repository else None,
        platform=Platform.parse(platform) if platform else None,
    )
    if path is None:
        output.answer(rendered.to_json(), rendered.text.rstrip("\n"))
        return
    with atomic(options.settings().directory / path) as out:
        out.write(rendered.text.encode())
    output.note(f"{path}: module {rendered.module} runs {rendered.image}")
    output.answer({**rendered.to_json(), "path": str(path)}, "")
