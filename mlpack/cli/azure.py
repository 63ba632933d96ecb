"""``mlpack azure``: what devices need from Azure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlpack.cli import output
from mlpack.cli.options import Count, command, now, project, setting, settings

if TYPE_CHECKING:
    from mlpack.api.token import Issued
    from mlpack.stores.project import Project


@click.group("azure", epilog="\b\nExamples:\n  mlpack azure token --group vans -o vans.env")
def azure() -> None:
    """Ask Azure for what devices need: registry logins."""


@command(
    "token",
    examples="""
    mlpack azure token --group vans -o vans.env
    mlpack render --base --with-secrets --token vans.env -o base.json

    mlpack azure token --group vans --registry 0000-0001/edge/contoso --days 30
    """,
)
@click.option(
    "--group",
    "--device-group",
    "group",
    required=True,
    metavar="GROUP",
    help="One of mlpack groups; each has a login of its own.",
)
@click.option(
    "--registry",
    "place",
    metavar="SUBSCRIPTION/GROUP[/NAME]",
    help="The registry's place in Azure. Default: MLPACK_ACR.",
)
@click.option(
    "--days",
    type=Count(1, 3650),
    default=90,
    show_default=True,
    help="How long the password is good for.",
)
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it to FILE, yours alone to read, instead of printing it; git must not keep FILE.",
)
def token(group: str, place: str | None, days: int, path: Path | None) -> None:
    """Make the login with which a device group pulls [image] repository, and nothing else.

    Makes a scope map that may pull this one repository, a token for the group, and a
    password that ends. Run again it replaces the older of the token's two passwords: devices
    go on with the newer one until they have this. The password is shown this once.
    """
    from mlpack.api.token import issue_token, repository_of
    from mlpack.azure.management import CLOUD, registry_account

    here = project()
    made = issue_token(
        here,
        registry_account(
            place or setting("acr"), repository_of(here), setting("azure_endpoint") or CLOUD
        ),
        group,
        days=days,
        now=now(),
        path=settings().directory / path if path else None,
    )
    _say(here, made, str(path) if path else "")
    output.answer(made.to_json(), str(path) if path else made.text.rstrip("\n"))


azure.add_command(token)


def _say(project: Project, made: Issued, path: str) -> None:
    """What it is and how it is used; never the password."""
    from mlpack.render.iotedge.placeholders import PASSWORD, USERNAME

    token = made.token
    if made.note:
        output.note(made.note)
    if token.restored:
        output.note("the scope map or token had been changed in Azure, and pulls only again")
    what = f"{token.slot} of token" if token.reused else "token"
    output.note(
        f"{what} {token.username} pulls {token.address}/{token.repository}, and nothing else, "
        f"until {token.expires:%Y-%m-%d}"
    )
    if path:
        output.note(f"use it: mlpack render --base --with-secrets --token {path} -o base.json")
    else:
        output.note("it is not shown again; set both variables for mlpack render --with-secrets")
    for name, login in project.recipe.edge.registries.items():
        if login.address == token.address and login.password != f"${{{PASSWORD}}}":
            output.note(
                f"[edge.registries.{name}] of mlpack.toml takes the login from elsewhere: write "
                f'username = "${{{USERNAME}}}" and password = "${{{PASSWORD}}}" there, or drop it'
            )
