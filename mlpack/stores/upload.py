"""Sending a blob over a connection that may break (distribution-spec, *Pushing blobs*).

A session is opened with POST, filled with PATCH and closed with PUT. After a failure the
registry is asked how far it came, and the rest is sent.
"""

from __future__ import annotations

import re
from typing import Protocol
from urllib.parse import urljoin

from mlpack.oci.descriptor import Descriptor
from mlpack.stores.base import Corrupt
from mlpack.stores.exchange import Refused, RegistryError, Request, Response, Unreachable
from mlpack.stores.http import ATTEMPTS

PART = 64 * 1024 * 1024
"""Bytes sent in one request, and kept until the registry has them.

docker-registry syncs its disk after each request: 100 MB in parts of 16 MiB took 2.3 s where
one request took 0.9 s. Four uploads at once keep at most 256 MiB.
"""

_OCTETS = {"Content-Type": "application/octet-stream"}


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


class UploadLost(RegistryError):
    """An upload the registry no longer knows, or has other bytes of; begin again."""

    hint = "run the command again"


class Garbled(Corrupt):
    """Bytes that arrived at the registry as others."""


class Upload:
    """One blob on its way; at most PART bytes of it are in memory."""

    def __init__(self, repository: Repository, location: str = "") -> None:
        self._repository = repository
        self._location = location
        self._part = bytearray()
        self._start = 0
        """Offset of the first byte of ``_part`` in the blob."""

    def write(self, data: bytes, /) -> int:
        """Take more bytes; send a part when it is full."""
        self._part += data
        while len(self._part) > PART:
            # Never the last byte: the PUT that ends the upload carries the rest.
            full, self._part = self._part, self._part[PART:]
            self._send("PATCH", memoryview(full)[:PART], None)
            self._start += PART
        return len(data)

    def commit(self, target: Descriptor) -> None:
        """Send the rest and have the registry check the digest."""
        self._send("PUT", memoryview(self._part), target)
        self._location = ""

    def cancel(self) -> None:
        """Tell the registry to forget it; it would by itself, some day."""
        if self._location:
            place, self._location = self._location, ""
            try:
                self._repository.send(Request(method="DELETE", url=place, again=False)).close()
            except RegistryError:
                return

    def _send(self, method: str, part: memoryview, target: Descriptor | None) -> None:
        """Bring the registry to the end of ``part``, in as many requests as it takes."""
        if not self._location:
            self._location = self._open()
        done, failures = 0, 0
        while True:
            request = self._request(method, part[done:], done, target)
            failed: Response | None = None
            try:
                failed = self._try(request)
                if failed is None:
                    return
                trouble: RegistryError = self._repository.failure(request, failed)
            except Unreachable as lost:
                trouble = lost
            failures += 1
            if failures >= ATTEMPTS:
                raise trouble
            self._repository.pause(failures, failed)
            if target is not None and self._repository.exists(target):
                return
            now = self._reached(len(part))
            failures = 0 if now > done else failures
            done = now

    def _open(self) -> str:
        request = Request(method="POST", url=self._repository.uploads)
        with self._repository.send(request) as response:
            if response.status != 202:
                raise self._repository.failure(request, response)
            return location(request, response)

    def _request(
        self, method: str, body: memoryview, done: int, target: Descriptor | None
    ) -> Request:
        url = self._location
        if target is not None:
            url += f"{'&' if '?' in url else '?'}digest={target.digest}"
        first = self._start + done
        headers = dict(_OCTETS)
        if body and (first or method == "PATCH"):
            headers["Content-Range"] = f"{first}-{first + len(body) - 1}"
        return Request(method=method, url=url, headers=headers, body=body, again=False)

    def _try(self, request: Request) -> Response | None:
        """Send; ``None`` is success, an answer is one that may pass, anything else is raised."""
        with self._repository.send(request) as response:
            if response.status in {201, 202, 204}:
                if request.method == "PATCH":
                    self._location = location(request, response)
                return None
            if response.status == 404 or response.status == 416:
                return response
            if response.status in {408, 425, 429} or response.status >= 500:
                return response
            refused = self._repository.failure(request, response)
            if response.status == 400 and "DIGEST_INVALID" in str(refused):
                raise Garbled(f"{request}: the registry received other bytes") from refused
            raise refused

    def _reached(self, size: int) -> int:
        """How many bytes of the part the registry has."""
        request = Request(method="GET", url=self._location)
        with self._repository.send(request) as response:
            found = re.fullmatch(r"(?:bytes=)?0-(\d+)", response.headers.get("range", ""))
            if response.status != 204 or found is None:
                raise UploadLost(f"{request}: the registry answers {response.status}")
            self._location = location(request, response)
        # "0-0" is what registries say of nothing; a single byte is never sent alone before the end.
        have = int(found[1]) + 1 if int(found[1]) else 0
        if not self._start <= have <= self._start + size:
            raise UploadLost(f"{request}: the registry has {have} bytes of it")
        return have - self._start


def location(request: Request, response: Response) -> str:
    """Where an upload goes on; it may be relative."""
    found = response.headers.get("location", "")
    if not found:
        if request.method in {"PATCH", "GET"}:
            return request.url
        raise RegistryError(f"{request}: the registry does not say where to upload to")
    return urljoin(request.url, found)
