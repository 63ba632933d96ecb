"""``mlpack azure``: what devices need from Azure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlpack.api.requests import IssueToken
from mlpack.cli import console

if TYPE_CHECKING:
    from mlpack.api.project import Project
    from mlpack.api.token import IssuedToken


@click.group("azure", epilog="\b\nExamples:\n  mlpack azure token --group vans -o vans.env")
def azure() -> None:
    """Make what devices need in Azure: registry logins."""


@console.command(
    "token",
    IssueToken,
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
    metavar="SUBSCRIPTION/GROUP[/NAME]",
    help="The registry's place in Azure. Default: MLPACK_ACR.",
)
@click.option(
    "--days",
    type=console.Count(1, 3650),
    default=90,
    show_default=True,
    help="How long the password is good for.",
)
@click.option(
    "-o",
    "--output",
    type=console.OUTPUT,
    metavar="FILE",
    help="Write it to FILE, yours alone to read, instead of printing it; git must not keep FILE.",
)
def token(request: IssueToken) -> None:
    """Make a registry login that lets a device group pull its image only.

    Makes a scope map that may pull this one repository, a token for the group, and a
    password that expires. Run again it replaces the older of the token's two passwords: devices
    continue with the newer one until they have this. The password is shown only this once.
    """
    project = console.project()
    made = project.issue_token(request)
    path = str(request.output) if request.output else ""
    _notes(project, made, path)
    console.answer(made, path or made.text.rstrip("\n"))


azure.add_command(token)


def _notes(project: Project, made: IssuedToken, path: str) -> None:
    """Print what it is and how it is used; never the password."""
    from mlpack.iotedge.template import PASSWORD, USERNAME

    token = made.token
    if made.note:
        console.note(made.note)
    if token.restored:
        console.note(
            "the scope map or token had been changed in Azure; they allow only pulls again"
        )
    what = f"{token.slot} of token" if token.reused else "token"
    console.note(
        f"{what} {token.username} pulls {token.address}/{token.repository}, and nothing else, "
        f"until {token.expires:%Y-%m-%d}"
    )
    if path:
        console.note(f"use it: mlpack render --base --with-secrets --token {path} -o base.json")
    else:
        console.note("it is not shown again; set both variables for mlpack render --with-secrets")
    for name, login in project.settings.edge.registries.items():
        if login.address == token.address and login.password != f"${{{PASSWORD}}}":
            console.note(
                f"[edge.registries.{name}] of mlpack.toml has another login: write "
                f'username = "${{{USERNAME}}}" and password = "${{{PASSWORD}}}" there, or drop it'
            )
