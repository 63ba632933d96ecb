"""A double of one container of Azure Blob Storage, reached by a SAS token alone.

It answers what azure-storage-blob 12 sends to put, look at, list and read block blobs.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote
from xml.sax.saxutils import escape

from tests.doubles.authority import Answer, Request

_DATE = "Fri, 20 Nov 2026 17:00:00 GMT"
PAGE = 2
"""Blobs of one page of a listing: less than the service's 5,000, so that pages are asked for."""


@dataclass
class Container:
    """The blobs of a container, and the key its SAS tokens are signed with."""

    account: str
    name: str
    blobs: dict[str, bytes] = field(default_factory=dict, repr=False)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    issued: list[str] = field(default_factory=list, repr=False)
    """Every signature there was."""

    full: bool = False
    """Whether it takes no blob: 403, as of an account whose firewall or role says no."""

    def sas(self, permissions: str, seconds: int = 3600) -> str:
        """A token for the container."""
        ends = datetime.fromtimestamp(time.time() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        signature = self._signature(permissions, ends)
        self.issued.append(signature)
        return f"sv=2026-02-06&sr=c&sp={permissions}&se={quote(ends)}&sig={quote(signature)}"

    def _signature(self, permissions: str, ends: str) -> str:
        text = f"{permissions}\n{ends}\n/blob/{self.account}/{self.name}"
        return base64.b64encode(hmac.digest(self.key, text.encode(), hashlib.sha256)).decode()

    def answer(self, asked: Request, *, trusted: bool = False) -> Answer:
        """Answer a request to ``/CONTAINER/BLOB``; ``trusted`` needs no signature."""
        query = dict(parse_qsl(asked.target.partition("?")[2], keep_blank_values=True))
        needed = {"GET": "r", "HEAD": "r", "PUT": "w"}.get(asked.method, "d")
        if query.get("comp") == "list":
            needed = "l"
        if not trusted and not self._allows(query, needed):
            return refused(403, "AuthenticationFailed")
        container, _, blob = asked.path.lstrip("/").partition("/")
        if container != self.name:
            return refused(404, "ContainerNotFound")
        if query.get("comp") == "list":
            return self._list(query)
        if asked.method == "PUT":
            return self._put(asked, blob, query.get("comp", ""))
        return self._read(asked, blob)

    def _allows(self, query: Mapping[str, str], needed: str) -> bool:
        permissions, ends = query.get("sp", ""), query.get("se", "")
        right = hmac.compare_digest(query.get("sig", ""), self._signature(permissions, ends))
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return right and needed in permissions and now < ends

    def _put(self, asked: Request, blob: str, part: str) -> Answer:
        if self.full:
            return refused(403, "AuthorizationPermissionMismatch")
        if part == "metadata":
            if blob not in self.blobs:
                return refused(404, "BlobNotFound")
            marks = asked.headers.items()
            found = {name.removeprefix("x-ms-meta-"): value for name, value in marks
                     if name.startswith("x-ms-meta-")}  # fmt: skip
            self.metadata[blob] = found
            return 200, _headers(), b""
        if part or asked.headers.get("x-ms-blob-type") != "BlockBlob":
            return refused(400, "InvalidHeaderValue")
        if asked.headers.get("if-none-match") == "*" and blob in self.blobs:
            return refused(409, "BlobAlreadyExists")
        self.blobs[blob] = asked.body
        self.metadata.pop(blob, None)
        return 201, _headers(), b""

    def _read(self, asked: Request, blob: str) -> Answer:
        if blob not in self.blobs:
            return refused(404, "BlobNotFound")
        content = self.blobs[blob]
        marks = {f"x-ms-meta-{key}": text for key, text in self.metadata.get(blob, {}).items()}
        known = {**_headers(), "x-ms-blob-type": "BlockBlob", **marks}
        if asked.method == "HEAD":
            return 200, {**known, "Content-Length": str(len(content))}, b""
        first, _, last = asked.headers["x-ms-range"].removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last) + 1]
        if not part and content:
            return refused(416, "InvalidRange")
        span = f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
        return 206, {**known, "Content-Range": span}, part

    def _list(self, query: Mapping[str, str]) -> Answer:
        marker, prefix = query.get("marker", ""), query.get("prefix", "")
        names = [name for name in sorted(self.blobs) if name.startswith(prefix) and name > marker]
        page, rest = names[:PAGE], names[PAGE:]
        listed = "".join(
            f"<Blob><Name>{escape(name)}</Name><Properties><Content-Length>"
            f"{len(self.blobs[name])}</Content-Length><BlobType>BlockBlob</BlobType>"
            f"<Last-Modified>{_DATE}</Last-Modified></Properties></Blob>"
            for name in page
        )
        after = f"<NextMarker>{escape(page[-1])}</NextMarker>" if rest else "<NextMarker/>"
        text = (
            '<?xml version="1.0" encoding="utf-8"?><EnumerationResults '
            f'ContainerName="{self.name}"><Blobs>{listed}</Blobs>{after}</EnumerationResults>'
        )
        return 200, {**_headers(), "Content-Type": "application/xml"}, text.encode()


def _headers() -> dict[str, str]:
    return {"ETag": '"0x1"', "Last-Modified": _DATE, "x-ms-version": "2026-02-06"}


def refused(status: int, code: str) -> Answer:
    """A refusal as the storage writes it."""
    text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    headers = {"x-ms-error-code": code, "Content-Type": "application/xml"}
    return status, headers, text.encode()
