"""``mlpack diff``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.cli import options, output

if TYPE_CHECKING:
    from mlpack.oci.descriptor import Platform


@options.command(
    "diff",
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
@click.option("--engine", default="", metavar="NAME", help="moby, containerd or podman.")
@click.option("--platform", type=options.PLATFORM, help="Which image of several to compare.")
@click.option("--loaded", is_flag=True, help="OLD came from a file (docker load), not by a pull.")
def diff(old: str, new: str, engine: str, platform: Platform | None, loaded: bool) -> None:
    """Show what a device on OLD fetches to reach NEW.

    OLD and NEW are NAME[:VERSION], what mlpack build prints, base, oci:PATH[:TAG],
    docker-archive:PATH[:NAME] or an image in a registry, of which only manifests and
    configs are read; OLD may be none, for an empty device. Outside a project the last
    three work. Engine and link are those of [device] in mlpack.toml, else moby over TLS.
    """
    from mlpack.api.diff import diff as plan
    from mlpack.render.document import text
    from mlpack.render.transfers import diff_blocks

    delta = plan(
        options.project_if_any(),
        old,
        new,
        engine=engine,
        platform=platform,
        directory=options.settings().directory,
        registries=options.registries() if "/" in old + new else None,
        loaded=loaded,
    )
    output.answer(delta.to_json(), lambda: text(diff_blocks(delta), output.table, output.width()))
