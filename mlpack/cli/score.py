"""``mlpack score``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mlpack.cli import options, output

if TYPE_CHECKING:
    from mlpack.api.score import Results
    from mlpack.plan.latency import Summary
    from mlpack.stores.scoring import Scored


@options.command(
    "score",
    examples="""
    mlpack score fan 600,38,150,47
    mlpack score http://localhost:5001 dog.jpg cat.png
    mlpack score resnet50v2:3 dog.jpg --engine podman
    mlpack score http://localhost:5001 dog.jpg --repeat 1000 --concurrency 16
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
@options.env("Set in the container.")
def score(
    module: str,
    inputs: Sequence[str],
    repeat: int,
    concurrency: int,
    timeout: float,
    engine: str,
    network: str,
    env: tuple[tuple[str, str], ...],
) -> None:
    """Ask a module what it makes of pictures, readings or tensors.

    IMAGE_OR_URL is an address, or an image as for mlpack run, which is started and ended
    again. INPUT is a JPEG, PNG, .npy or .json file, numbers with commas between them
    (after -- where the first is negative), or - for standard input. With --repeat,
    the table below shows how fast the answers came.
    """
    from mlpack.api import score as api

    samples = api.read_samples(inputs, sys.stdin.buffer.read)
    place = api.module(
        options.project_if_any(),
        module,
        engine=engine,
        network=network,
        env=dict(env),
        registries=options.registries() if "/" in module and "://" not in module else None,
    )
    total = repeat * len(samples)
    with place as url, output.progress("scoring", total, counting=True) as bar:
        results = api.score(
            url, samples, repeat=repeat, concurrency=concurrency, seconds=timeout, advance=bar
        )
    output.answer(results.to_json(), lambda: _text(results))
    results.require_all()


def _text(results: Results) -> str:
    answered = [each for each in results.scored if each.answer is not None]
    parts = []
    if len(results.scored) > 1:
        parts.append(_overview(results.scored))
    elif answered:
        parts.append(_whole(answered[0]))
    if results.summary.requests > len(results.scored):
        parts.append(_summary(results.summary))
    return "\n\n".join(parts)


def _whole(scored: Scored) -> str:
    from mlpack.model.answer import meaning

    found = meaning(scored.answer.document) if scored.answer else None
    return output.table(found.headers, found.rows, right=(1,)) if found else _line(scored)


def _overview(scored: Sequence[Scored]) -> str:
    from mlpack.model.answer import meaning

    rows = []
    for each in scored:
        found = meaning(each.answer.document) if each.answer else None
        cells = found.rows[0] if found and len(found.rows) else (_line(each), "")
        rows.append((each.sample.name, *cells))
    return output.table(("input", "answer", "probability"), rows, right=(2,))


def _line(scored: Scored) -> str:
    from mlpack.model.answer import shown

    answer = scored.answer
    if answer is None:
        return str(scored.error)
    if answer.document is None and answer.content:
        return f"{output.size(len(answer.content))} of {answer.content_type or 'no content type'}"
    return shown(answer.document)


def _summary(summary: Summary) -> str:
    times = (summary.p50, summary.p90, summary.p99, summary.longest)
    row = (
        f"{summary.requests:,}",
        f"{summary.requests - summary.answered:,}",
        f"{summary.rate:,.1f}",
        *(f"{1000 * each:,.2f}" for each in times),
    )
    headers = ("requests", "errors", "requests/s", "p50 ms", "p90 ms", "p99 ms", "longest ms")
    lines = [f"{count} times: {problem}" for problem, count in summary.problems.items()]
    return "\n".join([output.table(headers, [row], right=range(len(headers))), *lines])
