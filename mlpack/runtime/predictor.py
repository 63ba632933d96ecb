"""Predictions for device messages over MQTT and IoT Edge.

A sensor sends ``{"deviceID": "1", "rotation": 600, …}``; a prediction is
``{"deviceID": "1", "fault": "0"}`` (docs/reference/scoring.md). Messages are scored in this
process or by another module over HTTP (``SCORING_URL``), and retried unless the message is at
fault.
"""

from __future__ import annotations

import http.client
import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

import orjson

from . import codec, content_coding, media_types, telemetry
from .codec import to_json
from .http_errors import (
    BadRequest,
    ContentTooLarge,
    HttpError,
    ScoringFailed,
    ScoringTimeout,
    ServiceUnavailable,
)
from .json_arrays import reading
from .scorer import JSON, Payload, Reply
from .settings import NotServable
from .tensors import DEVICE

if TYPE_CHECKING:
    from .scoring_service import ScoringService

_MOST_LATE = 3
"""Number of timeouts after which the message is at fault."""

_PICTURES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}

_GZIP = b"\x1f\x8b\x08"
"""The start of a gzip file (RFC 1952, 2.3.1)."""

_REQUEST_AT_FAULT = frozenset({400, 406, 413, 415, 422, 431})
"""Statuses for which a retry is useless."""

_log = logging.getLogger("mlpack_runtime")


class Stopped(Exception):
    """The process ends before the message is scored; the sender still has it."""


class Predictor:
    """Scores messages of one ``transport``, in this process or at ``url``."""

    def __init__(self, service: ScoringService, transport: str, url: str = "") -> None:
        self._service = service
        self._transport = transport
        self._fields = service.scorer.fields
        self._members = service.scorer.prediction
        self._most = service.settings.max_body
        self._allow_nan = service.settings.allow_nan
        self._remote = RemoteScorer(url, service.settings.timeout) if url else None
        self._score: Callable[[Payload], object] = (
            self._remote.score if self._remote is not None else service.score_blocking
        )

    @property
    def threads(self) -> int:
        """Number of messages to score at once: 1 in this process, 8 at another."""
        return 1 if self._remote is None else 8

    def predict(self, message: Payload, stopping: threading.Event) -> bytes | None:
        """Return the prediction; ``None``, logged and counted, if the message cannot be scored.

        Raises :class:`Stopped`.
        """
        content = message.content
        start = time.perf_counter()
        waits = backoff()
        late = 0
        while True:
            try:
                found = self._predict(message)
            except ServiceUnavailable as problem:
                self._again(problem, next(waits), stopping)
            except ScoringTimeout as problem:
                late += 1
                if late == _MOST_LATE:
                    self._refuse(problem, content)
                    return None
                self._again(problem, next(waits), stopping)
            except HttpError as problem:
                self._refuse(problem, content)
                return None
            else:
                self._note("predicted", content, ms=round((time.perf_counter() - start) * 1e3, 3))
                return found

    def close(self) -> None:
        """Close the connections to the remote scorer."""
        if self._remote is not None:
            self._remote.close()

    def _predict(self, message: Payload) -> bytes:
        request = read_message(
            message, fields=self._fields, most=self._most, allow_nan=self._allow_nan
        )
        answer = self._score(request.payload)
        return write_prediction(answer, request.device, self._members)

    def _again(self, problem: HttpError, seconds: float, stopping: threading.Event) -> None:
        self._service.metrics.message(self._transport, "retried")
        _log.warning("%s: retrying in %.1f s: %s", self._transport, seconds, problem.message)
        if stopping.wait(seconds):
            raise Stopped

    def _refuse(self, problem: HttpError, content: bytes) -> None:
        self._note("refused", content, status=problem.status, reason=problem.message)

    def _note(self, outcome: str, content: bytes, **fields: object) -> None:
        self._service.metrics.message(self._transport, outcome)
        if outcome == "predicted" and self._service.settings.level > logging.INFO:
            return
        level = "info" if outcome == "predicted" else "warning"
        device = device_of(content)
        telemetry.write(
            level,
            {"message": outcome, "front": self._transport, "bytes": len(content), "device": device}
            | fields,
        )


def backoff(first: float = 0.5, most: float = 60.0) -> Iterator[float]:
    """Yield the seconds to wait before each retry, doubling, with jitter to spread a fleet.

    >>> waits = backoff(first=1, most=8)
    >>> all(0.5 <= next(waits) / bound <= 1 for bound in (1, 2, 4, 8, 8))
    True
    """
    bound = first
    while True:
        yield bound * random.uniform(0.5, 1)  # noqa: S311 (not for secrets)
        bound = min(bound * 2, most)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMessage:
    """A message as a request; ``device`` is the device's id, ``None`` if the message has none."""

    payload: Payload
    device: object = None


def read_message(
    message: Payload,
    *,
    fields: Sequence[str] = (),
    most: int = 2**63,
    allow_nan: bool = False,
) -> DeviceMessage:
    """Return a message of at most ``most`` bytes as a request; ``fields`` are the script's.

    Its content type and the header ``content-encoding`` are those over HTTP. Raises an
    :class:`~.http_errors.HttpError`.

    >>> message = Payload(content=b'{"deviceID": "7", "rotation": 600, "sound": 48.5}')
    >>> reading = read_message(message, fields=("rotation", "sound"))
    >>> reading.device, reading.payload.content
    ('7', b'{"params":[600,48.5]}')
    """
    content = message.content
    if len(content) > most:
        raise ContentTooLarge(f"the message has {len(content)} bytes; {most} are allowed")
    if coding := _coding(message):
        content = content_coding.decode(content, coding, most)
    text = message.content_type or _sniffed(content)
    media_type = media_types.parse(text)
    if not media_type.is_json:
        return DeviceMessage(payload=Payload(content=content, content_type=text))
    content = media_types.to_utf8(content, media_type)
    document = reading(content, _as_read, allow_nan=allow_nan)
    if not isinstance(document, dict):
        return DeviceMessage(payload=Payload(content=content))
    device = document.get(DEVICE)
    if fields and codec.is_reading(document):
        content = codec.from_fields(document, fields)
    return DeviceMessage(payload=Payload(content=content), device=device)


def _as_read(document: object) -> object:
    return document


def write_prediction(answer: object, device: object = None, members: Sequence[str] = ()) -> bytes:
    """Return a prediction: the device's id, and ``members`` of the result, or all if it has none.

    Raises an :class:`~.http_errors.HttpError` if the result is an error or not JSON.

    >>> write_prediction({"fault": "0", "probability": 0.1}, "7", ("fault",))
    b'{"deviceID":"7","fault":"0"}'
    """
    if isinstance(answer, Reply):
        answer = _reply_value(answer)
    document: dict[str, object] = {} if device is None else {DEVICE: device}
    if not isinstance(answer, Mapping):
        document["result"] = answer
    else:
        document.update({name: answer[name] for name in members if name in answer} or answer)
    try:
        return to_json(document)
    except (TypeError, ValueError, RecursionError) as error:
        raise ScoringFailed(
            f"the result of scoring is not JSON ({type(error).__name__})"
        ) from error


def device_of(content: bytes) -> object:
    """Return the device's id for a log; ``None`` if the message has none or is compressed."""
    try:
        document = orjson.loads(content)
    except ValueError:
        return None
    return document.get(DEVICE) if isinstance(document, dict) else None


def _coding(message: Payload) -> str:
    """Return the content coding of a message; MQTT 3.1.1 has no property that names it."""
    named = message.headers.get("content-encoding", "")
    if not named and not message.content_type and message.content.startswith(_GZIP):
        return "gzip"
    return content_coding.name_of(named)


def _sniffed(content: bytes) -> str:
    """Return the content type of a message without one."""
    for start, kind in _PICTURES.items():
        if content.startswith(start):
            return kind
    return JSON


def _reply_value(reply: Reply) -> object:
    if reply.status >= 500:
        raise ScoringFailed(f"scoring returned status {reply.status}")
    if reply.status >= 400:
        raise BadRequest(f"scoring returned status {reply.status}")
    try:
        return orjson.loads(reply.content)
    except ValueError as error:
        raise ScoringFailed("the result of scoring is not JSON") from error


class RemoteScorer:
    """Posts requests to a URL; each calling thread has a connection of its own."""

    def __init__(self, url: str, timeout: float) -> None:
        parts = self._parts = _parsed(url)
        self._timeout = timeout
        self._local = threading.local()
        self._open: list[http.client.HTTPConnection] = []
        connect: Callable[..., http.client.HTTPConnection] = http.client.HTTPConnection
        if parts.scheme == "https":
            connect = partial(http.client.HTTPSConnection, context=ssl.create_default_context())
        self._connect = partial(connect, parts.hostname, parts.port, timeout=timeout)

    def score(self, payload: Payload) -> object:
        """Return the result as a JSON value.

        Raises :class:`BadRequest` and :class:`ScoringFailed` if a retry is useless,
        :class:`ScoringTimeout` and :class:`ServiceUnavailable` if not.
        """
        try:
            status, content = self._post(payload)
        except TimeoutError as error:
            self._forget()
            message = f"{self._parts.netloc} did not respond in {self._timeout:g} s"
            raise ScoringTimeout(message) from error
        except (OSError, http.client.HTTPException) as error:
            self._forget()
            message = f"{self._parts.netloc} cannot be reached: {error!r}"
            raise ServiceUnavailable(message) from error
        if status == 200:
            try:
                return orjson.loads(content)
            except ValueError as error:
                raise ScoringFailed(f"{self._parts.netloc} did not return JSON") from error
        message = (
            f"{self._parts.netloc} returned {status}: {content[:200].decode(errors='replace')}"
        )
        if status in _REQUEST_AT_FAULT:
            raise BadRequest(message)
        if status == 500:
            raise ScoringFailed(message)
        raise ScoringTimeout(message) if status == 504 else ServiceUnavailable(message)

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
            # The server had closed an idle connection: retry once on a new one.
            self._forget()
            return self._post(payload)
        self._local.used = True
        return reply.status, reply.read()

    def _connection(self) -> http.client.HTTPConnection:
        found: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if found is None:
            found = self._connect()
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
        raise NotServable(f"SCORING_URL={url!r} is not a URL like http://127.0.0.1:5001/score")
    return parts
