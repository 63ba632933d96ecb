"""``mlpack pull``."""

from __future__ import annotations

import click

from mlpack.cli import options, output


@options.command(
    "pull",
    examples="""
    mlpack pull registry.example.com/edge/fan:2
    mlpack pull registry.example.com/edge/fan@sha256:… --as candidate
    mlpack diff fan:1 fan:2                        what was pulled is a release like any other
    """,
)
@click.argument("reference", metavar="REFERENCE")
@click.option("--as", "name", default="", metavar="NAME", help="Call it NAME in the store.")
def pull(reference: str, name: str) -> None:
    """Bring an image from a registry into the project's store.

    Only what the store lacks is fetched, for all platforms. A release of a model is from
    then on a release of this project. Prints the reference with its digest.
    """
    from mlpack.api.pull import pull as fetch
    from mlpack.oci.reference import Reference

    place = Reference.parse(reference)
    with output.progress("pulling") as bar:
        pulled = fetch(
            options.project(),
            options.registries(),
            place,
            name=name,
            advance=bar,
            expect=bar.expect,
        )
    output.note(
        f"{pulled.release or pulled.name}: {output.moved(pulled.copied, pulled.counted)}; "
        f"in the store as {pulled.name}"
    )
    output.answer(pulled.to_json(), str(pulled.reference))
