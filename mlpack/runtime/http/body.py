"""The body of a request, bounded in size and in time before memory is spent on it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.types import Message, Receive

from ..module import record
from ..problems import BadRequest, Busy, Slow, TooLarge

if TYPE_CHECKING:
    from ..module import Module

BODIES = 4
"""How many of the largest bodies may be in memory at once; smaller ones, as many as that holds."""


async def read_body(headers: Mapping[str, str], receive: Receive, module: Module) -> bytes:
    """The body that arrives within the module's bounds; names of headers in lower case.

    Raises :class:`TooLarge` (before anything is read, where the header says so),
    :class:`Slow`, :class:`Busy`, and :class:`BadRequest` where the client goes away.
    """
    most, seconds = module.settings.max_body, module.settings.timeout
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise _too_large(most)
    try:
        async with asyncio.timeout(seconds):
            return await _whole(receive, most, module)
    except TimeoutError:
        raise Slow(f"the body did not arrive in {seconds:g} seconds") from None


async def _whole(receive: Receive, most: int, module: Module) -> bytes:
    message = await receive()
    first = _chunk(message, 0, most, module)
    if not message.get("more_body"):
        return first
    found = bytearray(first)
    while message.get("more_body"):
        message = await receive()
        found += _chunk(message, len(found), most, module)
    return bytes(found)


def _chunk(message: Message, before: int, most: int, module: Module) -> bytes:
    if message["type"] == "http.disconnect":
        raise BadRequest("the request ended before its body")
    body: bytes = message.get("body", b"")
    if before + len(body) > most:
        raise _too_large(most)
    described = record.get()
    if described is not None:
        # Given back where the request ends (app.py).
        module.held += len(body)
        described["received"] = before + len(body)
        if module.held > BODIES * most:
            raise Busy(f"requests of {BODIES * most} bytes are being answered already")
    return body


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the request is larger than {most} bytes")
