"""``mlpack push``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.api.requests import Push
from mlpack.cli import console
from mlpack.plan.refusals import warnings

if TYPE_CHECKING:
    from mlpack.api.push import PushResult


@console.command(
    "push",
    Push,
    examples="""
    mlpack push                                    the newest release of the project's model
    mlpack push fan:2
    mlpack push fan:2 --to registry.example.com/edge/fan:canary
    mlpack push fan:2 --workspace 0000-0001/ml/lab
    mlpack push base --to registry.example.com/edge/base:1
    mlpack render $(mlpack push fan:2)             a command that takes what push prints
    """,
)
@click.argument("release", metavar="[NAME[:VERSION]]", default="")
@click.option(
    "--to",
    metavar="REPOSITORY[:TAG]",
    help="Push there instead of to [image] repository; the tag is the version by default.",
)
@click.option(
    "--workspace",
    metavar="SUBSCRIPTION/GROUP/WORKSPACE",
    help="Then tag the model in this Azure ML workspace with the release. Also the path of a "
    "config.json, or . to search it.",
)
def push(request: Push) -> None:
    """Send a release to its registry: only what it lacks.

    Prints the reference with its digest, and nothing else, on stdout. Logins are those of
    docker login and podman login. A push that broke off is finished by running it again.
    """
    pushed = console.project().push(request)
    push_notes(pushed)
    if pushed.workspace:
        console.note(f"tagged {pushed.workspace}")
    console.answer(pushed, str(pushed.reference))


def push_notes(pushed: PushResult) -> None:
    """Print what moved."""
    for each in warnings(pushed.refusals):
        console.note(f"warning: {each}")
    if pushed.replaced:
        console.note(f"tag {pushed.tagged.tag} was {pushed.replaced} before")
    if pushed.record_problem:
        console.note(f"the release's record stays here: {pushed.record_problem}")
    console.note(f"{pushed.tagged}: {console.moved(pushed.copied, pushed.traffic)}")
