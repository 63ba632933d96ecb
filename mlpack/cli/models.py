"""``mlpack models``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.cli import output
from mlpack.cli.options import command, project

if TYPE_CHECKING:
    from mlpack.model.version import ModelVersion


@command(
    "models",
    examples="""
    mlpack models
    mlpack models fan --json
    """,
)
@click.argument("name", default="", metavar="[NAME]")
def models(name: str) -> None:
    """List models and their versions."""
    from mlpack.api.models import list_models

    found = list_models(project(), name)
    if not found.versions:
        output.note("no model is registered yet: mlpack register PATH")
        output.answer(found.to_json(), "")
        return
    headers = ("model", "version", "kind", "bytes", "metrics", "registered (UTC)")
    rows = [_row(each) for each in found.versions]
    output.answer(found.to_json(), lambda: output.table(headers, rows, right={3}))


def _row(version: ModelVersion) -> tuple[str, ...]:
    return (
        version.name,
        version.version,
        version.framework,
        output.size(version.size),
        ", ".join(f"{key} {value}" for key, value in version.metrics.items()),
        version.created[: len("2026-11-20T20:13")].replace("T", " "),
    )
