"""Requests and answers as values, and the rules for them: nothing here is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from types import TracebackType
from typing import Protocol
from urllib.parse import urljoin, urlsplit

from mlpack.errors import MlpackError
from mlpack.oci.document import MAX_DOCUMENT_BYTES
from mlpack.stores.base import Corrupt


class RegistryError(MlpackError):
    """A registry that did not do what was asked."""


class Unreachable(RegistryError):
    """No answer, or one that broke off."""

    hint = "check the registry's name, that it runs, and the network between"


class Untrusted(RegistryError):
    """A connection that would not be safe."""


class Refused(RegistryError):
    """An answer that says no; ``status`` is HTTP's."""

    def __init__(self, message: str, status: int, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Body(Protocol):
    """Content that is sent in pieces, and can be begun again."""

    def __len__(self) -> int:
        """How many bytes all pieces are."""
        ...

    def __iter__(self) -> Iterator[bytes]:
        """The pieces, from the first one."""
        ...


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked; ``headers`` may hold credentials, so they are never shown."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | Body | Iterator[bytes] = field(default=b"", repr=False)
    """An iterator is of unknown length (chunked) and cannot be sent again."""

    again: bool = True
    """Whether it may be sent again without looking at what the first attempt did."""

    def __str__(self) -> str:
        # Without the query: upload sessions and pre-signed addresses carry secrets there.
        parts = urlsplit(self.url)
        return f"{self.method} {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class Response:
    """An answer whose body has not been read yet; close it."""

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
        """An answer made of values: for conversations written down in tests."""
        return cls(status, headers, iter([body]))

    def __enter__(self) -> Response:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def read(self, limit: int = MAX_DOCUMENT_BYTES) -> bytes:
        """The whole body; raise :class:`Corrupt` as soon as it is known to exceed ``limit``."""
        declared = self.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise Corrupt(f"an answer of {declared} bytes is more than {limit}")
        body = bytearray()
        for chunk in self.chunks:
            body += chunk
            if len(body) > limit:
                raise Corrupt(f"an answer is longer than {limit} bytes")
        return bytes(body)


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "10.0.0.1", "a.example")]
    [True, True, True, False, False]
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def origin(url: str) -> str:
    """Scheme, host and port: what credentials belong to."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def redirected(request: Request, status: int, place: str) -> Request:
    """The request that follows a redirect; credentials stay with the host they are for."""
    url = urljoin(request.url, place)
    if request.url.startswith("https:") and not url.startswith("https:"):
        raise Untrusted(f"{request} is redirected to a place that is not encrypted")
    headers = dict(request.headers)
    if origin(url) != origin(request.url):
        headers = {key: text for key, text in headers.items() if key.lower() != "authorization"}
    if status == 303 and request.method != "HEAD":
        return replace(request, method="GET", url=url, headers=headers, body=b"")
    return replace(request, url=url, headers=headers)
