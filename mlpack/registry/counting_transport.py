"""Connections that count the bytes in both directions, and give up on a peer that is too slow."""

from __future__ import annotations

import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import httpcore

from mlpack.json_document import HIDDEN, named

PATIENCE_SECONDS = 30.0
SLOWEST = 100
"""Bytes a second, over PATIENCE_SECONDS of waiting, below which a connection fails: a satellite
link is ten times faster, and a peer that drips bytes would hold us for ever."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of HTTP over the connections: request and status lines, headers and bodies.

    TLS is not counted: it adds a handshake for each connection (1.2 to 4.0 KB by certificate
    chain, docs/concepts/honest-bytes.md) and 22 bytes for each record of up to 16 KiB.
    """

    requests: int = 0
    sent: int = field(default=0, metadata=named("sent_bytes"))
    received: int = field(default=0, metadata=named("received_bytes"))
    connections: int = field(default=0, metadata=HIDDEN)

    @property
    def total(self) -> int:
        """Bytes in both directions."""
        return self.sent + self.received

    def since(self, before: Traffic) -> Traffic:
        """Return what was added after ``before`` was read."""
        return Traffic(
            self.requests - before.requests,
            self.sent - before.sent,
            self.received - before.received,
            self.connections - before.connections,
        )


class TrafficCounter:
    """Adds traffic up over threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: Counter[str] = Counter()

    def add(self, **amounts: int) -> None:
        """Count more of the fields of :class:`Traffic`."""
        with self._lock:
            self._sums.update(amounts)

    def read(self) -> Traffic:
        """Return the sums so far."""
        with self._lock:
            return Traffic(**self._sums)


class CountingBackend(httpcore.NetworkBackend):
    """httpcore's own sockets, with their bytes counted."""

    def __init__(self, counter: TrafficCounter, patience: float = PATIENCE_SECONDS) -> None:
        self._sockets = httpcore.SyncBackend()
        self._counter = counter
        self._patience = patience

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Open a connection."""
        stream = self._sockets.connect_tcp(host, port, timeout, local_address, socket_options)
        self._counter.add(connections=1)
        return _CountingStream(stream, self._counter, self._patience)


class _CountingStream(httpcore.NetworkStream):
    """One connection; with TLS, the bytes before encryption are counted."""

    def __init__(
        self, stream: httpcore.NetworkStream, counter: TrafficCounter, patience: float
    ) -> None:
        self._stream = stream
        self._counter = counter
        self._patience = patience
        self._answered = True
        self._waited = 0.0
        self._got = 0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        started = time.monotonic()
        data = self._stream.read(max_bytes, timeout)
        self._counter.add(received=len(data))
        self._judge(time.monotonic() - started, len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)
        self._counter.add(sent=len(buffer))
        self._answered = False

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        secure = self._stream.start_tls(ssl_context, server_hostname, timeout)
        return _CountingStream(secure, self._counter, self._patience)

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - httpcore's signature
        return self._stream.get_extra_info(info)

    def _judge(self, waited: float, got: int) -> None:
        """A first byte may take its time (the read timeout bounds it); then the rate must do."""
        if not self._answered:
            self._answered, self._waited, self._got = True, 0.0, 0
            return
        self._waited += waited
        self._got += got
        if self._waited < self._patience:
            return
        if got and self._got < self._waited * SLOWEST:
            raise httpcore.ReadTimeout(f"slower than {SLOWEST} bytes a second")
        self._waited, self._got = 0.0, 0
