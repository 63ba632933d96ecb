"""``mlpack doctor``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from mlpack.cli import console

if TYPE_CHECKING:
    from mlpack.api.doctor import Check


@console.command(
    "doctor",
    examples="""
    mlpack doctor
    mlpack doctor --deep
    mlpack doctor --quick
    mlpack -C fan doctor --json
    """,
)
@click.option("--deep", is_flag=True, help="Read every blob of the store and compare its digest.")
@click.option(
    "--quick", is_flag=True, help="Only look for programs and packages; start none, send nothing."
)
def doctor(deep: bool, quick: bool) -> None:
    """Check this machine and this project.

    Programs are started, packages imported, and daemons and the project's registry asked: what
    is installed and does not work is found. What is missing is optional; exit status 1 means
    that something needed is broken.
    """
    found = console.project().doctor(deep=deep, quick=quick)
    console.answer(found, lambda: "\n\n".join(_tables(found.checks)))
    found.require_healthy()


def _tables(checks: Sequence[Check]) -> Iterator[str]:
    """What was found, and then what to do: side by side they do not fit 80 columns."""
    yield console.table(
        ("check", "state", "found"), [(each.name, each.state, each.found) for each in checks]
    )
    if advised := [(each.name, each.advice) for each in checks if each.advice]:
        yield "\n".join(("what to do", *(f"  {name}: {advice}" for name, advice in advised)))
