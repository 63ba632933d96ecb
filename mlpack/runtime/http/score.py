"""``POST /score`` as Azure ML's images answer it.

Behaviour: azureml-inference-server-http 1.5.1, ``server/routes.py``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import replace
from secrets import token_hex
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from ..codec import to_json
from ..http_errors import (
    HeaderTooLarge,
    HttpError,
    ScoringFailed,
)
from ..scorer import JSON, Payload, Reply
from ..telemetry import record
from .body import read_body

if TYPE_CHECKING:
    from ..scoring_service import ScoringService

PATH = "/score"

_NO_BODY = (204, 304)
_IDS = ("x-request-id", "x-ms-request-id", "x-ms-client-request-id")
_OWN = (*_IDS, "traceid", "x-ms-server-version")
"""Headers that every response of Azure ML's server may have."""
_MAX_ID = 100
"""Characters of a request's id, as Azure ML's server allows."""

_log = logging.getLogger("mlpack_runtime")


class ScoreEndpoint:
    """An ASGI application for ``/score``; Starlette's own requests and responses cost more."""

    def __init__(self, service: ScoringService) -> None:
        self._service = service
        version = service.settings.server_version
        self._always = {"x-ms-server-version": version} if version else {}
        # A script may read query arguments; a model alone has no use for them.
        generic = service.scorer.generic
        self.methods = ("OPTIONS", "POST") if generic else ("GET", "OPTIONS", "POST")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self.answer(scope, receive, send)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> tuple[int, int]:
        """Answer one request; return the status and the number of bytes of the body."""
        try:
            reply = await self.reply(scope, receive)
        except Exception as error:
            reply = unforeseen(error)
        close = self._service.draining
        if reply.chunks is not None:
            return await _Streaming(self._service, reply.chunks, receive, send).run(reply)
        await respond(send, reply, close=close)
        return reply.status, len(reply.content)

    async def reply(self, scope: Scope, receive: Receive) -> Reply:
        """Return the response to one request."""
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        if len(headers) != len(scope["headers"]):
            headers = _joined(scope["headers"])
        fields = record.get()
        if fields is None:
            fields = {}
        ids: dict[str, str] = {}
        try:
            ids = _request_ids(headers)
            if self._always:
                ids |= self._always
            fields["id"] = ids["x-request-id"]
            content = await read_body(headers, receive, self._service)
            payload = Payload(
                content=content,
                content_type=headers.get("content-type", JSON),
                headers=headers,
                method=scope["method"],
                path=scope["path"],
                query=scope["query_string"].decode("latin-1"),
                scope=scope,
            )
            if payload.method == "OPTIONS" and not self._service.scorer.raw:
                headers = {"x-ms-run-function-failed": "False", **ids}
                return Reply(content_type="text/html; charset=utf-8", headers=headers)
            return _success(await self._service.score(payload), ids, fields)
        except HttpError as error:
            return error_reply(error, ids)


def _success(result: object, ids: Mapping[str, str], fields: MutableMapping[str, object]) -> Reply:
    headers = {"x-ms-run-function-failed": "False", **ids}
    if "run_ms" in fields:
        headers["x-ms-run-fn-exec-ms"] = f"{fields['run_ms']:.3f}"
    if isinstance(result, Reply):
        return replace(result, headers={**headers, **result.headers, **ids})
    try:
        return Reply(content=to_json(result), headers=headers)
    except (TypeError, ValueError, RecursionError) as error:
        _log.error("the result is not JSON", exc_info=error)
        message = f"the result of scoring is not JSON ({type(error).__name__})"
        raise ScoringFailed(message) from error


def error_reply(error: HttpError, ids: Mapping[str, str] | None = None) -> Reply:
    """Return the response to a request with an error."""
    return Reply(
        status=error.status,
        content=to_json(error.to_json()),
        headers={"x-ms-run-function-failed": "False", **(ids or {}), **error.headers},
    )


def unforeseen(error: Exception) -> Reply:
    """Return the response to a request that a fault of the runtime kept from an answer."""
    _log.error("a request could not be answered", exc_info=error)
    return error_reply(HttpError("the request could not be answered; see the module's log"))


async def respond(send: Send, reply: Reply, *, close: bool = False) -> None:
    """Send a whole response."""
    headers = _encoded(reply, close=close)
    if reply.status not in _NO_BODY:
        headers.append((b"content-length", b"%d" % len(reply.content)))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.content})


def _encoded(reply: Reply, *, close: bool) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-type", reply.content_type.encode("latin-1"))]
    for name, value in (*reply.headers.items(), *reply.repeated):
        headers.append((name.encode("latin-1"), value.encode("latin-1", "replace")))
    if close:
        headers.append((b"connection", b"close"))
    return headers if reply.content_type else headers[1:]


class _Streaming:
    """A response that is sent while the script makes it."""

    def __init__(
        self, service: ScoringService, chunks: Iterator[bytes], receive: Receive, send: Send
    ) -> None:
        self._service = service
        self._chunks = chunks
        self._receive = receive
        self._send = send
        self._started = False
        self._size = 0

    async def run(self, reply: Reply) -> tuple[int, int]:
        """Send everything; return the status and the number of bytes of the body.

        A script that fails before its first chunk is answered 500. After that only the end of the
        connection, before the body's, tells the client.
        """
        # Its body has been read: the next message is that the client has disconnected.
        gone = asyncio.ensure_future(self._receive())
        try:
            chunk = await self._service.next_chunk(self._chunks)
            headers = _encoded(reply, close=self._service.draining)
            start = {"type": "http.response.start", "status": reply.status, "headers": headers}
            self._started = True
            await self._send(start)
            while chunk is not None and not gone.done():
                await self._send_chunk(chunk, more=True)
                chunk = await self._service.next_chunk(self._chunks)
            await self._send_chunk(b"", more=False)
        except HttpError as error:
            return await self._failed(error, reply)
        finally:
            gone.cancel()
            await self._service.end_chunks(self._chunks)
        return reply.status, self._size

    async def _send_chunk(self, chunk: bytes, *, more: bool) -> None:
        self._size += len(chunk)
        await self._send({"type": "http.response.body", "body": chunk, "more_body": more})

    async def _failed(self, error: HttpError, reply: Reply) -> tuple[int, int]:
        if self._started:
            return error.status, self._size
        ids = {name: reply.headers[name] for name in _OWN if name in reply.headers}
        failed = error_reply(error, ids)
        await respond(self._send, failed, close=self._service.draining)
        return failed.status, len(failed.content)


def _joined(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers of which some are repeated: their values, separated by commas (RFC 9110)."""
    found: dict[str, str] = {}
    for name, value in pairs:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        separator = "; " if key == "cookie" else ","
        found[key] = f"{found[key]}{separator}{text}" if key in found else text
    return found


def _request_ids(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the id headers of the response, Azure ML's names; a new id if the request has none."""
    request_id = headers.get("x-request-id") or token_hex(16)
    for name in _IDS:
        if len(headers.get(name, "")) > _MAX_ID:
            error = HeaderTooLarge(f"{name} must not exceed {_MAX_ID} characters", field=name)
            error.headers = {"x-request-id": request_id} if len(request_id) <= _MAX_ID else {}
            raise error
    client = headers.get("x-ms-client-request-id", "")
    legacy = headers.get("x-ms-request-id", "")
    found = {"x-request-id": request_id, "x-ms-request-id": legacy or client or request_id}
    if client or legacy:
        found["x-ms-client-request-id"] = client or legacy
    if "traceid" in headers:
        found["traceid"] = headers["traceid"]
    return found
