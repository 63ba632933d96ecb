"""Requests, responses and proxies as values, and the rules for them: nothing here is sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Protocol
from urllib.parse import unquote, urljoin, urlsplit

from mlpack.errors import MlpackError, UsageError
from mlpack.oci.descriptor import MAX_DOCUMENT_BYTES
from mlpack.stores.store import Corrupt

ATTEMPTS = 5
"""How often a request is sent before its failure is one."""

_PORTS = {"http": 80, "https": 443}

_PLAIN = re.compile(r"[!-~]+")
"""What a request line can hold."""

_SHOWN = 80
"""How much of an invalid address a message shows, in characters."""


class RegistryError(MlpackError):
    """A registry that did not do what was requested."""


class Unreachable(RegistryError):
    """No response, or one that broke off."""

    hint = "check the registry's name, that it runs, and the network between"


class InsecureConnection(RegistryError):
    """A connection that would not be safe."""


class StatusError(RegistryError):
    """An unsuccessful response; ``status`` is HTTP's."""

    def __init__(self, message: str, status: int, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Body(Protocol):
    """Content that is sent in pieces, and can be sent again from the start."""

    def __len__(self) -> int:
        """Return the bytes of all pieces."""
        ...

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces, from the first one."""
        ...


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request; ``headers`` may hold credentials, so they are never shown."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | Body | Iterator[bytes] = field(default=b"", repr=False)
    """An iterator is of unknown length (chunked) and cannot be sent again."""

    attempts: int = ATTEMPTS
    """How often it may be sent without checking what the attempt before did."""

    def __str__(self) -> str:
        # Without the query: upload sessions and pre-signed addresses carry secrets there.
        parts = urlsplit(self.url)
        return f"{self.method} {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class Response:
    """A response whose body has not been read yet; close it."""

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        chunks: Iterator[bytes],
        *,
        url: str = "",
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.chunks = chunks
        self.url = url
        self.close = close

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], body: bytes = b"") -> Response:
        """Make a response of values, for conversations written down in tests."""
        return cls(status, headers, iter([body]))

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, limit: int = MAX_DOCUMENT_BYTES) -> bytes:
        """Read the whole body; raise :class:`Corrupt` as soon as it is known to exceed ``limit``.

        Its declared length is checked before anything is read.
        """
        declared = self.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise Corrupt(f"a response of {declared} bytes is more than {limit}")
        body = bytearray()
        for chunk in self.chunks:
            body += chunk
            if len(body) > limit:
                raise Corrupt(f"a response is longer than {limit} bytes")
        return bytes(body)


@dataclass(frozen=True)
class Proxy:
    """One proxy; its user and password are never shown."""

    address: str
    """``http://host:port``, or with ``https`` if the connection to the proxy itself uses TLS."""

    login: tuple[bytes, bytes] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return urlsplit(self.address).netloc


@dataclass(frozen=True)
class Proxies:
    """The proxies of this machine: ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY``.

    Read as Docker, containerd and podman read them (Go's net/http): the upper-case variable wins,
    this machine is never reached through a proxy, and an entry of ``NO_PROXY`` is ``*``, an
    address, a network (``10.0.0.0/8``), or a domain with all below it; a port may follow.
    """

    secure: Proxy | None = None
    """For addresses with https."""

    plain: Proxy | None = None
    excluded: tuple[str, ...] = ()
    """The entries of ``NO_PROXY``."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Proxies:
        """Read the environment; raise :class:`UsageError` that names the variable at fault."""
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
        """Return the proxy for ``url``, or ``None`` for a direct connection."""
        parts = urlsplit(url)
        proxy = self.secure if parts.scheme == "https" else self.plain
        host = (parts.hostname or "").rstrip(".")
        if proxy is None or is_loopback(host):
            return None
        port = parts.port or _PORTS.get(parts.scheme, 0)
        return None if any(_matches(each, host, port) for each in self.excluded) else proxy


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
            f"{variable} is not a proxy that mlpack can use",
            hint="write it as http://HOST:PORT; SOCKS proxies are not supported",
        )
    login = None
    if parts.username is not None:
        login = (unquote(parts.username).encode(), unquote(parts.password or "").encode())
    shown = f"[{host}]" if ":" in host else host
    return Proxy(f"{parts.scheme}://{shown}:{port}", login)


def _matches(entry: str, host: str, port: int) -> bool:
    """Whether an entry of ``NO_PROXY`` matches ``host``.

    >>> [_matches("example.com", host, 443) for host in ("example.com", "r.example.com", "other")]
    [True, True, False]
    >>> _matches(".example.com", "example.com", 443), _matches("10.0.0.0/8", "10.1.2.3", 443)
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


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "10.0.0.1", "a.example")]
    [True, True, True, False, False]
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def shown_host(url: str) -> str:
    """Return host and port as a reference has them: without a default port.

    >>> shown_host("https://r.io:443/v2/"), shown_host("http://r.io:5000/")
    ('r.io', 'r.io:5000')
    """
    parts = urlsplit(url)
    netloc = parts.netloc.rpartition("@")[2]
    return netloc.removesuffix(f":{_PORTS.get(parts.scheme)}")


def origin(url: str) -> str:
    """Return scheme, host and port: what credentials belong to."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or _PORTS.get(parts.scheme)}"


def address(base: str, place: str) -> str:
    """Return where ``place`` leads from ``base``; none if no request can be sent there.

    >>> address("https://r.io/v2/", "/login"), address("https://r.io/v2/", "http://r.io:99999/")
    ('https://r.io/login', '')
    """
    try:
        url = urljoin(base, place)
        parts = urlsplit(url)
        usable = parts.scheme in _PORTS and parts.hostname and parts.port != 0
    except ValueError:  # a port, or brackets without an address in them
        return ""
    return url if usable and _PLAIN.fullmatch(url) else ""


def redirected(request: Request, status: int, place: str) -> Request:
    """Return the request that follows a redirect; credentials stay with the host they are for."""
    url = address(request.url, place)
    if not url:
        # Without the query and the login, as in Request.
        shown = place.partition("?")[0].rpartition("@")[2][:_SHOWN]
        raise RegistryError(
            f"{request} is redirected to {shown!a}, which is not an address",
            hint="check the registry's name and port, or ask its operator",
        )
    if request.url.startswith("https:") and not url.startswith("https:"):
        raise InsecureConnection(f"{request} is redirected to an address without encryption")
    headers = dict(request.headers)
    if origin(url) != origin(request.url):
        headers = {key: text for key, text in headers.items() if key.lower() != "authorization"}
    if status == 303 and request.method != "HEAD":
        return replace(request, method="GET", url=url, headers=headers, body=b"")
    return replace(request, url=url, headers=headers)
