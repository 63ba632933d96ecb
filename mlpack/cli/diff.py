"""``mlpack diff``."""

from __future__ import annotations

import click

from mlpack.api.requests import Diff
from mlpack.cli import console
from mlpack.kinds import ENGINE_CHOICE


@console.command(
    "diff",
    Diff,
    examples="""
    mlpack diff fan:1 fan:2
    mlpack diff none fan:2 --engine containerd
    mlpack diff fan:1 fan:2 --loaded
    mlpack diff docker-archive:old.tar oci:images:new --platform linux/arm64
    mlpack diff registry.example.com/edge/fan:1 registry.example.com/edge/fan:2
    """,
)
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.option("--engine", default="", metavar="NAME", help=f"{ENGINE_CHOICE}.")
@click.option("--platform", type=console.PLATFORM, help="Which image of several to compare.")
@click.option("--loaded", is_flag=True, help="OLD came from a file (docker load), not by a pull.")
def diff(request: Diff) -> None:
    """Show what a device on OLD fetches to reach NEW.

    OLD and NEW are NAME[:VERSION], what mlpack build prints, base, oci:PATH[:TAG],
    docker-archive:PATH[:NAME], oci-archive:PATH[:NAME] or an image in a registry, of
    which only manifests and configs are read; OLD may be none, for an empty device.
    Outside a project the last four work. Engine and link are those of [device] in
    mlpack.toml, else moby over TLS.
    """
    from mlpack.render.document import text
    from mlpack.render.report import diff_blocks

    found = console.project().diff(request)
    console.answer(found, lambda: text(diff_blocks(found), console.table, console.width()))
