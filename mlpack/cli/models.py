"""``mlpack models``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.cli import output
from mlpack.cli.options import command, project

if TYPE_CHECKING:
    from mlpack.api.models import Dropped
    from mlpack.model.version import ModelVersion


@command(
    "models",
    examples="""
    mlpack models
    mlpack models fan --json
    mlpack models --drop fan:2
    """,
)
@click.argument("name", default="", metavar="[NAME]")
@click.option(
    "--drop", default="", metavar="NAME:VERSION", help="Take this version out of the store."
)
def models(name: str, drop: str) -> None:
    """List models and their versions.

    A version that was dropped is listed and built no more. Its release stays one, and
    its files stay on disk, where others may need them.
    """
    from mlpack.api import models as api

    if drop:
        if name:
            raise click.UsageError("a name to list and a version to drop do not go together")
        _dropped(api.drop(project(), drop))
        return
    found = api.list_models(project(), name)
    for each, problem in found.damaged.items():
        output.note(f"{each} cannot be read: {problem}; drop it with: mlpack models --drop {each}")
    if not found.versions:
        if found.damaged:
            output.answer(found.to_json(), "")
            return
        output.note("no model is registered yet: mlpack register PATH")
        output.answer(found.to_json(), "")
        return
    headers = ("model", "version", "kind", "bytes", "metrics", "registered (UTC)")
    rows = [_row(each) for each in found.versions]
    output.answer(found.to_json(), lambda: output.table(headers, rows, right={3}))


def _dropped(gone: Dropped) -> None:
    if gone.release:
        output.note(f"its release stays: {gone.release}")
    output.answer(gone.to_json(), f"{gone.name}:{gone.version}")


def _row(version: ModelVersion) -> tuple[str, ...]:
    return (
        version.name,
        version.version,
        version.framework,
        output.size(version.size),
        ", ".join(f"{key} {value}" for key, value in version.metrics.items()),
        version.created[: len("2026-11-20T20:13")].replace("T", " "),
    )
