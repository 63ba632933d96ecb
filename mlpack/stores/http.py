"""One HTTP client: bounded answers, retries with back-off, redirects that drop credentials.

It stands on httpcore, which httpx stands on: httpx alone takes 0.3 s to import, httpcore 0.1 s,
and a whole push of a small release should not take longer than 0.5 s. Nothing is decoded: a
blob's digest is over the bytes as they come.
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
from mlpack.stores.exchange import (
    Refused,
    RegistryError,
    Request,
    Response,
    Unreachable,
    Untrusted,
    is_loopback,
    redirected,
)
from mlpack.stores.proxies import Proxies, Proxy
from mlpack.stores.wire import PATIENCE_SECONDS, Counted, Counter, CountingBackend

ATTEMPTS = 5
CONNECT_ATTEMPTS = 3
"""For a server that does not answer at all: most often its name is wrong, or it is off."""

LONGEST_WAIT = 120.0
"""Seconds; a registry that asks for a longer pause gets none, and the user is told."""

MAX_REDIRECTS = 5
SHORT = 64 * 1024
"""Bytes of an answer that are rather read than given up with the connection."""

CONNECTIONS = 8
KEPT_SECONDS = 30
"""How many connections there are to all hosts, and how long an idle one is kept."""

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_MOVED = frozenset({301, 302, 303, 307, 308})
_AGENT = f"mlpack/{__version__}"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the client trusts and how long it waits, in seconds."""

    ca: Path | None = None
    """Certificates trusted beside the system's."""

    insecure: frozenset[str] = frozenset()
    """Hosts, with their port where they have one, that may be talked to without TLS."""

    proxies: Proxies = field(default_factory=Proxies)
    connect: float = 10.0
    read: float = 60.0
    patience: float = PATIENCE_SECONDS


class Client:
    """Sends requests from any number of threads; keeps connections; counts everything."""

    def __init__(
        self, limits: Limits | None = None, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.limits = limits or Limits()
        self._sleep = sleep
        self._counter = Counter()
        self._lock = threading.Lock()
        self._pools: dict[tuple[str, Proxy | None], httpcore.ConnectionPool] = {}

    @property
    def counted(self) -> Counted:
        """All that was sent and received so far."""
        return self._counter.read()

    def close(self) -> None:
        """Close the connections."""
        for pool in self._pools.values():
            pool.close()

    def send(self, request: Request) -> Response:
        """Send, follow redirects, and try again what may pass; close the answer.

        Raises :class:`Unreachable` and :class:`Untrusted`. An answer that says no is
        returned, also a 500 that came again and again.
        """
        failures = 0
        while True:
            try:
                response = self._follow(request)
            except _Lost as lost:
                failures += 1
                if failures >= (CONNECT_ATTEMPTS if lost.connecting else ATTEMPTS):
                    raise
                if not request.again:
                    raise
                self.pause(failures)
                continue
            failures += 1
            if response.status not in _PASSING or not request.again or failures >= ATTEMPTS:
                return response
            response.close()
            self.pause(failures, response)

    def pause(self, failures: int, response: Response | None = None) -> None:
        """Wait before the next attempt: as long as the answer asks for, or twice as long each time.

        Raises :class:`Refused` where it asks for more than LONGEST_WAIT.
        """
        asked = _retry_after(response.headers) if response else None
        if asked is not None and asked > LONGEST_WAIT and response is not None:
            raise Refused(
                f"{urlsplit(response.url).netloc} answers {response.status} and asks to wait "
                f"{asked:.0f} s",
                response.status,
                hint="try again later",
            )
        # Spread out, so that a hundred runners a registry sent away do not come back together.
        spread = 0.5 * 2 ** (failures - 1) * random.uniform(0.75, 1.25)  # noqa: S311
        self._sleep(spread if asked is None else asked)

    def _follow(self, request: Request) -> Response:
        for _ in range(MAX_REDIRECTS + 1):
            response = self._exchange(request)
            place = response.headers.get("location")
            if response.status not in _MOVED or not place:
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
        proxy = self.limits.proxies.of(request.url)
        waits = {"connect": self.limits.connect, "read": self.limits.read}
        self._counter.add(requests=1)
        try:
            answer = self._pool(parts.scheme, proxy).handle_request(
                httpcore.Request(
                    request.method,
                    request.url,
                    headers=list(headers.items()),
                    content=request.body,
                    extensions={"timeout": {**waits, "write": self.limits.read}},
                )
            )
        except httpcore.ProxyError as error:
            raise _refused_by(proxy, request, str(error)) from None
        except _TROUBLE as error:
            raise _trouble(request, error, proxy) from None
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
        raise Untrusted(
            f"{request} would not be encrypted",
            hint=f'use https, or add "{netloc}" to [registry] insecure in mlpack.toml',
        )

    def may_be_plain(self, host: str, netloc: str) -> bool:
        """Whether ``host`` may be talked to without TLS: this machine, or what the user listed."""
        return is_loopback(host) or netloc in self.limits.insecure

    def _pool(self, scheme: str, proxy: Proxy | None) -> httpcore.ConnectionPool:
        """The connections for ``scheme``, direct ones or through ``proxy``."""
        with self._lock:
            if (scheme, proxy) not in self._pools:
                self._pools[scheme, proxy] = self._open_pool(scheme, proxy)
            return self._pools[scheme, proxy]

    def _open_pool(self, scheme: str, proxy: Proxy | None) -> httpcore.ConnectionPool:
        context = self._trust if scheme == "https" else None
        backend = CountingBackend(self._counter, self.limits.patience)
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
        # Made when it is first needed: reading the system's certificates takes 20 ms.
        context = ssl.create_default_context()
        if self.limits.ca is not None:
            try:
                context.load_verify_locations(cafile=self.limits.ca)
            except OSError as error:
                raise Untrusted(
                    f"{self.limits.ca} holds no certificate that can be read ({error.strerror})",
                    hint="[registry] ca names a file of certificates in PEM form",
                ) from None
        return context


class _Lost(Unreachable):
    def __init__(self, message: str, *, connecting: bool) -> None:
        super().__init__(message)
        self.connecting = connecting


_TROUBLE = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, ssl.SSLError)


def _refused_by(proxy: Proxy | None, request: Request, said: str) -> RegistryError:
    """The error for a proxy that does not open the way; ``said`` is its status line."""
    if said.startswith(("502", "503", "504")):
        return _Lost(f"{request}: the proxy {proxy} answers {said}", connecting=True)
    return RegistryError(
        f"{request}: the proxy {proxy} answers {said}",
        hint="check HTTPS_PROXY, with its user and password; hosts reached without are in NO_PROXY",
    )


def _trouble(request: Request, error: Exception, proxy: Proxy | None = None) -> RegistryError:
    text = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = re.sub(r"\s*\(_ssl\.c:\d+\)", "", text.partition("failed: ")[2]) or text
        return Untrusted(
            f"{request}: its certificate is not trusted ({reason})",
            hint='name its certificate authority: [registry] ca = "ca.pem" in mlpack.toml',
        )
    connecting = isinstance(error, httpcore.ConnectError | httpcore.ConnectTimeout)
    slow = isinstance(error, httpcore.TimeoutException)
    what = "no answer in time" if slow else "the connection failed"
    way = f", through the proxy {proxy}" if proxy else ""
    return _Lost(f"{request}: {what}{way} ({text})", connecting=connecting)


def _chunks(request: Request, answer: httpcore.Response) -> Iterator[bytes]:
    try:
        yield from answer.iter_stream()
    except _TROUBLE as error:
        raise _trouble(request, error) from None


def _end(method: str, chunks: Iterator[bytes], answer: httpcore.Response) -> None:
    """Close an answer; the rest of a short one is read, so that its connection is kept.

    Without that each request would open a connection, and over TLS pay for a handshake.
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
    """Seconds; a date is read against the answer's own clock, so ours does not matter."""
    text = headers.get("retry-after", "")
    if text.isdecimal():
        return float(text)
    try:
        then, now = parsedate_to_datetime(text), parsedate_to_datetime(headers.get("date", ""))
        return max(0.0, (then - now).total_seconds())
    except (TypeError, ValueError):
        return None
