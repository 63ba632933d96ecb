"""Sending a blob over a connection that may break (distribution-spec, *Pushing blobs*).

A session is opened with POST and filled and closed with one PUT: docker-registry syncs its
disk after each request, and 100 MB in parts of 16 MiB took 2.3 s where one request took 0.9 s.
After a failure the registry is asked how far it came, and a PUT with the rest follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol
from urllib.parse import urljoin

from mlpack.oci.descriptor import Descriptor
from mlpack.stores.base import Corrupt
from mlpack.stores.exchange import Refused, RegistryError, Request, Response, Unreachable
from mlpack.stores.http import ATTEMPTS

_PIECE = 256 * 1024
"""Bytes read and sent at a time; larger ones a socket takes in several goes, copying the rest."""


class Repository(Protocol):
    """What an upload needs of the repository it goes to."""

    @property
    def uploads(self) -> str:
        """Where sessions are opened."""
        ...

    def send(self, request: Request) -> Response:
        """Send, logged in."""
        ...

    def failure(self, request: Request, response: Response) -> Refused:
        """The error for an answer that says no."""
        ...

    def pause(self, failures: int, response: Response | None = None) -> None:
        """Wait."""
        ...

    def exists(self, target: Descriptor) -> bool:
        """Whether the registry holds ``target``."""
        ...


class Source(Protocol):
    """The content of a blob, which can be read again from any place."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, which raise at the end where they were others than the blob's."""
        ...

    def seek(self, offset: int, /) -> int:
        """Go to ``offset``."""
        ...


class UploadLost(RegistryError):
    """An upload the registry no longer knows, or has other bytes of; begin again."""

    hint = "run the command again"


class Garbled(Corrupt):
    """Bytes that arrived at the registry as others."""


class Upload:
    """One blob on its way to one repository; a piece of it is in memory."""

    def __init__(
        self, repository: Repository, target: Descriptor, source: Source, location: str = ""
    ) -> None:
        self._repository = repository
        self._target = target
        self._source = source
        self._location = location

    def send(self) -> None:
        """Bring the whole blob over, in as many requests as it takes."""
        if not self._location:
            self._location = self._open()
        done, failures = 0, 0
        while True:
            request = self._request(done)
            failed: Response | None = None
            try:
                failed = self._try(request)
                if failed is None:
                    self._location = ""
                    return
                trouble: RegistryError = self._repository.failure(request, failed)
            except Unreachable as lost:
                trouble = lost
            failures += 1
            if failures >= ATTEMPTS:
                raise trouble
            self._repository.pause(failures, failed)
            if self._repository.exists(self._target):
                self._location = ""
                return
            now = self._reached()
            failures = 0 if now > done else failures
            done = now

    def cancel(self) -> None:
        """Have the registry forget it."""
        place, self._location = self._location, ""
        forget(self._repository, place)

    def _open(self) -> str:
        request = Request(method="POST", url=self._repository.uploads)
        with self._repository.send(request) as response:
            if response.status != 202:
                raise self._repository.failure(request, response)
            return location(request, response)

    def _request(self, done: int) -> Request:
        headers = {"Content-Type": "application/octet-stream"}
        if done:
            headers["Content-Range"] = f"{done}-{self._target.size - 1}"
        return Request(
            method="PUT",
            url=closing(self._location, self._target),
            headers=headers,
            body=_Rest(self._source, done, self._target.size),
            again=False,
        )

    def _try(self, request: Request) -> Response | None:
        """Send; ``None`` is success, an answer is one that may pass, anything else is raised."""
        with self._repository.send(request) as response:
            if response.status in {201, 202, 204}:
                return None
            if response.status in {404, 408, 416, 425, 429} or response.status >= 500:
                return response
            refused = self._repository.failure(request, response)
            if response.status == 400 and "DIGEST_INVALID" in str(refused):
                raise Garbled(f"{request}: the registry received other bytes") from refused
            raise refused

    def _reached(self) -> int:
        """How many bytes the registry has."""
        request = Request(method="GET", url=self._location)
        with self._repository.send(request) as response:
            found = re.fullmatch(r"(?:bytes=)?0-(\d+)", response.headers.get("range", ""))
            if response.status != 204 or found is None:
                raise UploadLost(f"{request}: the registry answers {response.status}")
            self._location = location(request, response)
        # "0-0" is what registries say of nothing; a single byte is as well sent again.
        have = int(found[1]) + 1 if int(found[1]) else 0
        if have > self._target.size:
            raise UploadLost(f"{request}: the registry has {have} bytes of it")
        return have


class _Rest:
    """A blob from an offset on."""

    def __init__(self, source: Source, start: int, size: int) -> None:
        self._source = source
        self._start = start
        self._size = size

    def __len__(self) -> int:
        return self._size - self._start

    def __iter__(self) -> Iterator[bytes]:
        self._source.seek(self._start)
        left = len(self)
        while left:
            piece = self._source.read(_PIECE)
            left -= len(piece)
            if not left:
                # Before the last piece leaves: a source that goes on is not the blob.
                self._source.read(1)
            yield piece


def closing(place: str, target: Descriptor) -> str:
    """The address that ends the upload at ``place``."""
    return f"{place}{'&' if '?' in place else '?'}digest={target.digest}"


def forget(repository: Repository, place: str) -> None:
    """Tell the registry to forget the upload at ``place``, if any; it would by itself, some day."""
    if place:
        try:
            repository.send(Request(method="DELETE", url=place, again=False)).close()
        except RegistryError:
            return


def location(request: Request, response: Response) -> str:
    """Where an upload goes on; it may be relative."""
    found = response.headers.get("location", "")
    if not found:
        if request.method in {"PATCH", "GET"}:
            return request.url
        raise RegistryError(f"{request}: the registry does not say where to upload to")
    return urljoin(request.url, found)
