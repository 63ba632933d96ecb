"""Reading a blob over a connection that may break: the download resumes where it broke off."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING

from mlpack.registry.http_types import ATTEMPTS, Response, Unreachable
from mlpack.stores.store import Corrupt

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PROGRESS = 64 * 1024
"""Bytes that must arrive between two failures for the count of failures to start again."""

Fetch = Callable[[int], Response]
"""Requests the bytes from an offset on; returns a response with status 200 or 206."""


class Download(io.RawIOBase):
    """The bytes of one response, or of several that make one blob; not verified here."""

    def __init__(self, fetch: Fetch, pause: Callable[[int], None]) -> None:
        self._fetch = fetch
        self._pause = pause
        self._response = fetch(0)
        self._at = 0
        self._left = memoryview(b"")
        self._failures = 0
        self._failed_at = 0

    def readable(self) -> bool:
        """Return true."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read what has arrived; 0 at the end."""
        room = memoryview(buffer)
        if not self._left:
            self._left = memoryview(self._next())
        size = min(len(room), len(self._left))
        room[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    def seekable(self) -> bool:
        """Return true: a new request starts elsewhere, for an upload that broke off."""
        return True

    def tell(self) -> int:
        """Return the offset of the next read."""
        return self._at - len(self._left)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to ``offset``, from the start only: the end of a download is not known."""
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("a download seeks from its start only")
        if offset != self.tell():
            self._request(offset)
            self._at, self._left = offset, memoryview(b"")
        return offset

    def close(self) -> None:
        """Abandon the rest."""
        if not self.closed:
            self._response.close()
        super().close()

    def _next(self) -> bytes:
        while True:
            try:
                for chunk in self._response.chunks:
                    if chunk:
                        self._at += len(chunk)
                        return chunk
                return b""
            except Unreachable as error:
                self._resume(error)

    def _resume(self, error: Unreachable) -> None:
        """Request the rest; raise ``error`` after too many failures with too little between."""
        self._response.close()
        if self._at - self._failed_at >= PROGRESS:
            self._failures = 0
        self._failures += 1
        self._failed_at = self._at
        if self._failures >= ATTEMPTS:
            raise error
        self._pause(self._failures)
        self._request(self._at)

    def _request(self, offset: int) -> None:
        self._response.close()
        self._response = self._fetch(offset)
        _skip_to(self._response, offset)


def starts_at(response: Response) -> int:
    """Return the offset of a response's first byte; -1 if it is a part and does not say which."""
    if response.status != 206:
        return 0
    found = re.match(r"bytes[ =]+(\d+)-", response.headers.get("content-range", "").strip().lower())
    return int(found[1]) if found else -1


def _skip_to(response: Response, offset: int) -> None:
    """Bring a response to ``offset``: a server may answer with the range, or with everything."""
    rest = offset - starts_at(response)
    if not 0 <= rest <= offset:
        raise Corrupt(f"a registry did not send the bytes from {offset} that were requested")
    while rest:
        chunk = next(response.chunks, b"")
        if not chunk:
            raise Corrupt(f"a registry sent less than the {offset} bytes it had sent before")
        if len(chunk) > rest:
            response.chunks = chain([chunk[rest:]], response.chunks)
            return
        rest -= len(chunk)
