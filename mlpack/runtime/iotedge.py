"""A module of Azure IoT Edge: messages on input ``data``, predictions on output ``score``.

The device twin says which model this is (reported), and may set what the script
lets be set, a threshold say (desired; ``configure()`` in score.py). Microsoft's
client acknowledges messages when it gets them: what is in work when the process
is killed is lost, and what is in work on SIGTERM is finished.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .predictor import Predictor, Stopped, backoff
from .problems import Problem

if TYPE_CHECKING:
    from .module import Module

INPUT, OUTPUT = "data", "score"
_STABLE_SECONDS = 30.0
_FAREWELL_SECONDS = 2.0
_QUIET_SECONDS = 0.25
"""For messages on their way through Microsoft's client, which has acknowledged them."""

_log = logging.getLogger("mlpack_runtime")

Properties = dict[str, Any]


class IotEdge:
    """Connected to edgeHub until closed; connects anew whenever the connection is lost."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._predictor = Predictor(module, "iotedge")
        self._client: Any = None
        self._desired: Properties = {}
        self._events: queue.SimpleQueue[Properties | None] = queue.SimpleQueue()
        """Changes of the desired properties; ``None``: the connection ended."""
        self._messages: queue.Queue[Any] = queue.Queue()
        self._connected = threading.Event()
        self._leaving = threading.Event()
        self._threads = [
            threading.Thread(target=self._stay_connected, name="iotedge", daemon=True),
            threading.Thread(target=self._score, name="iotedge-score", daemon=True),
        ]

    @classmethod
    def open(cls, module: Module) -> IotEdge | None:
        """Start; ``None`` where the base has no azure-iot-device: HTTP is enough for many."""
        if not _installed():
            _log.info("on IoT Edge, without azure-iot-device in the base: only HTTP is answered")
            return None
        made = cls(module)
        for each in made._threads:
            each.start()
        return made

    def close(self) -> None:
        """Finish the messages that are here, as far as time allows, and disconnect."""
        # HTTP gets its share of the time after this front.
        deadline = time.monotonic() + self._module.settings.grace / 2
        busy = time.monotonic()
        while self._connected.is_set() and (now := time.monotonic()) < deadline:
            if self._messages.unfinished_tasks:
                busy = now
            elif now - busy > _QUIET_SECONDS:
                break
            time.sleep(0.02)
        if left := self._messages.unfinished_tasks:
            _log.error("iotedge: %d messages could not be finished", left)
        self._leaving.set()
        self._events.put(None)
        self._threads[0].join(_FAREWELL_SECONDS)

    def _stay_connected(self) -> None:
        waits = backoff()
        while not self._leaving.is_set():
            start = time.monotonic()
            try:
                self._serve()
            except Exception as error:  # Microsoft's client raises what it likes
                _log.warning("iotedge: %s: %s", type(error).__name__, error.__cause__ or error)
            if time.monotonic() - start > _STABLE_SECONDS:
                waits = backoff()
            if not self._leaving.is_set():
                self._leaving.wait(next(waits))

    def _serve(self) -> None:
        """One connection, from its beginning to its end."""
        from azure.iot.device import IoTHubModuleClient

        # A new client each time subscribes anew and sees the whole twin, whatever it missed.
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
        """Hand the desired properties to the script, and report what became of it."""
        self._desired = desired
        try:
            self._module.configure(own(desired))
            problem = None
            _log.info("iotedge: desired properties, version %s", desired.get("$version"))
        except Problem as error:
            problem = error.message
            _log.error("iotedge: desired properties are refused: %s", problem)
        client.patch_twin_reported_properties(
            reported(self._module, desired.get("$version"), problem)
        )

    def _score(self) -> None:
        while True:
            message = self._messages.get()
            try:
                self._answer(message)
            except Stopped:
                pass
            except Exception as error:
                _log.error("iotedge: a message is given up", exc_info=error)
            finally:
                self._messages.task_done()

    def _answer(self, message: Any) -> None:  # noqa: ANN401
        if message.input_name != INPUT:
            self._module.metrics.message("iotedge", "ignored")
            _log.warning("iotedge: input %r is not %r", message.input_name, INPUT)
            return
        content = message.data
        content = content.encode() if isinstance(content, str) else bytes(content)
        found = self._predictor.predict(content, message.content_type or "", self._leaving)
        if found is not None:
            self._send(found, message.message_id)

    def _send(self, prediction: bytes, asked: str | None) -> None:
        from azure.iot.device import Message

        message = Message(prediction.decode(), content_encoding="utf-8")
        message.content_type = "application/json"
        message.correlation_id = asked
        identity = self._module.identity
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


def _installed() -> bool:
    try:
        return find_spec("azure.iot.device") is not None
    except ImportError:  # not even azure.iot is there
        return False


def merged(desired: Mapping[str, Any], patch: Mapping[str, Any]) -> Properties:
    """Desired properties after a change (RFC 7386: null removes a member).

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
    """Without what IoT Hub adds.

    >>> own({"$version": 3, "$metadata": {}, "threshold": 0.7})
    {'threshold': 0.7}
    """
    return {name: value for name, value in desired.items() if not name.startswith("$")}


def reported(module: Module, version: object, problem: str | None) -> Properties:
    """What the twin says of this module."""
    identity = module.identity
    return {
        "model": {
            "name": identity.name,
            "version": identity.version,
            "digest": identity.digest,
            "loaded": identity.loaded,
        },
        "configured": {"version": version, "ok": problem is None, "message": problem},
    }
