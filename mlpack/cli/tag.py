"""``mlpack tag``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.api.requests import TagVersion
from mlpack.cli import console

if TYPE_CHECKING:
    from mlpack.api.tag import Tagged


@console.command(
    "tag",
    TagVersion,
    examples="""
    mlpack tag fan:7 champion         then: mlpack deploy --device-group vans fan@champion
    mlpack tag fan champion           the newest version
    mlpack tag fan@challenger champion
    mlpack tag fan --list
    mlpack tag fan@champion --delete
    """,
)
@click.argument("model", metavar="NAME[:VERSION]")
@click.argument("alias", default="", metavar="[ALIAS]")
@click.option("--list", "listing", is_flag=True, help="List the aliases of the model.")
@click.option("--delete", is_flag=True, help="Delete the alias; its version stays.")
def tag(request: TagVersion, listing: bool) -> None:
    """Give a model version an alias, or move it from another version.

    NAME@ALIAS is taken wherever a version is. The ledger records what an alias named, and since
    when. Prints NAME@ALIAS on stdout.
    """
    if listing and (request.alias or request.delete):
        raise click.UsageError("--list lists all aliases: leave the alias and --delete out")
    done = console.project().tag(request)
    if not done.alias:
        if not done.aliases:
            console.note(f"{done.model} has no alias: mlpack tag {done.model}:VERSION champion")
        console.answer(done, lambda: _table(done) if done.aliases else "")
        return
    console.note(_change(done))
    console.answer(done, f"{done.model}@{done.alias}")


def _change(done: Tagged) -> str:
    name, before = f"{done.model}@{done.alias}", f"{done.model}:{done.before}"
    if not done.version:
        return f"deleted {name}, which was {before}"
    if done.before == done.version:
        return f"{name} is {before} already"
    was = f", and was {before}" if done.before else ""
    return f"{name} is {done.model}:{done.version}{was}"


def _table(done: Tagged) -> str:
    since = {each.alias: each.created for each in done.moves}
    rows = [
        (
            str(each),
            each.version,
            f"{since[each.alias]:%Y-%m-%d %H:%M}" if each.alias in since else "",
        )
        for each in done.aliases
    ]
    return console.table(("alias", "version", "since (UTC)"), rows)
