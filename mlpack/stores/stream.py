"""Sending a blob while it is still being written, before its digest is known.

A layer of 100 MB is then in the registry when it is in the store, and not 0.5 s later. It is
an attempt: what goes wrong with it is nobody's error, since the blob is sent again from the
store as any other (:mod:`mlpack.stores.upload`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, Full, Queue

from mlpack.errors import MlpackError
from mlpack.oci.descriptor import Descriptor
from mlpack.stores.exchange import Request
from mlpack.stores.upload import Repository, closing, forget, location

_PIECE = 256 * 1024
_AHEAD = 16
"""Pieces that may wait, so that a slow link holds the writer back and not the memory."""

_LOOK_SECONDS = 0.2


class Abandoned(MlpackError):
    """A stream that was given up; it is caught where it is raised for."""


class Stream:
    """One blob on its way; written to by one thread, sent by another."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._pieces: Queue[bytes] = Queue(_AHEAD)
        self._over = threading.Event()
        self._filled = False
        self._location = ""
        self._sender = threading.Thread(target=self._send, name="stream", daemon=True)
        self._sender.start()

    def write(self, data: bytes, /) -> None:
        """Take the next bytes; where the registry does not, they are forgotten."""
        for start in range(0, len(data), _PIECE):
            self._put(data[start : start + _PIECE])

    def finish(self, target: Descriptor) -> bool:
        """Say what was written; whether the registry has it now."""
        self._put(b"")
        self._sender.join()
        if not self._filled:
            return False
        request = Request(method="PUT", url=closing(self._location, target), again=False)
        try:
            with self._repository.send(request) as response:
                kept = response.status in {201, 204}
        except MlpackError:
            kept = False
        if kept:
            self._location = ""
        return kept

    def cancel(self) -> None:
        """Have the registry forget what it does not have whole."""
        self._over.set()
        self._sender.join()
        place, self._location = self._location, ""
        forget(self._repository, place)

    def _put(self, piece: bytes) -> None:
        while not self._over.is_set():
            try:
                self._pieces.put(piece, timeout=_LOOK_SECONDS)
                return
            except Full:
                continue

    def _send(self) -> None:
        try:
            opened = Request(method="POST", url=self._repository.uploads)
            with self._repository.send(opened) as response:
                place = location(opened, response) if response.status == 202 else ""
            if place:
                self._location = place
                self._fill(place)
        except MlpackError:
            return
        finally:
            self._over.set()

    def _fill(self, place: str) -> None:
        request = Request(
            method="PATCH",
            url=place,
            headers={"Content-Type": "application/octet-stream"},
            body=self._body(),
            again=False,
        )
        with self._repository.send(request) as response:
            if response.status == 202:
                self._location, self._filled = location(request, response), True

    def _body(self) -> Iterator[bytes]:
        # A generator gives its pieces once: a request that is sent again would be empty, and the
        # registry would refuse the digest.
        while True:
            try:
                piece = self._pieces.get(timeout=_LOOK_SECONDS)
            except Empty:
                if self._over.is_set():
                    raise Abandoned("the stream was given up") from None
                continue
            if not piece:
                return
            yield piece


@contextmanager
def streaming(repository: Repository) -> Iterator[Stream]:
    """A stream for the length of the block; one that was not finished is cancelled."""
    stream = Stream(repository)
    try:
        yield stream
    finally:
        stream.cancel()
