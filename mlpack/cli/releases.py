"""``mlpack releases``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.cli import console

if TYPE_CHECKING:
    from mlpack.api.releases import ReleaseList


@console.command(
    "releases",
    examples="""
    mlpack releases
    mlpack releases fan --json
    mlpack releases --drop fan:3
    """,
)
@click.argument("name", default="", metavar="[NAME]")
@click.option(
    "--drop", default="", metavar="NAME:VERSION", help="Remove this release from the store."
)
@click.option("--force", is_flag=True, help="With --drop: even if something needs it.")
def releases(name: str, drop: str, force: bool) -> None:
    """List the releases in the store, built here or pulled, the oldest first.

    Deployed is what the ledger knows of the device groups; mlpack status asks the hub. A release
    that a group has, that patches are made against, or that an alias names is dropped with --force
    only. Its files stay until mlpack gc.
    """
    project = console.project()
    if drop:
        if name:
            raise click.UsageError("a name to list and a release to drop do not go together")
        gone = project.drop_release(drop, force=force)
        console.note("its files stay until: mlpack gc --yes")
        console.answer(gone, gone.release)
        return
    if force:
        raise click.UsageError("--force is for --drop")
    found = project.releases(name)
    for each, problem in found.damaged.items():
        console.note(
            f"{each} cannot be read: {problem}; drop it with: mlpack releases --drop {each}"
        )
    if not found.releases and not found.damaged:
        console.note("there is no release yet: mlpack build NAME, or mlpack pull REFERENCE")
    console.answer(found, lambda: _table(found) if found.releases else "")


def _table(found: ReleaseList) -> str:
    headers = ("release", "digest", "strategy", "bytes", "base", "started", "deployed")
    rows = [
        (
            " ".join((str(each), *(f"@{alias}" for alias in each.aliases))),
            each.digest.short,
            each.strategy or "-",
            console.size(each.bytes),
            each.base.short if each.base else "-",
            each.starts,
            ", ".join(map(str, each.deployed)) or "-",
        )
        for each in found.releases
    ]
    return console.table(headers, rows, right={3})
