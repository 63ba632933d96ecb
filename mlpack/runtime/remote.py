"""Another module's ``/score``, over HTTP: ``SCORING_URL``."""

from __future__ import annotations

import http.client
import ssl
import threading
from urllib.parse import SplitResult, urlsplit

import orjson

from .problems import BadRequest, Busy, Failed, Late
from .scorer import JSON, Payload
from .settings import NotServable

_REQUEST_AT_FAULT = frozenset({400, 406, 413, 415, 422, 431})
"""Statuses that the same request would get again."""


class Remote:
    """Scores elsewhere; each thread that calls it has a connection of its own."""

    def __init__(self, url: str, timeout: float) -> None:
        self._parts = _parsed(url)
        self._timeout = timeout
        self._local = threading.local()
        self._open: list[http.client.HTTPConnection] = []
        self._tls = ssl.create_default_context() if self._parts.scheme == "https" else None

    def score(self, payload: Payload) -> object:
        """The answer as a JSON value.

        Raises :class:`BadRequest` and :class:`Failed` for what the same request would
        get again, :class:`Late` and :class:`Busy` where it may be scored another time.
        """
        try:
            status, content = self._post(payload)
        except TimeoutError as error:
            self._forget()
            raise Late(f"{self._parts.netloc} gave no answer in {self._timeout:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            self._forget()
            raise Busy(f"{self._parts.netloc} cannot be reached: {error!r}") from error
        if status == 200:
            try:
                return orjson.loads(content)
            except ValueError as error:
                raise Failed(f"{self._parts.netloc} answered no JSON") from error
        said = f"{self._parts.netloc} answered {status}: {content[:200].decode(errors='replace')}"
        if status in _REQUEST_AT_FAULT:
            raise BadRequest(said)
        if status == 500:
            raise Failed(said)
        raise Late(said) if status == 504 else Busy(said)

    def close(self) -> None:
        """Close all connections."""
        for each in self._open:
            each.close()

    def _post(self, payload: Payload) -> tuple[int, bytes]:
        connection = self._connection()
        path = self._parts.path or "/score"
        target = f"{path}?{self._parts.query}" if self._parts.query else path
        headers = {"content-type": payload.content_type or JSON, "accept": JSON}
        try:
            connection.request("POST", target, payload.content, headers)
            reply = connection.getresponse()
        except (ConnectionError, http.client.RemoteDisconnected):
            if not self._local.used:
                raise
            # The other side had closed a connection that was idle: once more, on a new one.
            self._forget()
            return self._post(payload)
        self._local.used = True
        return reply.status, reply.read()

    def _connection(self) -> http.client.HTTPConnection:
        found: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if found is None:
            host, port = self._parts.hostname or "", self._parts.port
            if self._tls is not None:
                found = http.client.HTTPSConnection(
                    host, port, timeout=self._timeout, context=self._tls
                )
            else:
                found = http.client.HTTPConnection(host, port, timeout=self._timeout)
            self._local.connection, self._local.used = found, False
            self._open.append(found)
        return found

    def _forget(self) -> None:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._open.remove(connection)
            self._local.connection = None


def _parsed(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        ok = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        ok = False
    if not ok:
        raise NotServable(f"SCORING_URL={url!r} is not an address like http://127.0.0.1:5001/score")
    return parts
