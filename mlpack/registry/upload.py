"""Sending a blob over a connection that may break (distribution-spec, *Pushing blobs*).

:class:`BlobUpload` sends a blob whose digest is known. A session is opened with POST, and filled
and closed with one PUT: docker-registry syncs its disk after each request, and 100 MB in parts of
16 MiB took 2.3 s where one request took 0.9 s. After a failure the registry is asked how much it
has, and a PUT with the rest follows.

:class:`UploadStream` sends a blob while it is being written: a layer of 100 MB is in the registry
when it is in the store, and not 0.5 s later. It is an attempt: if it fails, the blob is sent
from the store like any other.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sized
from contextlib import contextmanager, suppress
from queue import Empty, Full, Queue
from typing import Protocol, cast
from urllib.parse import urlsplit, urlunsplit

from mlpack.errors import MlpackError
from mlpack.oci.descriptor import Descriptor
from mlpack.registry.answers import require_no_web_page
from mlpack.registry.http_types import (
    ATTEMPTS,
    InsecureConnection,
    RegistryError,
    Request,
    Response,
    Unreachable,
    address,
    origin,
)
from mlpack.registry.session import RepositorySession
from mlpack.stores.store import Corrupt

_PIECE = 256 * 1024
"""Bytes read and sent at a time; sockets split larger pieces, copying the rest."""

_AHEAD = 16
"""Pieces of a stream that may wait, so that a slow link delays the writer and fills no memory."""

_POLL_SECONDS = 0.2

PART = 16 * 1024 * 1024
"""Bytes of a part, if a blob is not taken whole; more if the registry asks for it."""

_REFUSED = frozenset({401, 403})
_WHOLE_REFUSED = frozenset({400, 405, 411, 413, 415, 501})
"""Responses to a blob in one request; 413 is that of a proxy whose bodies are limited."""


class Source(Protocol):
    """The content of a blob, which can be read again from any offset."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes; raise at the end if they were not the blob's."""
        ...

    def seek(self, offset: int, /) -> int:
        """Go to ``offset``."""
        ...


class UploadLost(RegistryError):
    """An upload that the registry no longer knows, or of which it has other bytes; begin again."""

    hint = "run the command again"

    def __init__(self, message: str, *, hint: str = "", in_parts: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.in_parts = in_parts
        """Whether the registry refused the blob as a whole."""


class UploadCorrupted(Corrupt):
    """Bytes that reached the registry as others."""


class StreamCancelled(MlpackError):
    """A stream that was cancelled; caught where it is raised for."""


class BlobUpload:
    """The upload of one blob to one repository; a piece of it is in memory.

    ``in_parts`` sends PATCH requests of at most PART bytes, for registries, and proxies before
    them, that refuse a whole blob.
    """

    def __init__(
        self,
        repository: RepositorySession,
        target: Descriptor,
        source: Source,
        location: str = "",
        *,
        in_parts: bool = False,
    ) -> None:
        self._repository = repository
        self._target = target
        self._source = source
        self._location = location
        self._part = PART if in_parts else 0

    def send(self) -> None:
        """Send the whole blob, in as many requests as it takes."""
        if not self._location:
            self._location = self._open()
        done, failures = 0, 0
        while True:
            request = self._request(done)
            failed, trouble = self._attempt(request)
            if trouble is None:
                if request.method == "PUT":
                    break
                done, failures = done + len(cast(Sized, request.body)), 0
                continue
            if done == 0 and self._go_home(failed):
                continue
            failures += 1
            refused = failed is not None and failed.status in _REFUSED
            if failures >= ATTEMPTS or refused or isinstance(trouble, InsecureConnection):
                raise trouble
            self._repository.pause(failures, failed)
            if self._repository.exists(self._target):
                break
            now = self._received()
            failures = 0 if now > done else failures
            done = now
        self._location = ""

    def _attempt(self, request: Request) -> tuple[Response | None, RegistryError | None]:
        """Send; return what failed, if anything, and may be retried; raise what may not."""
        try:
            failed = self._try(request)
        except (Unreachable, InsecureConnection) as lost:
            return None, lost
        return failed, self._repository.failure(request, failed) if failed else None

    def _go_home(self, failed: Response | None) -> bool:
        """Continue at the registry's own name, if an upload by another name of it is refused.

        A registry behind a proxy may not know its name, and tokens are for no other.
        """
        if failed is not None and failed.status not in _REFUSED:
            return False
        here = urlsplit(self._repository.uploads)
        there = urlsplit(self._location)
        if origin(self._location) == origin(here.geturl()) or not there.path.startswith(here.path):
            return False
        self._location = urlunsplit((here.scheme, here.netloc, there.path, there.query, ""))
        return True

    def cancel(self) -> None:
        """Have the registry discard an unfinished upload."""
        place, self._location = self._location, ""
        _discard(self._repository, place)

    def _open(self) -> str:
        request = Request(method="POST", url=self._repository.uploads)
        with self._repository.send(request) as response:
            if response.status not in {200, 201, 202}:
                raise self._repository.failure(request, response)
            require_no_web_page(request, response)
            least = response.headers.get("oci-chunk-min-length", "")
            if self._part and least.isdecimal():
                self._part = max(self._part, min(int(least), self._target.size))
            return location(request, response)

    def _request(self, done: int) -> Request:
        headers = {"Content-Type": "application/octet-stream"}
        end = self._target.size
        if self._part and done < end:
            end = min(end, done + self._part)
            method, url = "PATCH", self._location
        else:
            method, url = "PUT", _closing_url(self._location, self._target)
        if done < end and (done or self._part):
            headers["Content-Range"] = f"{done}-{end - 1}"
        body = _Rest(self._source, done, end, last=end == self._target.size)
        return Request(method=method, url=url, headers=headers, body=body, attempts=1)

    def _try(self, request: Request) -> Response | None:
        """Send; return a response that may be retried, or ``None`` for success; else raise."""
        with self._repository.send(request) as response:
            if response.status in {200, 201, 202, 204}:
                require_no_web_page(request, response)
                if request.method == "PATCH":
                    self._location = location(request, response)
                return None
            if self._may_be_retried(request, response.status):
                return response
            raise self._refusal(request, response)

    def _may_be_retried(self, request: Request, status: int) -> bool:
        if origin(request.url) != origin(self._repository.uploads) and status in _REFUSED:
            return True
        return status in {404, 408, 416, 425, 429} or (status >= 500 and status != 501)

    def _refusal(self, request: Request, response: Response) -> MlpackError:
        failure = self._repository.failure(request, response)
        if response.status == 400 and "DIGEST_INVALID" in str(failure):
            return UploadCorrupted(f"{request}: the registry received other bytes")
        if response.status in _WHOLE_REFUSED and not self._part:
            return UploadLost(str(failure), hint=failure.hint, in_parts=True)
        return failure

    def _received(self) -> int:
        """Ask how many bytes the registry has."""
        request = Request(method="GET", url=self._location)
        with self._repository.send(request) as response:
            found = re.fullmatch(r"(?:bytes=)?0-(\d+)", response.headers.get("range", ""))
            if response.status != 204 or found is None:
                raise UploadLost(f"{request}: the registry answers {response.status}")
            self._location = location(request, response)
        # Registries answer "0-0" for nothing; a single byte may as well be sent again.
        have = int(found[1]) + 1 if int(found[1]) else 0
        if have > self._target.size:
            raise UploadLost(f"{request}: the registry has {have} bytes of it")
        return have


class _Rest:
    """A blob from an offset on, to its end or to that of a part."""

    def __init__(self, source: Source, start: int, end: int, *, last: bool) -> None:
        self._source = source
        self._start = start
        self._end = end
        self._last = last

    def __len__(self) -> int:
        return self._end - self._start

    def __iter__(self) -> Iterator[bytes]:
        self._source.seek(self._start)
        left = len(self)
        while left:
            piece = self._source.read(min(_PIECE, left))
            left -= len(piece)
            if self._last and not left:
                # Before the last piece is sent: a source that goes on is not the blob.
                self._source.read(1)
            yield piece


class UploadStream:
    """One blob written by one thread and sent by another."""

    def __init__(self, repository: RepositorySession) -> None:
        self._repository = repository
        self._pieces: Queue[bytes] = Queue(_AHEAD)
        self._over = threading.Event()
        self._filled = False
        self._location = ""
        self._sender = threading.Thread(target=self._send, name="stream", daemon=True)
        self._sender.start()

    def write(self, data: bytes, /) -> None:
        """Send the next bytes; they are dropped once the registry has refused any."""
        for start in range(0, len(data), _PIECE):
            self._put(data[start : start + _PIECE])

    def finish(self, target: Descriptor) -> bool:
        """End the blob, which is ``target``; return whether the registry has it now."""
        self._put(b"")
        self._sender.join()
        if not self._filled:
            return False
        url = _closing_url(self._location, target)
        kept = False
        with suppress(MlpackError):
            request = Request(method="PUT", url=url, attempts=1)
            with self._repository.send(request) as response:
                kept = response.status in {201, 204}
        if kept:
            self._location = ""
        return kept

    def cancel(self) -> None:
        """Stop, and have the registry discard an unfinished upload."""
        self._over.set()
        self._sender.join()
        place, self._location = self._location, ""
        _discard(self._repository, place)

    def _put(self, piece: bytes) -> None:
        while not self._over.is_set():
            with suppress(Full):
                self._pieces.put(piece, timeout=_POLL_SECONDS)
                return

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
            attempts=1,
        )
        with self._repository.send(request) as response:
            if response.status == 202:
                self._location, self._filled = location(request, response), True

    def _body(self) -> Iterator[bytes]:
        # A generator yields its pieces once: a request that is sent again would be empty, and the
        # registry would refuse the digest.
        while True:
            try:
                piece = self._pieces.get(timeout=_POLL_SECONDS)
            except Empty:
                if self._over.is_set():
                    raise StreamCancelled("the stream was cancelled") from None
                continue
            if not piece:
                return
            yield piece


@contextmanager
def streaming(repository: RepositorySession) -> Iterator[UploadStream]:
    """Open a stream for the length of the block; an unfinished one is cancelled."""
    stream = UploadStream(repository)
    try:
        yield stream
    finally:
        stream.cancel()


def _closing_url(place: str, target: Descriptor) -> str:
    """Return the address that ends the upload at ``place``."""
    return f"{place}{'&' if '?' in place else '?'}digest={target.digest}"


def _discard(repository: RepositorySession, place: str) -> None:
    """Have the registry discard the upload at ``place``, if any; in time it would anyway."""
    if place:
        with suppress(RegistryError):
            repository.send(Request(method="DELETE", url=place, attempts=1)).close()


def location(request: Request, response: Response) -> str:
    """Return the address where an upload continues; the header may be relative.

    A registry behind a proxy with TLS that names itself without is meant with it.
    """
    found = response.headers.get("location", "")
    if not found and request.method in {"PATCH", "GET"}:
        return request.url
    there = urlsplit(address(request.url, found) if found else "")
    if not there.netloc:
        raise RegistryError(
            f"{request}: the registry names no address to upload to",
            hint="check the registry's name and port, or ask its operator",
        )
    here = urlsplit(request.url)
    if (here.scheme, there.scheme) == ("https", "http") and here.hostname == there.hostname:
        there = there._replace(scheme=here.scheme, netloc=here.netloc)
    return there._replace(fragment="").geturl()
