"""``mlpack registry serve``: the project's store, or any layout, as a registry."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.errors import MlpackError, UsageError
from mlpack.installation import install_command
from mlpack.stores.files import open_file, require_store
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store_use import writing

if TYPE_CHECKING:
    from mlpack.api.requests import ServeRegistry
    from mlpack.api.session import Session

MAX_PASSWORD_BYTES = 4096
KEEP_ALIVE_SECONDS = 75


class CannotListen(MlpackError):
    """An address or a port that the server cannot listen on."""

    hint = "another program may use the port: choose one with --port"


class NoServer(MlpackError):
    """A Python without the packages of the server."""


@dataclass(frozen=True, kw_only=True)
class ServerInfo:
    """A registry that answers."""

    address: str
    """Host and port, as a reference begins."""

    repositories: tuple[str, ...]
    writable: bool
    tls: bool


def check(request: ServeRegistry) -> None:
    """Raise ``UsageError`` unless the options fit each other."""
    if bool(request.user) != bool(request.password_file) or ":" in request.user:
        raise UsageError(
            "a user needs a password, and a name without a colon",
            hint="give both --user and --password-file, or neither",
        )
    if request.allow_delete and request.read_only:
        raise UsageError(
            "--allow-delete and --read-only exclude each other",
            hint="give one of them",
        )
    if bool(request.certificate) != bool(request.key):
        raise UsageError("a certificate needs its key", hint="give both --certificate and --key")


def local(request: ServeRegistry) -> bool:
    """Whether only this machine can reach it."""
    if request.host == "localhost":
        return True
    try:
        return ip_address(request.host).is_loopback
    except ValueError:
        return False


def writable(request: ServeRegistry) -> bool:
    """Whether it accepts pushes: never from strangers on a network."""
    return not request.read_only and (local(request) or bool(request.user))


def serve(session: Session, request: ServeRegistry, ready: Callable[[ServerInfo], None]) -> None:
    """Serve a layout until the process is interrupted; call ``ready`` when it listens."""
    check(request)
    named = (request.password_file, request.certificate, request.key)
    given, certificate, key = (session.file(each) if each else None for each in named)
    password = read_password(given) if given else ""
    layout = LayoutStore(session.path(request.store)) if request.store else session.project.layout
    require_store(layout.root, *(each for each in (given, certificate, key) if each))
    try:
        import uvicorn

        from mlpack.registry.serve.app import BasicLogin, create_app
        from mlpack.registry.serve.catalog import Catalog
    except ImportError as error:
        raise NoServer(
            f"the registry needs {error.name}, which is not installed",
            hint=f"install the extra serve: {install_command('serve')}",
        ) from error
    login = BasicLogin(request.user, password) if request.user else None
    pushes = writable(request)
    app = create_app(
        layout,
        login=login,
        writable=pushes,
        deletable=request.allow_delete,
        guarded=local(request) and login is None,
    )
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    use = writing(layout.root) if pushes else nullcontext()
    with _listen(request) as listener, use:
        ready(
            ServerInfo(
                address=f"{_shown(request.host)}:{listener.getsockname()[1]}",
                repositories=tuple(Catalog(layout).repositories()),
                writable=pushes,
                tls=certificate is not None,
            )
        )
        # uvicorn ends in order and then raises the signal again.
        uvicorn.Server(config).run(sockets=[listener])


def read_password(path: Path) -> str:
    """Read the first line of a password file."""
    with open_file(path) as content:
        first = content.readline(MAX_PASSWORD_BYTES + 1)
    if not first.strip() or len(first) > MAX_PASSWORD_BYTES:
        raise MlpackError(f"{path} contains no password", hint="write it into the first line")
    try:
        return first.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise MlpackError(f"{path} is not UTF-8") from None


def _listen(request: ServeRegistry) -> socket.socket:
    family = socket.AF_INET6 if ":" in request.host else socket.AF_INET
    try:
        return socket.create_server((request.host, request.port), family=family)
    except OSError as error:
        where = f"{_shown(request.host)}:{request.port}"
        raise CannotListen(f"cannot listen on {where}: {error.strerror or error}") from error


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
