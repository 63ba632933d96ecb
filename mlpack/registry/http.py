"""HTTP client: bounded responses, retries with back-off, redirects that drop credentials.

Built on httpcore, as httpx is: httpx alone takes 0.3 s to import, httpcore 0.1 s, and a whole
push of a small release should not take longer than 0.5 s. Nothing is decoded: a blob's digest is
over the bytes as they are received.
"""

from __future__ import annotations

import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property, partial
from pathlib import Path
from urllib.parse import urlsplit

import httpcore

from mlpack import __version__
from mlpack.registry.counting_transport import (
    PATIENCE_SECONDS,
    CountingBackend,
    Traffic,
    TrafficCounter,
)
from mlpack.registry.http_types import (
    ATTEMPTS,
    InsecureConnection,
    Proxies,
    Proxy,
    RegistryError,
    Request,
    Response,
    StatusError,
    Unreachable,
    is_loopback,
    redirected,
)
from mlpack.stores.files import require_file

CONNECT_ATTEMPTS = 3
"""For a server that does not answer at all: usually its name is wrong, or it is off."""

LONGEST_WAIT = 120.0
"""Seconds; if a registry requests a longer pause, the command fails instead."""

MAX_REDIRECTS = 5
SHORT = 64 * 1024
"""Bytes of a response that are read to keep its connection, instead of closing both."""

CONNECTIONS = 8
KEPT_SECONDS = 30
"""Connections to all hosts together, and how long an idle one is kept."""

_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_AGENT = f"mlpack/{__version__}"


@dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """What the client trusts, and how long it waits, in seconds."""

    ca: Path | None = None
    """Certificates trusted in addition to the system's."""

    insecure: frozenset[str] = frozenset()
    """Hosts, with their port if they have one, that may be used without TLS."""

    proxies: Proxies = field(default_factory=Proxies)
    connect: float = 10.0
    read: float = 60.0
    patience: float = PATIENCE_SECONDS


class Client:
    """Sends requests from any number of threads; keeps connections; counts all traffic."""

    def __init__(
        self,
        settings: ClientSettings | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings or ClientSettings()
        self._sleep = sleep
        self._counter = TrafficCounter()
        self._lock = threading.Lock()
        self._pools: dict[tuple[str, Proxy | None], httpcore.ConnectionPool] = {}

    @property
    def traffic(self) -> Traffic:
        """What was sent and received so far."""
        return self._counter.read()

    def close(self) -> None:
        """Close the connections."""
        for pool in self._pools.values():
            pool.close()

    def send(self, request: Request) -> Response:
        """Send, follow redirects, and retry what may be temporary.

        The caller closes the response, which may be unsuccessful: also a 500 after all retries.
        Raises :class:`Unreachable` and :class:`InsecureConnection`.
        """
        failures = 0
        while True:
            try:
                response = self._follow(request)
            except _ConnectionLost as lost:
                failures += 1
                most = CONNECT_ATTEMPTS if lost.connecting else ATTEMPTS
                if failures >= min(most, request.attempts):
                    raise
                self.pause(failures)
                continue
            failures += 1
            if response.status not in _TEMPORARY or failures >= request.attempts:
                return response
            response.close()
            self.pause(failures, response)

    def pause(self, failures: int, response: Response | None = None) -> None:
        """Wait before the next attempt, as the response requests, or twice as long each time.

        Raises :class:`StatusError` if it requests more than LONGEST_WAIT.
        """
        requested = _retry_after(response.headers) if response else None
        if requested is not None and requested > LONGEST_WAIT and response is not None:
            raise StatusError(
                f"{urlsplit(response.url).netloc} answers {response.status} and asks to wait "
                f"{requested:.0f} s",
                response.status,
                hint="try again later",
            )
        # Spread out, so that a hundred runners that a registry turned away do not return together.
        spread = 0.5 * 2 ** (failures - 1) * random.uniform(0.75, 1.25)  # noqa: S311
        self._sleep(spread if requested is None else requested)

    def _follow(self, request: Request) -> Response:
        for _ in range(MAX_REDIRECTS + 1):
            response = self._exchange(request)
            place = response.headers.get("location")
            if response.status not in _REDIRECTS or not place:
                return response
            response.close()
            request = redirected(request, response.status, place)
        raise RegistryError(f"{request}: more than {MAX_REDIRECTS} redirects")

    def _exchange(self, request: Request) -> Response:
        parts = urlsplit(request.url)
        self._check(request, parts.scheme, parts.hostname or "", parts.netloc)
        headers = {"Host": parts.netloc, "User-Agent": _AGENT, **request.headers}
        if not isinstance(request.body, Sized):
            headers["Transfer-Encoding"] = "chunked"
        elif len(request.body) or request.method in {"POST", "PUT", "PATCH"}:
            headers["Content-Length"] = str(len(request.body))
        proxy = self.settings.proxies.of(request.url)
        waits = {"connect": self.settings.connect, "read": self.settings.read}
        self._counter.add(requests=1)
        try:
            answer = self._pool(parts.scheme, proxy).handle_request(
                httpcore.Request(
                    request.method,
                    request.url,
                    headers=list(headers.items()),
                    content=request.body,
                    extensions={"timeout": {**waits, "write": self.settings.read}},
                )
            )
        except httpcore.ProxyError as error:
            raise _proxy_error(proxy, request, str(error)) from None
        except _NETWORK_ERRORS as error:
            raise _network_error(request, error, proxy) from None
        chunks = _chunks(request, answer)
        return Response(
            answer.status,
            _headers(answer.headers),
            chunks,
            url=request.url,
            close=partial(_end, request.method, chunks, answer),
        )

    def _check(self, request: Request, scheme: str, host: str, netloc: str) -> None:
        if scheme == "https" or (scheme == "http" and self.may_be_plain(host, netloc)):
            return
        raise InsecureConnection(
            f"{request} would not be encrypted",
            hint=f'use https, or add "{netloc}" to [registry] insecure in mlpack.toml',
        )

    def may_be_plain(self, host: str, netloc: str) -> bool:
        """Whether ``host`` may be used without TLS: this machine, or what the user listed."""
        return is_loopback(host) or netloc in self.settings.insecure

    def _pool(self, scheme: str, proxy: Proxy | None) -> httpcore.ConnectionPool:
        """Return the connections for ``scheme``, direct or through ``proxy``."""
        with self._lock:
            if (scheme, proxy) not in self._pools:
                self._pools[scheme, proxy] = self._open_pool(scheme, proxy)
            return self._pools[scheme, proxy]

    def _open_pool(self, scheme: str, proxy: Proxy | None) -> httpcore.ConnectionPool:
        context = self._trust if scheme == "https" else None
        backend = CountingBackend(self._counter, self.settings.patience)
        if proxy is None:
            return httpcore.ConnectionPool(
                ssl_context=context,
                max_connections=CONNECTIONS,
                keepalive_expiry=KEPT_SECONDS,
                network_backend=backend,
            )
        return httpcore.HTTPProxy(
            proxy.address,
            proxy_auth=proxy.login,
            ssl_context=context,
            proxy_ssl_context=self._trust if proxy.address.startswith("https:") else None,
            max_connections=CONNECTIONS,
            keepalive_expiry=KEPT_SECONDS,
            network_backend=backend,
        )

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        # Made on first use: reading the system's certificates takes 20 ms.
        context = ssl.create_default_context()
        if self.settings.ca is not None:
            try:
                if self.settings.ca.exists():
                    require_file(self.settings.ca)
                context.load_verify_locations(cafile=self.settings.ca)
            except OSError as error:
                raise InsecureConnection(
                    f"{self.settings.ca} holds no readable certificate ({error.strerror})",
                    hint="[registry] ca names a file of certificates in PEM form",
                ) from None
        return context


class _ConnectionLost(Unreachable):
    def __init__(self, message: str, *, connecting: bool) -> None:
        super().__init__(message)
        self.connecting = connecting


_NETWORK_ERRORS = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    ssl.SSLError,
)


def _proxy_error(proxy: Proxy | None, request: Request, status: str) -> RegistryError:
    """Return the error for a proxy that refuses the connection with the line ``status``."""
    if status.startswith(("502", "503", "504")):
        return _ConnectionLost(f"{request}: the proxy {proxy} answers {status}", connecting=True)
    return RegistryError(
        f"{request}: the proxy {proxy} answers {status}",
        hint="check HTTPS_PROXY, with its user and password; list hosts to exclude in NO_PROXY",
    )


def _network_error(request: Request, error: Exception, proxy: Proxy | None = None) -> RegistryError:
    text = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = re.sub(r"\s*\(_ssl\.c:\d+\)", "", text.partition("failed: ")[2]) or text
        return InsecureConnection(
            f"{request}: its certificate is not trusted ({reason})",
            hint='name its certificate authority: [registry] ca = "ca.pem" in mlpack.toml',
        )
    connecting = isinstance(error, httpcore.ConnectError | httpcore.ConnectTimeout)
    slow = isinstance(error, httpcore.TimeoutException)
    what = "no response in time" if slow else "the connection failed"
    way = f", through the proxy {proxy}" if proxy else ""
    return _ConnectionLost(f"{request}: {what}{way} ({text})", connecting=connecting)


def _chunks(request: Request, answer: httpcore.Response) -> Iterator[bytes]:
    try:
        yield from answer.iter_stream()
    except _NETWORK_ERRORS as error:
        raise _network_error(request, error) from None


def _end(method: str, chunks: Iterator[bytes], answer: httpcore.Response) -> None:
    """Close a response; the rest of a short one is read, so that its connection is kept.

    Otherwise each request would open a connection, and over TLS pay for a handshake.
    """
    left, length = SHORT, _headers(answer.headers).get("content-length", "0")
    short = method == "HEAD" or (length.isdecimal() and int(length) <= SHORT)
    try:
        while short and left > 0:
            left -= len(next(chunks))
    except (StopIteration, RegistryError):
        pass
    finally:
        answer.close()


def _headers(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, text in raw:
        name, value = key.decode("latin-1").lower(), text.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return seconds; a date is compared with the response's own clock, so ours does not matter."""
    text = headers.get("retry-after", "")
    if text.isdecimal():
        return float(text)
    try:
        then, now = parsedate_to_datetime(text), parsedate_to_datetime(headers.get("date", ""))
        return max(0.0, (then - now).total_seconds())
    except (TypeError, ValueError):
        return None
