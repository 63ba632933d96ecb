"""Bodies of requests, bounded in size and time, without their content coding."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.types import Message, Receive

from .. import content_coding
from ..http_errors import BadRequest, ContentTooLarge, RequestTimeout, ServiceUnavailable
from ..telemetry import record

if TYPE_CHECKING:
    from ..scoring_service import ScoringService

HELD = "held"
"""The member of a request's record with the bytes of its body in memory."""
MAX_BODIES = 4
"""Number of bodies of the maximum size that may be in memory at once."""


async def read_body(headers: Mapping[str, str], receive: Receive, service: ScoringService) -> bytes:
    """Return the body, bounded in size and time; header names in lower case.

    The size is that without ``Content-Encoding``, which only scripts with ``@rawhttp`` see.
    Raises :class:`ContentTooLarge` (before reading, if a header gives the length),
    :class:`RequestTimeout`, :class:`ServiceUnavailable` if too many bodies are in memory,
    :class:`BadRequest` if the client disconnects or the coding is damaged, and
    :class:`~..content_coding.UnsupportedCoding`.
    """
    encoded = headers.get("content-encoding")
    coding = content_coding.name_of(encoded) if encoded and not service.scorer.raw else ""
    content = await _read(headers, receive, service)
    return await _decoded(content, coding, service) if coding else content


async def _decoded(content: bytes, coding: str, service: ScoringService) -> bytes:
    """Return ``content`` without its coding, letting other requests go on in between."""
    found = bytearray()
    for piece in content_coding.pieces(content, coding, service.settings.max_body):
        _count(len(piece), service)
        found += piece
        await asyncio.sleep(0)
    return bytes(found)


async def _read(headers: Mapping[str, str], receive: Receive, service: ScoringService) -> bytes:
    maximum, seconds = service.settings.max_body, service.settings.timeout
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > maximum:
        raise _too_large(maximum)
    try:
        async with asyncio.timeout(seconds):
            message = await receive()
            first = _chunk(message, 0, service)
            if not message.get("more_body"):
                return first
            found = bytearray(first)
            while message.get("more_body"):
                message = await receive()
                found += _chunk(message, len(found), service)
            return bytes(found)
    except TimeoutError:
        raise RequestTimeout(f"the body did not arrive in {seconds:g} seconds") from None


def _chunk(message: Message, before: int, service: ScoringService) -> bytes:
    if message["type"] == "http.disconnect":
        raise BadRequest("the request ended before its body")
    maximum = service.settings.max_body
    body: bytes = message.get("body", b"")
    if before + len(body) > maximum:
        raise _too_large(maximum)
    fields = record.get()
    if fields is not None:
        fields["received"] = before + len(body)
    _count(len(body), service)
    return body


def _count(size: int, service: ScoringService) -> None:
    """Count bytes in memory; raise :class:`ServiceUnavailable` if there are too many."""
    fields = record.get()
    if fields is None:
        return
    # app.py subtracts what is held when the request ends.
    service.body_bytes += size
    held = fields.get(HELD, 0)
    fields[HELD] = size + (held if isinstance(held, int) else 0)
    most = MAX_BODIES * service.settings.max_body
    if service.body_bytes > most:
        raise ServiceUnavailable(f"requests of {most} bytes are in work")


def _too_large(maximum: int) -> ContentTooLarge:
    return ContentTooLarge(f"the request is larger than {maximum} bytes")
