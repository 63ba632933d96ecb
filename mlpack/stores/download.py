"""Reading a blob over a connection that may break: it is taken up where it broke off."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from itertools import chain
from typing import Any

from mlpack.stores.base import Corrupt
from mlpack.stores.exchange import Response, Unreachable
from mlpack.stores.http import ATTEMPTS

WORTH = 64 * 1024
"""Bytes that must come between two failures for them not to count as one row of failures."""

Fetch = Callable[[int], Response]
"""Asks for the bytes from an offset on; answers 200 or 206."""


class Download(io.RawIOBase):
    """The bytes of one answer, or of several that together are one blob; not verified here."""

    def __init__(self, fetch: Fetch, pause: Callable[[int], None]) -> None:
        self._fetch = fetch
        self._pause = pause
        self._response = fetch(0)
        self._at = 0
        self._left = memoryview(b"")
        self._failures = 0
        self._failed_at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        """Read what has come; 0 at the end."""
        if not self._left:
            self._left = memoryview(self._next())
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    def seekable(self) -> bool:
        """By asking again: for an upload elsewhere that broke off."""
        return True

    def tell(self) -> int:
        """Where the next read starts."""
        return self._at - len(self._left)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to ``offset`` from the start; only from there, for a download has no known end."""
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("a download is sought from its start only")
        if offset != self.tell():
            self._response.close()
            self._response = self._fetch(offset)
            self._at, self._left = offset, memoryview(b"")
            _continue_at(self._response, offset)
        return offset

    def close(self) -> None:
        """Give up the rest."""
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
                self._again(error)

    def _again(self, error: Unreachable) -> None:
        """Ask for the rest; raise ``error`` after too many failures with too little between."""
        self._response.close()
        if self._at - self._failed_at >= WORTH:
            self._failures = 0
        self._failures += 1
        self._failed_at = self._at
        if self._failures >= ATTEMPTS:
            raise error
        self._pause(self._failures)
        self._response = self._fetch(self._at)
        _continue_at(self._response, self._at)


def _continue_at(response: Response, offset: int) -> None:
    """Bring an answer to ``offset``: a server may answer with the range, or with everything."""
    if response.status == 206:
        found = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
        if found is None or int(found[1]) != offset:
            raise Corrupt(f"a registry was asked for the bytes from {offset} and sent others")
        return
    rest = offset
    while rest:
        chunk = next(response.chunks, b"")
        if not chunk:
            raise Corrupt(f"a registry sent less than the {offset} bytes it had sent before")
        if len(chunk) > rest:
            response.chunks = chain([chunk[rest:]], response.chunks)
            return
        rest -= len(chunk)
