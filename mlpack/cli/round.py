"""``mlpack round``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.api.requests import Round
from mlpack.cli import console
from mlpack.humanize import times

if TYPE_CHECKING:
    from mlpack.api.round import Rounding
    from mlpack.project.rounding_search import Attempt


@console.command(
    "round",
    Round,
    examples="""
    mlpack round fan:2 --onto fan:1 --check check.npz --dry-run
    mlpack round fan:2 --onto fan:1 --check check.npz --max-error 0.01
    mlpack round fan:2 --onto fan:1 --check check.npz --min-agreement 99.9% --keep-bits 3
    """,
)
@click.argument("exact", metavar="NAME[:VERSION]")
@click.option(
    "--onto", required=True, metavar="NAME:VERSION", help="The version that devices hold."
)
@click.option(
    "--check",
    required=True,
    type=console.FILE,
    metavar="FILE",
    help="Rows to compare on: .npz, an array for each input, and labels if there are any.",
)
@click.option(
    "--max-error",
    type=float,
    metavar="NUMBER",
    help="How far any output may be from the exact model's.",
)
@click.option(
    "--min-agreement",
    type=console.SHARE,
    help="How many decisions must be the exact model's: 99.9%.",
)
@click.option(
    "--min-accuracy",
    type=console.SHARE,
    help="How many decisions must be the labels' ones: 95%.",
)
@click.option(
    "--keep-bits",
    type=float,
    metavar="BITS",
    help="Bits for each number that changed, about. Default: the smallest patch within the bounds.",
)
@click.option(
    "--version", default="", metavar="VERSION", help="Version. Default: the next whole number."
)
@click.option("--dry-run", is_flag=True, help="Show patches of several sizes; keep nothing.")
def round(request: Round) -> None:  # named as the command is
    """Make a version whose patch is several times smaller, within bounds that are checked.

    What NAME:VERSION changed since the version that devices hold is rounded, each array as far
    as it matters little. Rounded models are run here, next to the exact one, on the rows in
    FILE: one to three hundred runs. The one with the smallest patch within the bounds is
    registered as a version of its own, with the record of that: the largest difference of any
    output, the share of equal decisions, that of right ones. If none is, nothing is kept, and
    the exit status is 3. Prints NAME:VERSION on stdout.
    """
    made = console.project().round(request)
    if made.registered is None:
        console.answer(made, lambda: _table(made))
        return
    for each in made.registered.notes:
        console.note(each)
    console.note(_table(made))
    console.answer(made, str(made.registered.version))


def _table(made: Rounding) -> str:
    exact = (console.size(made.exact_patch), "", "0", "", "", "the exact version")
    rows = [*(_row(made, each) for each in made.attempts), exact]
    headers = ("patch", "smaller", "max error", "agreement", "accuracy", "")
    of = f"{made.exact} onto {made.anchor}, {made.rows:,} rows"
    return f"{of}\n\n{console.table(headers, rows, right=range(5))}"


def _row(made: Rounding, each: Attempt) -> tuple[str, ...]:
    found, chosen = each.found, made.registered and made.registered.version.derived
    accuracy = f"{_share(found.exact_accuracy)} → {_share(found.rounded_accuracy)}"
    return (
        console.size(each.patch),
        times(made.exact_patch, each.patch),
        f"{found.max_error:.3g}",
        _share(found.agreement),
        accuracy if found.exact_accuracy is not None else "",
        "refused"
        if each.broken
        else "registered"
        if chosen and chosen.rounded_patch == each.patch
        else "",
    )


def _share(share: float | None) -> str:
    """Rounded down: what is not all must not read as all."""
    return "" if share is None else f"{int(10_000 * share) / 100:.2f} %"
