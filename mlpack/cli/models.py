"""``mlpack models``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.cli import console

if TYPE_CHECKING:
    from mlpack.api.models import Dropped, ModelList


@console.command(
    "models",
    examples="""
    mlpack models
    mlpack models fan --json
    mlpack models --drop fan:2
    """,
)
@click.argument("name", default="", metavar="[NAME]")
@click.option(
    "--drop", default="", metavar="NAME:VERSION", help="Remove this version from the store."
)
def models(name: str, drop: str) -> None:
    """List models and their versions.

    A version that was dropped is listed and built no more. Its release stays, and so do its
    files until mlpack gc. A version that an alias names is not dropped.
    """
    if drop:
        if name:
            raise click.UsageError("a name to list and a version to drop do not go together")
        _dropped(console.project().drop(drop))
        return
    found = console.project().models(name)
    for each, problem in found.damaged.items():
        console.note(f"{each} cannot be read: {problem}; drop it with: mlpack models --drop {each}")
    if not found.versions and not found.damaged:
        console.note("no model is registered yet: mlpack register PATH")
    console.answer(found, lambda: _table(found) if found.versions else "")


def _dropped(gone: Dropped) -> None:
    if gone.release:
        console.note(f"its release stays: {gone.release}")
    console.answer(gone, gone.version)


def _table(found: ModelList) -> str:
    named = bool(found.aliases)
    aliases = ("aliases",) if named else ()
    headers = ("model", "version", *aliases, "kind", "bytes", "metrics", "registered (UTC)")
    rows = [
        (
            each.name,
            each.version,
            *((", ".join(found.aliases_of(each)),) if named else ()),
            each.framework,
            console.size(each.size),
            ", ".join(f"{key} {value}" for key, value in each.metrics.items()),
            each.created[: len("2026-11-20T20:13")].replace("T", " "),
        )
        for each in found.versions
    ]
    return console.table(headers, rows, right={headers.index("bytes")})
