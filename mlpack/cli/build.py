"""``mlpack build``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.cli import output
from mlpack.cli.options import PLATFORM, command, now, project

if TYPE_CHECKING:
    from mlpack.oci.descriptor import Platform


@command(
    "build",
    examples="""
    mlpack build                            the project's model, its latest version
    mlpack build fan:2                      this version
    mlpack build fan --platform linux/arm64
    mlpack render $(mlpack build fan)       a command that takes what build prints
    """,
)
@click.argument("model", default="", metavar="[NAME[:VERSION]]")
@click.option(
    "--platform",
    "platforms",
    type=PLATFORM,
    multiple=True,
    help="Build for this platform only; may be repeated. Default: all of [base] platforms.",
)
def build(model: str, platforms: tuple[Platform, ...]) -> None:
    """Make a release: the base and one layer with the model.

    Prints the release's reference with its digest, and nothing else, on stdout;
    what a device on the base will fetch is said on stderr.
    """
    from mlpack.api import build as api
    from mlpack.model.version import parse_name

    here = project()
    name, version = parse_name(model or here.recipe.model)
    release = api.build(here, name, version, platforms=platforms, now=now())
    cost = release.transfer
    output.note(
        f"{release.version} on base {release.base.digest.short}: "
        f"one layer of {output.size(release.layer.size)}"
    )
    output.note(
        f"a device on the base fetches {output.size(cost.total)} with {cost.engine} "
        f"({cost.requests} requests): layer {output.size(cost.layers)}, manifest and config "
        f"{output.size(cost.manifest + cost.config)}, headers {output.size(cost.headers)}, "
        f"handshakes {output.size(cost.handshakes)}"
    )
    output.answer(release.to_json(), release.reference)
