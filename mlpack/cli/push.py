"""``mlpack push``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.cli import options, output

if TYPE_CHECKING:
    from mlpack.api.push import Pushed
    from mlpack.azure.management import Account


@options.command(
    "push",
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
    help="Push there instead of to [image] repository; the tag is the version where none is said.",
)
@click.option(
    "--workspace",
    metavar="SUBSCRIPTION/GROUP/WORKSPACE",
    help="Then say at the model in this Azure ML workspace what was released of it.",
)
def push(release: str, to: str | None, workspace: str | None) -> None:
    """Send a release to its registry: only what it lacks.

    Prints the reference with its digest, and nothing else, on stdout. Logins are those of
    docker login and podman login. A push that broke off is finished by running it again.
    """
    from mlpack.api.push import push as send
    from mlpack.oci.reference import Reference

    account = _workspace(workspace) if workspace else None
    place = Reference.parse(to) if to else None
    with output.progress("pushing") as bar:
        pushed = send(
            options.project(),
            options.registries(),
            release,
            to=place,
            advance=bar,
            expect=bar.expect,
        )
    say(pushed)
    if account:
        from mlpack.api.workspace import tag_release

        output.note(f"said at {tag_release(options.project(), account, pushed.reference)}")
    output.answer(pushed.to_json(), str(pushed.reference))


def _workspace(place: str) -> Account:
    from mlpack.azure.management import CLOUD, workspace_account

    return workspace_account(place, options.setting("azure_endpoint") or CLOUD)


def say(pushed: Pushed) -> None:
    """Say what moved; ``mlpack build --push`` does, too."""
    if pushed.replaced:
        output.note(f"tag {pushed.tagged.tag} was {pushed.replaced} before")
    if pushed.record_problem:
        output.note(f"the release's record stays here: {pushed.record_problem}")
    output.note(f"{pushed.tagged}: {output.moved(pushed.copied, pushed.counted)}")
