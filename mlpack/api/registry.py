"""``mlpack registry serve``: the project's store, or any layout, as a registry."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from mlpack.errors import MlpackError, UsageError
from mlpack.stores.layout import LayoutStore

MAX_PASSWORD_BYTES = 4096
KEEP_ALIVE_SECONDS = 75


class CannotListen(MlpackError):
    """An address or a port the server cannot have."""

    hint = "another program may use the port: choose one with --port"


class NoServer(MlpackError):
    """A Python without the packages the server is made with."""

    hint = "install them with: pip install 'mlpack-edge[serve]'"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where the registry listens, and whom it lets in."""

    host: str = "127.0.0.1"
    port: int = 5001
    user: str = ""
    password: str = field(default="", repr=False)
    read_only: bool = False
    allow_delete: bool = False
    """Whether names may be deleted by who may push."""

    certificate: Path | None = None
    """PEM file of the certificate and its chain; plain HTTP without one."""

    key: Path | None = None

    def __post_init__(self) -> None:
        if bool(self.user) != bool(self.password) or ":" in self.user:
            raise UsageError(
                "a user without a colon in its name, and a password, go together",
                hint="give both --user and --password-file, or neither",
            )
        if self.allow_delete and self.read_only:
            raise UsageError(
                "a registry that takes no pushes deletes nothing",
                hint="give --allow-delete or --read-only, not both",
            )
        if bool(self.certificate) != bool(self.key):
            raise UsageError(
                "a certificate needs its key", hint="give both --certificate and --key"
            )

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def writable(self) -> bool:
        """Whether it takes pushes: never from strangers on a network."""
        return not self.read_only and (self.local or bool(self.user))


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A registry that answers."""

    address: str
    """Host and port, as a reference begins."""

    repositories: tuple[str, ...]
    writable: bool
    tls: bool

    def to_json(self) -> dict[str, object]:
        """The command's answer."""
        return {
            "address": self.address,
            "repositories": list(self.repositories),
            "writable": self.writable,
            "tls": self.tls,
        }


def serve(layout: LayoutStore, settings: Settings, ready: Callable[[Serving], None]) -> None:
    """Serve ``layout`` until the process is interrupted; ``ready`` is told when it listens."""
    try:
        import uvicorn

        from mlpack.serve.access import Login
        from mlpack.serve.app import create_app
        from mlpack.serve.catalog import Catalog
    except ImportError as error:
        raise NoServer(f"the registry needs {error.name}, which is not installed") from error
    login = Login(settings.user, settings.password) if settings.user else None
    app = create_app(
        layout,
        login=login,
        writable=settings.writable,
        deletable=settings.allow_delete,
        guarded=settings.local and login is None,
    )
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
    )
    with _listen(settings) as listener:
        ready(
            Serving(
                address=f"{_shown(settings.host)}:{listener.getsockname()[1]}",
                repositories=tuple(Catalog(layout).repositories()),
                writable=settings.writable,
                tls=settings.certificate is not None,
            )
        )
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            # Asked to end, it ended; uvicorn raises again what it was told.
            return


def read_password(path: Path) -> str:
    """The first line of a password file."""
    with path.open("rb") as content:
        first = content.readline(MAX_PASSWORD_BYTES + 1)
    if not first.strip() or len(first) > MAX_PASSWORD_BYTES:
        raise UsageError(f"{path} holds no password", hint="write it into the first line")
    try:
        return first.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8") from None


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        where = f"{_shown(settings.host)}:{settings.port}"
        raise CannotListen(f"cannot listen on {where}: {error.strerror or error}") from error


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
