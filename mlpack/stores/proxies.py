"""Which proxy a host is reached through: ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY``.

Read as Docker, containerd and podman read them (Go's net/http): the upper-case variable goes
first, this machine is never asked for through a proxy, and an entry of ``NO_PROXY`` is ``*``,
an address, a network (``10.0.0.0/8``), or a domain that stands for all below it; a port may
follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import unquote, urlsplit

from mlpack.errors import UsageError
from mlpack.stores.exchange import is_loopback

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Proxy:
    """One proxy; its user and password are never shown."""

    address: str
    """``http://host:port``, or with ``https`` where the proxy itself is spoken to with TLS."""

    login: tuple[bytes, bytes] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return urlsplit(self.address).netloc


@dataclass(frozen=True)
class Proxies:
    """The proxies of this machine."""

    secure: Proxy | None = None
    """For addresses with https."""

    plain: Proxy | None = None
    without: tuple[str, ...] = ()
    """The entries of ``NO_PROXY``."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Proxies:
        """What the environment says; raise :class:`UsageError` naming the variable at fault."""
        found = {
            name: environment.get(name) or environment.get(name.lower(), "")
            for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
        }
        entries = (each.strip().lower() for each in found["NO_PROXY"].split(","))
        return cls(
            _proxy("HTTPS_PROXY", found["HTTPS_PROXY"].strip()),
            _proxy("HTTP_PROXY", found["HTTP_PROXY"].strip()),
            tuple(each for each in entries if each),
        )

    def of(self, url: str) -> Proxy | None:
        """The proxy that leads to ``url``; ``None`` for the direct way."""
        parts = urlsplit(url)
        proxy = self.secure if parts.scheme == "https" else self.plain
        host = (parts.hostname or "").rstrip(".")
        if proxy is None or is_loopback(host):
            return None
        port = parts.port or _PORTS.get(parts.scheme, 0)
        return None if any(_names(each, host, port) for each in self.without) else proxy


def _proxy(variable: str, text: str) -> Proxy | None:
    if not text:
        return None
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port or _PORTS.get(parts.scheme)
        host = parts.hostname
    except ValueError:
        host = port = None
    # The text itself is not repeated: a password may be in it.
    if host is None or port is None or parts.scheme not in _PORTS:
        raise UsageError(
            f"{variable} names no proxy mlpack can use",
            hint="write it as http://HOST:PORT; a proxy of the SOCKS kind is not supported",
        )
    login = None
    if parts.username is not None:
        login = (unquote(parts.username).encode(), unquote(parts.password or "").encode())
    shown = f"[{host}]" if ":" in host else host
    return Proxy(f"{parts.scheme}://{shown}:{port}", login)


def _names(entry: str, host: str, port: int) -> bool:
    """Whether an entry of ``NO_PROXY`` is about ``host``.

    >>> [_names("example.com", host, 443) for host in ("example.com", "r.example.com", "other")]
    [True, True, False]
    >>> _names(".example.com", "example.com", 443), _names("10.0.0.0/8", "10.1.2.3", 443)
    (False, True)
    """
    if entry == "*":
        return True
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        pass
    name, _, stated = entry.rpartition(":") if entry.count(":") == 1 else (entry, "", "")
    if stated and stated != str(port):
        return False
    name = (name or entry).strip("[]").removeprefix("*")
    return host == name or host.endswith(name if name.startswith(".") else f".{name}")
