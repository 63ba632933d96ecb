"""An Azure IoT Edge module: messages on input ``data``, predictions on output ``score``.

The module twin reports the model, and its desired properties configure the script, a threshold
for example (``configure()`` in score.py). Microsoft's client acknowledges messages on receipt:
messages in work are finished on SIGTERM, and lost if the process is killed.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .http_errors import HttpError
from .predictor import Predictor, Stopped, backoff
from .scorer import JSON, Payload

if TYPE_CHECKING:
    from .scoring_service import ScoringService

INPUT, OUTPUT = "data", "score"
_STABLE_SECONDS = 30.0
_FAREWELL_SECONDS = 2.0
_QUIET_SECONDS = 0.25
"""Time for acknowledged messages to arrive from Microsoft's client."""

_log = logging.getLogger("mlpack_runtime")

Properties = dict[str, Any]


class IotEdgeTransport:
    """A connection to edgeHub until closed, with reconnects."""

    def __init__(self, service: ScoringService) -> None:
        self._service = service
        self._predictor = Predictor(service, "iotedge")
        self._client: Any = None
        self._desired: Properties = {}
        self._events: queue.SimpleQueue[Properties | None] = queue.SimpleQueue()
        """Patches of the desired properties; ``None``: the connection ended."""
        self._messages: queue.Queue[Any] = queue.Queue()
        self._connected = threading.Event()
        self._leaving = threading.Event()
        self._threads = [
            threading.Thread(target=self._stay_connected, name="iotedge", daemon=True),
            threading.Thread(target=self._score, name="iotedge-score", daemon=True),
        ]

    @classmethod
    def open(cls, service: ScoringService) -> IotEdgeTransport | None:
        """Start; return ``None`` if the base lacks azure-iot-device, since HTTP may be enough."""
        if not _installed():
            _log.info("on IoT Edge, but azure-iot-device is not in the base: only HTTP is served")
            return None
        made = cls(service)
        for each in made._threads:
            each.start()
        return made

    def close(self) -> None:
        """Finish the received messages, as far as time allows, and disconnect."""
        # HTTP gets the other half of the time.
        deadline = time.monotonic() + self._service.settings.grace / 2
        busy = time.monotonic()
        while self._connected.is_set() and (now := time.monotonic()) < deadline:
            if self._messages.unfinished_tasks:
                busy = now
            elif now - busy > _QUIET_SECONDS:
                break
            time.sleep(0.02)
        if left := self._messages.unfinished_tasks:
            _log.error("iotedge: %d messages were not finished", left)
        self._leaving.set()
        self._events.put(None)
        self._threads[0].join(_FAREWELL_SECONDS)

    def _stay_connected(self) -> None:
        waits = backoff()
        while not self._leaving.is_set():
            start = time.monotonic()
            try:
                self._serve()
            except Exception as error:  # Microsoft's client raises many kinds
                _log.warning("iotedge: %s: %s", type(error).__name__, error.__cause__ or error)
            if time.monotonic() - start > _STABLE_SECONDS:
                waits = backoff()
            if not self._leaving.is_set():
                self._leaving.wait(next(waits))

    def _serve(self) -> None:
        """Run one connection."""
        from azure.iot.device import IoTHubModuleClient

        # A new client subscribes again and gets the whole twin, whatever the old one missed.
        client = IoTHubModuleClient.create_from_edge_environment(
            connection_retry=False, auto_connect=False
        )
        events: queue.SimpleQueue[Properties | None] = queue.SimpleQueue()
        self._events = events

        def changed() -> None:
            if not client.connected:
                events.put(None)

        try:
            client.connect()
            client.on_connection_state_change = changed
            client.on_twin_desired_properties_patch_received = events.put
            self._take(client, client.get_twin()["desired"])
            client.on_message_received = self._messages.put
            self._client = client
            self._connected.set()
            _log.info("iotedge: connected")
            while client.connected and (patch := events.get()) is not None:
                self._take(client, merged(self._desired, patch))
        finally:
            self._connected.clear()
            self._client = None
            client.shutdown()

    def _take(self, client: Any, desired: Properties) -> None:  # noqa: ANN401
        """Pass the desired properties to the script and report the outcome."""
        self._desired = desired
        try:
            self._service.configure(own(desired))
            problem = None
            _log.info("iotedge: desired properties, version %s", desired.get("$version"))
        except HttpError as error:
            problem = error.message
            _log.error("iotedge: desired properties refused: %s", problem)
        client.patch_twin_reported_properties(
            reported(self._service, desired.get("$version"), problem)
        )

    def _score(self) -> None:
        while True:
            message = self._messages.get()
            try:
                self._answer(message)
            except Stopped:
                pass
            except Exception as error:
                _log.error("iotedge: a message is dropped", exc_info=error)
            finally:
                self._messages.task_done()

    def _answer(self, message: Any) -> None:  # noqa: ANN401
        if message.input_name != INPUT:
            self._service.metrics.message("iotedge", "ignored")
            _log.warning("iotedge: input %r is not %r", message.input_name, INPUT)
            return
        found = self._predictor.predict(to_payload(message), self._leaving)
        if found is not None:
            self._send(found, message.message_id)

    def _send(self, prediction: bytes, asked: str | None) -> None:
        from azure.iot.device import Message

        message = Message(prediction.decode(), content_encoding="utf-8")
        message.content_type = "application/json"
        message.correlation_id = asked
        identity = self._service.identity
        message.custom_properties["model"] = f"{identity.name}:{identity.version}"
        waits = backoff()
        while not self._leaving.is_set():
            client = self._client
            try:
                if client is not None:
                    client.send_message_to_output(message, OUTPUT)
                    return
            except Exception as error:  # as above
                _log.warning("iotedge: not sent: %s", error.__cause__ or error)
            self._leaving.wait(next(waits))
        raise Stopped


def to_payload(message: Any) -> Payload:  # noqa: ANN401
    """Return a message of Microsoft's client as a request.

    IoT Hub's ``contentEncoding`` is a character set (utf-8, utf-16 or utf-32); a content coding
    such as gzip is taken there, too.
    """
    content, kind = message.data, message.content_type or ""
    encoding = (message.content_encoding or "").strip()
    headers = {}
    if isinstance(content, str):
        content = content.encode()
    elif encoding.lower().startswith("utf"):
        kind = f"{kind or JSON};charset={encoding}"
    elif encoding:
        headers["content-encoding"] = encoding
    return Payload(content=bytes(content), content_type=kind, headers=headers)


def _installed() -> bool:
    try:
        return find_spec("azure.iot.device") is not None
    except ImportError:  # not even azure.iot is there
        return False


def merged(desired: Mapping[str, Any], patch: Mapping[str, Any]) -> Properties:
    """Return desired properties after a patch (RFC 7386: null removes a member).

    >>> merged({"threshold": 0.5, "a": {"b": 1, "c": 2}}, {"threshold": None, "a": {"b": 3}})
    {'a': {'b': 3, 'c': 2}}
    """
    found = dict(desired)
    for name, value in patch.items():
        before = found.get(name)
        if value is None:
            found.pop(name, None)
        elif isinstance(value, Mapping):
            found[name] = merged(before if isinstance(before, Mapping) else {}, value)
        else:
            found[name] = value
    return found


def own(desired: Mapping[str, Any]) -> Properties:
    """Return desired properties without those that IoT Hub adds.

    >>> own({"$version": 3, "$metadata": {}, "threshold": 0.7})
    {'threshold': 0.7}
    """
    return {name: value for name, value in desired.items() if not name.startswith("$")}


def reported(service: ScoringService, version: object, problem: str | None) -> Properties:
    """Return the reported properties."""
    identity = service.identity
    return {
        "model": {
            "name": identity.name,
            "version": identity.version,
            "digest": identity.digest,
            "loaded": identity.loaded,
        },
        "configured": {"version": version, "ok": problem is None, "message": problem},
    }
