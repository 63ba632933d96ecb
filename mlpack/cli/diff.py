"""``mlpack diff``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.cli import options, output

if TYPE_CHECKING:
    from mlpack.oci.descriptor import Platform
    from mlpack.stores.project import Project


@options.command(
    "diff",
    examples="""
    mlpack diff fan:1 fan:2
    mlpack diff none fan:2 --engine containerd
    mlpack diff docker-archive:old.tar oci:images:new --platform linux/arm64
    """,
)
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.option("--engine", default="", metavar="NAME", help="moby, containerd or podman.")
@click.option("--platform", type=options.PLATFORM, help="Which image of several to compare.")
def diff(old: str, new: str, engine: str, platform: Platform | None) -> None:
    """Show what a device on OLD fetches to reach NEW.

    OLD and NEW are NAME[:VERSION], what mlpack build prints, base, oci:PATH[:TAG] or
    docker-archive:PATH[:NAME]; OLD may be none, for an empty device. Outside a
    project the last two work. Engine and link are those of [device] in mlpack.toml,
    else moby over TLS.
    """
    from mlpack.api.diff import diff as plan
    from mlpack.render.document import text
    from mlpack.render.transfers import diff_blocks

    delta = plan(
        _project(),
        old,
        new,
        engine=engine,
        platform=platform,
        directory=options.settings().directory,
    )
    output.answer(delta.to_json(), lambda: text(diff_blocks(delta), output.table, output.width()))


def _project() -> Project | None:
    """The project here; two images can be compared without one."""
    from mlpack.stores.project import NotAProject

    try:
        return options.project()
    except NotAProject:
        return None
