"""``mlpack score``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mlpack.api.requests import Score
from mlpack.cli import console

if TYPE_CHECKING:
    from mlpack.api.score import LatencySummary, Results
    from mlpack.project.scoring_client import Scored


@console.command(
    "score",
    Score,
    examples="""
    mlpack score localhost:5001 600,38,150,47
    mlpack score localhost:5001 tenure=5,plan=pro
    mlpack score localhost:5001 customers.csv --csv > scored.csv
    mlpack score https://edge-7.example.com dog.jpg cat.png
    mlpack score resnet50v2:3 dog.jpg --engine podman
    mlpack score localhost:5001 dog.jpg --repeat 1000 --concurrency 16
    """,
)
@click.argument("module", metavar="IMAGE_OR_URL")
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option(
    "--repeat", default=1, type=click.IntRange(1, 10_000_000), help="Score every input so often."
)
@click.option(
    "--concurrency", default=1, type=click.IntRange(1, 1000), help="Requests at the same time."
)
@click.option(
    "--timeout",
    default=60.0,
    type=click.FloatRange(0.001, 86400),
    metavar="SECONDS",
    show_default=True,
    help="How long to wait for an answer.",
)
@click.option("--engine", default="docker", metavar="NAME", help="docker or podman, for an image.")
@click.option("--network", default="", metavar="NAME", help="The container's network, as host.")
@console.env("Set in the container.")
@click.option("--csv", "as_csv", is_flag=True, help="Print a CSV file's rows with predictions.")
def score(request: Score, as_csv: bool) -> None:
    """Send pictures, values or tensors to a module, and show its answers.

    IMAGE_OR_URL is an address, such as localhost:5001, or else an image as for mlpack run,
    which Docker or podman starts for it and removes. INPUT is values with commas between them,
    in the order of the model's inputs (after -- if the first is negative) or as NAME=VALUE;
    a .csv file whose header names the inputs, each row of which is scored; a JPEG, PNG,
    .npy or .json file; JSON itself; or - for standard input. With --repeat, a table shows how
    fast the answers came.
    """
    results = console.project().score(request)
    console.answer(
        results, lambda: _csv(results) if as_csv and any(results.predictions) else _text(results)
    )
    results.require_all()


def _csv(results: Results) -> str:
    """The rows of all CSV files, each followed by its predictions."""
    from mlpack.model.predictions import columns, written

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = columns(results.predictions)
    header = results.tables[0].names
    writer.writerow((*header, *names))
    rows = [row for each in results.tables for row in each.rows]
    for row, found in zip(rows, results.predictions, strict=True):
        writer.writerow((*(row if header else ()), *(written(found.get(each)) for each in names)))
    return out.getvalue().rstrip("\n")


def _predicted(results: Results) -> str:
    from mlpack.model.predictions import columns, written

    names = columns(results.predictions)
    rows = [
        (str(number), *(written(found.get(each)) for each in names))
        for number, found in enumerate(results.predictions, 1)
    ]
    return console.table(("row", *names), rows, right=(0,))


def _text(results: Results) -> str:
    parts = []
    single = [each for each in results.scored if not each.sample.rows]
    if any(results.predictions):
        parts.append(_predicted(results))
    if len(single) > 1 or (single and results.tables):
        parts.append(_overview(single))
    elif single and single[0].answer is not None:
        parts.append(_whole(single[0]))
    if results.summary.requests > len(results.scored):
        parts.append(_summary(results.summary))
    return "\n\n".join(parts)


def _whole(scored: Scored) -> str:
    from mlpack.model.answer import meaning

    found = meaning(scored.answer.document) if scored.answer else None
    if not found:
        return _line(scored)
    table = console.table(found.headers, found.rows, right=(1,))
    return f"label: {found.label}\n\n{table}" if found.label else table


def _overview(scored: Sequence[Scored]) -> str:
    from mlpack.model.answer import meaning

    rows = []
    for each in scored:
        found = meaning(each.answer.document) if each.answer else None
        cells = found.answer if found and found.rows else (_line(each), "")
        rows.append((each.sample.name, *cells))
    return console.table(("input", "answer", "probability"), rows, right=(2,))


def _line(scored: Scored) -> str:
    from mlpack.model.answer import shown

    answer = scored.answer
    if answer is None:
        return str(scored.error)
    if answer.document is None and answer.content:
        return f"{console.size(len(answer.content))} of {answer.content_type or 'no content type'}"
    return shown(answer.document)


def _summary(summary: LatencySummary) -> str:
    times = (summary.p50, summary.p90, summary.p99, summary.longest)
    row = (
        f"{summary.requests:,}",
        f"{summary.requests - summary.answered:,}",
        f"{summary.rate:,.1f}",
        *(f"{1000 * each:,.2f}" for each in times),
    )
    headers = ("requests", "errors", "requests/s", "p50 ms", "p90 ms", "p99 ms", "longest ms")
    lines = [f"{count} times: {problem}" for problem, count in summary.problems.items()]
    return "\n".join([console.table(headers, [row], right=range(len(headers))), *lines])
