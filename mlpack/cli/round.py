"""``mlpack round``."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlpack.cli import options, output
from mlpack.words import times

if TYPE_CHECKING:
    from mlpack.api.round import Rounding
    from mlpack.stores.bench import Attempt


@options.command(
    "round",
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
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Rows to compare on: .npz, an array for each input, and labels where there are any.",
)
@click.option(
    "--max-error",
    type=float,
    metavar="NUMBER",
    help="How far any output may be from the exact model's.",
)
@click.option(
    "--min-agreement",
    type=options.SHARE,
    help="How many decisions must be the exact model's: 99.9%.",
)
@click.option(
    "--keep-bits",
    type=int,
    metavar="BITS",
    help="Keep about so many bits of each difference. Default: the fewest within the bounds.",
)
@click.option(
    "--version", default="", metavar="VERSION", help="Version. Default: the next whole number."
)
@click.option("--dry-run", is_flag=True, help="Show what each number of bits does; keep nothing.")
def round(  # named as the command is
    exact: str,
    onto: str,
    check: Path,
    max_error: float | None,
    min_agreement: Decimal | None,
    keep_bits: int | None,
    version: str,
    dry_run: bool,
) -> None:
    """Make a version whose patch is several times smaller, and prove that it will do.

    What NAME:VERSION changed since the version that devices hold is rounded. The model that
    comes out is run here, beside the exact one, on the rows in FILE; it is registered as a
    version of its own, with the record of that, if it is within the bounds: the largest
    difference of any output, the share of equal decisions. Otherwise nothing is kept, and the
    exit status is 3. Prints NAME:VERSION on stdout.
    """
    from mlpack.api import round as api
    from mlpack.delta.agreement import Bounds

    agreement = float(min_agreement) if min_agreement is not None else None
    with output.progress("rows scored", counting=True) as advance:
        made = api.round_onto(
            options.project(),
            exact,
            onto,
            options.settings().directory / check,
            Bounds(max_error=max_error, min_agreement=agreement),
            keep_bits=keep_bits,
            version=version,
            dry_run=dry_run,
            advance=advance,
            now=options.now(),
        )
    if made.registered is None:
        output.answer(made.to_json(), lambda: _table(made))
        return
    for each in made.registered.notes:
        output.note(each)
    output.note(_table(made))
    output.answer(made.to_json(), str(made.registered.version))


def _table(made: Rounding) -> str:
    exact = ("all", output.size(made.exact_patch), "", "0", "", "", "the exact version")
    rows = [exact, *(_row(made, each) for each in made.attempts)]
    headers = ("bits", "patch", "smaller", "max error", "agreement", "accuracy", "")
    of = f"{made.exact} onto {made.anchor}, {made.rows:,} rows"
    return f"{of}\n\n{output.table(headers, rows, right=range(6))}"


def _row(made: Rounding, each: Attempt) -> tuple[str, ...]:
    found, patch = each.found, each.patch
    accuracy = f"{_share(found.exact_accuracy)} → {_share(found.rounded_accuracy)}"
    return (
        str(each.keep_bits),
        output.size(patch) if patch is not None else "",
        times(made.exact_patch, patch) if patch else "",
        f"{found.max_error:.3g}",
        _share(found.agreement),
        accuracy if found.exact_accuracy is not None else "",
        "refused" if each.broken else "",
    )


def _share(share: float | None) -> str:
    """Rounded down: what is not all must not read as all."""
    return "" if share is None else f"{int(10_000 * share) / 100:.2f} %"
