"""``mlpack registry``: the project's store as a registry."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlpack.api.requests import ServeRegistry
from mlpack.cli import console
from mlpack.cli.console import answer, note
from mlpack.cli.main import SIGINT_STATUS

if TYPE_CHECKING:
    from mlpack.api.registry import ServerInfo


@click.group("registry", epilog="\b\nExamples:\n  mlpack registry serve")
def registry() -> None:
    """Serve this project's releases as a registry."""


@console.command(
    "serve",
    ServeRegistry,
    examples="""
    mlpack registry serve
    mlpack registry serve --port 5000 --read-only
    mlpack registry serve --host 0.0.0.0 --user edge --password-file password \\
        --certificate chain.pem --key key.pem
    mlpack registry serve --store images
    """,
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=5001,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Serve this OCI image layout instead of the project's; created if it is missing.",
)
@click.option("--user", default="", metavar="NAME", help="Ask for this user and its password.")
@click.option("--password-file", type=console.FILE, help="File whose first line is the password.")
@click.option("--read-only", is_flag=True, help="Take no pushes.")
@click.option(
    "--allow-delete", is_flag=True, help="Let who may push delete tags and manifests, too."
)
@click.option("--certificate", type=console.FILE, help="PEM file: certificate and chain, for TLS.")
@click.option("--key", type=console.FILE, help="PEM file: the certificate's key.")
def serve(request: ServeRegistry) -> None:
    """Answer pulls and pushes of container engines until interrupted.

    Release fan:1 is HOST:PORT/fan:1; the tag latest is there if it was pushed. A release
    never changes: a push of other content under its name is refused. Beyond this
    machine, pushes need a user; without one, the registry answers programs of this
    machine under its own names (localhost, 127.0.0.1) only, and no web page. An upload
    that is under way when it ends is lost, and clients begin it again.
    """
    from mlpack.api.registry import check, local, writable

    check(request)
    if not writable(request):
        hint = "" if request.read_only else "; give a --user to allow them"
        note(f"pushes are refused{hint}")
    if request.user and not local(request) and request.certificate is None:
        note("the password travels in the clear: give a --certificate, or put TLS before it")
    try:
        console.project().serve_registry(request, _ready)
    except KeyboardInterrupt:
        sys.exit(SIGINT_STATUS)  # without a message: nothing was broken off


registry.add_command(serve)


def _ready(serving: ServerInfo) -> None:
    answer(serving, lambda: _text(serving))


def _text(serving: ServerInfo) -> str:
    names = ", ".join(serving.repositories) or "nothing yet"
    return f"serving {names} at {serving.address}"
