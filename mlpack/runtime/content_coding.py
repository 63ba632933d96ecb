"""Content codings of requests (RFC 9110, 8.4): gzip and deflate, bounded as they are decoded."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Protocol

from .http_errors import BadRequest, ContentTooLarge, UnsupportedMediaType

ACCEPTED = "gzip, deflate, identity"
"""The value of ``Accept-Encoding`` in the response to a request in another coding."""

_PIECE = 256 * 1024
"""Bytes that are decoded at once, about a millisecond's work."""

_GZIP, _ZLIB, _RAW = 31, 15, -15
"""zlib's ``wbits``. Some clients send "deflate" without zlib's header (RFC 9110, 8.4.1.2)."""

_ZLIB_METHOD = 8


class UnsupportedCoding(UnsupportedMediaType):
    """The request's content coding is not one of :data:`ACCEPTED`."""

    headers: Mapping[str, str] = {"accept-encoding": ACCEPTED}


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def name_of(text: str) -> str:
    """Return the coding that a ``Content-Encoding`` names; empty for the content itself.

    Raises :class:`UnsupportedCoding`.

    >>> name_of("GZip"), name_of("identity")
    ('gzip', '')
    """
    words = [each.strip().lower() for each in text.split(",")]
    codings = [each.removeprefix("x-") for each in words if each not in ("", "identity")]
    if not codings:
        return ""
    if codings not in (["gzip"], ["deflate"]):
        message = f"Content-Encoding: {text[:40]!r} is not supported; this module takes {ACCEPTED}"
        raise UnsupportedCoding(message, field="Content-Encoding")
    return codings[0]


def decode(content: bytes, coding: str, most: int) -> bytes:
    """Return ``content`` without its ``coding``; at most ``most`` bytes.

    Raises :class:`~.http_errors.ContentTooLarge` before more memory is taken, and
    :class:`~.http_errors.BadRequest` for damaged or truncated content.
    """
    return b"".join(pieces(content, coding, most))


def pieces(content: bytes, coding: str, most: int) -> Iterator[bytes]:
    """Yield what :func:`decode` returns piece by piece."""
    count = 0
    try:
        for piece in _pieces(content, coding):
            count += len(piece)
            if count > most:
                message = f"the request is larger than {most} bytes without its {coding} coding"
                raise ContentTooLarge(message)
            yield piece
    except zlib.error as error:
        raise BadRequest(
            f"the request is not {coding} ({error})", field="Content-Encoding"
        ) from error


def _pieces(content: bytes, coding: str) -> Iterator[bytes]:
    left = content
    while True:
        decoder = _decoder(left, coding)
        while not decoder.eof:
            piece = decoder.decompress(left, _PIECE)
            left = decoder.unconsumed_tail
            if not piece and not left and not decoder.eof:
                raise zlib.error("it is truncated")
            yield piece
        left = decoder.unused_data.lstrip(b"\0")  # gzip files may be padded
        if not left:
            return
        if coding != "gzip":
            raise zlib.error("data follows its end")


def _decoder(content: bytes, coding: str) -> _Decoder:
    if coding == "gzip":
        return zlib.decompressobj(_GZIP)
    has_header = (
        len(content) > 1
        and content[0] & 15 == _ZLIB_METHOD
        and not int.from_bytes(content[:2], "big") % 31
    )
    return zlib.decompressobj(_ZLIB if has_header else _RAW)
