"""``mlpack registry``: the project's store as a registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlpack.cli.options import command, project
from mlpack.cli.output import answer, note

if TYPE_CHECKING:
    from mlpack.api.registry import Serving
    from mlpack.stores.layout import LayoutStore

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("registry", epilog="\b\nExamples:\n  mlpack registry serve")
def registry() -> None:
    """Serve this project's releases as a registry."""


@command(
    "serve",
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
    help="Serve this OCI image layout instead of the project's; made where there is none.",
)
@click.option("--user", default="", metavar="NAME", help="Ask for this user and its password.")
@click.option("--password-file", type=FILE, help="File whose first line is the password.")
@click.option("--read-only", is_flag=True, help="Take no pushes.")
@click.option(
    "--allow-delete", is_flag=True, help="Let who may push delete tags and manifests, too."
)
@click.option("--certificate", type=FILE, help="PEM file: certificate and chain, for TLS.")
@click.option("--key", type=FILE, help="PEM file: the certificate's key.")
def serve(
    host: str,
    port: int,
    store: Path | None,
    user: str,
    password_file: Path | None,
    read_only: bool,
    allow_delete: bool,
    certificate: Path | None,
    key: Path | None,
) -> None:
    """Answer pulls and pushes of container engines until interrupted.

    Release fan:1 is HOST:PORT/fan:1, and its newest is HOST:PORT/fan. A release
    never changes: a push of other content under its name is refused. Beyond this
    machine, pushes need a user; without one, the registry answers programs of this
    machine under its own names (localhost, 127.0.0.1) only, and no web page. An upload
    that is under way when it ends is lost, and clients begin it again.
    """
    from mlpack.api import registry as api

    settings = api.Settings(
        host=host,
        port=port,
        user=user,
        password=api.read_password(password_file) if password_file else "",
        read_only=read_only,
        allow_delete=allow_delete,
        certificate=certificate,
        key=key,
    )
    layout = _store(store)
    if not settings.writable:
        note("pushes are refused" + ("" if read_only else "; give a --user to allow them"))
    if user and not settings.local and certificate is None:
        note("the password travels in the clear: give a --certificate, or put TLS before it")
    api.serve(layout, settings, _ready)


registry.add_command(serve)


def _store(directory: Path | None) -> LayoutStore:
    from mlpack.stores.layout import LayoutStore

    return LayoutStore(directory) if directory else project().layout


def _ready(serving: Serving) -> None:
    answer(serving.to_json(), lambda: _text(serving))


def _text(serving: Serving) -> str:
    names = ", ".join(serving.repositories) or "nothing yet"
    return f"serving {names} at {serving.address}"
