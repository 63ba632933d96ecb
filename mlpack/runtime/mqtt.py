"""MQTT: readings come on one topic, predictions go out on another, and none is lost.

A reading is acknowledged to the broker only after the broker has acknowledged
its prediction. The session outlives both ends, so what was sent while either was
away, or was in work when one ended, comes again: every reading is predicted at
least once.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import select
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from .mqtt_readings import Reading, Readings
from .mqtt_settings import MqttSettings
from .predictor import Predictor, Stopped, backoff
from .settings import NotServable

if TYPE_CHECKING:
    from .module import Module

_IN_FLIGHT = 20
"""Readings that the broker may send ahead of their acknowledgement."""
_KEEP_ALIVE_SECONDS = 30
_STABLE_SECONDS = 30.0
"""A connection that lasted this long was a good one: waits start over."""
_POLL_SECONDS = 1.0
_FAREWELL_SECONDS = 2.0
_NEVER_EXPIRES = 0xFFFFFFFF
"""MQTT 5, 3.1.2.11.2: the broker keeps the session until the client is back."""

_log = logging.getLogger("mlpack_runtime")


class Mqtt:
    """Subscribes, scores and publishes until closed, whatever the broker does."""

    def __init__(self, module: Module, settings: MqttSettings) -> None:
        self._settings = settings
        self._predictor = Predictor(module, "mqtt", settings.scoring_url)
        # HTTP gets its share of the time after this front.
        self._grace = module.settings.grace / 2
        self._readings = Readings()
        self._stopping = threading.Event()
        self._leaving = threading.Event()
        self._order: queue.SimpleQueue[Reading | None] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(self._predictor.threads, "mqtt-score")
        self._woken, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        self._client = self._make_client(module.identity.name)
        self._network = threading.Thread(target=self._stay_connected, name="mqtt", daemon=True)
        self._publisher = threading.Thread(target=self._publish, name="mqtt-publish", daemon=True)

    @classmethod
    def open(cls, module: Module, environment: Mapping[str, str]) -> Mqtt:
        """Start; the broker need not be there yet. Raises :class:`~.settings.NotServable`."""
        made = cls(module, MqttSettings.read(environment))
        made._network.start()
        made._publisher.start()
        return made

    def close(self) -> None:
        """Take no more readings, finish those in work, and leave; the session stays.

        What cannot be finished in time was not acknowledged: the broker sends it again.
        """
        self._stopping.set()
        self._readings.wait(self._grace)
        self._leaving.set()
        self._order.put(None)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.disconnect()
        self._stir()
        self._network.join(_FAREWELL_SECONDS)
        self._predictor.close()

    # The network's thread.

    def _stay_connected(self) -> None:
        waits = backoff()
        while not self._leaving.is_set():
            start = time.monotonic()
            try:
                self._connect()
                self._exchange()
            except Exception as error:  # an answer no broker gives must not end the module
                reason = error if isinstance(error, OSError) else repr(error)
                _log.warning("mqtt: %s: %s", self._settings.address, reason)
            self._readings.disconnected()
            self._readings.stir()
            if self._readings.overflowed or time.monotonic() - start > _STABLE_SECONDS:
                waits = backoff()
            self._leaving.wait(next(waits))

    def _connect(self) -> None:
        host, port = self._settings.host, self._settings.port
        if self._settings.version != 5:
            self._client.connect(host, port, _KEEP_ALIVE_SECONDS)
            return
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = _NEVER_EXPIRES
        properties.ReceiveMaximum = _IN_FLIGHT
        self._client.connect(
            host, port, _KEEP_ALIVE_SECONDS, clean_start=False, properties=properties
        )

    def _exchange(self) -> None:
        """Read and write until the connection ends."""
        while (link := self._client.socket()) is not None:
            # A broker of MQTT 3.1.1 sets its own bound of what it sends ahead; this is ours.
            reading = [link] if self._readings.backlog <= _IN_FLIGHT else []
            held = bool(reading) and getattr(link, "pending", int)() > 0  # decrypted already
            writing = [link] if self._client.want_write() else []
            readable, writable, _ = select.select(
                [*reading, self._woken], writing, [], 0 if held else _POLL_SECONDS
            )
            if self._woken in readable:
                self._woken.recv(4096)
            if held or link in readable:
                self._client.loop_read()
            if writable:
                self._client.loop_write()
            self._client.loop_misc()

    def _make_client(self, model: str) -> Any:  # noqa: ANN401
        paho = _paho()
        settings = self._settings
        five = settings.version == 5
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=settings.client_id or f"mlpack-{model}",
            clean_session=None if five else False,
            protocol=paho.MQTTv5 if five else paho.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.max_inflight_messages_set(_IN_FLIGHT)
        if settings.user:
            client.username_pw_set(settings.user, settings.password or None)
        if settings.tls:
            try:
                client.tls_set(settings.ca or None)
            except OSError as error:
                raise NotServable(f"MQTT_CA={settings.ca} cannot be used: {error}") from error
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_socket_open = _send_at_once
        # With it set, only the network's thread writes to the socket.
        client.on_socket_register_write = self._stir
        return client

    def _stir(self, *_: object) -> None:
        """Let the network's thread look again."""
        with contextlib.suppress(BlockingIOError):  # then it has enough to wake up for
            self._wake.send(b"\0")

    def _on_connect(self, client: Any, _: object, flags: Any, reason: Any, __: object) -> None:  # noqa: ANN401
        if reason.is_failure:
            # A wrong password, say: the loss of the connection follows.
            _log.error("mqtt: %s refuses: %s", self._settings.address, reason)
            return
        self._readings.connected()
        kept = "kept" if flags.session_present else "new"
        _log.info("mqtt: connected to %s, session %s", self._settings.address, kept)
        if not self._stopping.is_set():
            client.subscribe(self._settings.topic, **self._subscription())

    def _subscription(self) -> dict[str, Any]:
        if self._settings.version != 5:
            return {"qos": 1}
        from paho.mqtt.subscribeoptions import SubscribeOptions

        once = SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
        return {"options": SubscribeOptions(qos=1, noLocal=True, retainHandling=once)}

    def _on_subscribe(self, _: object, __: object, ___: int, reasons: Any, ____: object) -> None:  # noqa: ANN401
        for reason in reasons:
            if reason.is_failure:
                _log.error("mqtt: the broker refuses %s: %s", self._settings.topic, reason)

    def _on_disconnect(self, _: object, __: object, ___: object, reason: Any, ____: object) -> None:  # noqa: ANN401
        self._readings.disconnected()
        if not self._leaving.is_set():
            _log.warning("mqtt: connection to %s ended: %s", self._settings.address, reason)

    def _on_message(self, _: object, __: object, message: Any) -> None:  # noqa: ANN401
        if self._stopping.is_set():
            return  # not acknowledged: it comes again
        content = bytes(message.payload)
        kind = getattr(message.properties, "ContentType", "") or ""
        packet = message.mid if message.qos else 0
        reading = self._readings.take(content, kind, packet, again=message.dup)
        if reading is None:
            return
        reading.found = self._pool.submit(
            self._predictor.predict, reading.content, reading.content_type, self._stopping
        )
        self._order.put(reading)

    def _on_publish(self, _: object, __: object, packet: int, reason: Any, ___: object) -> None:  # noqa: ANN401
        if getattr(reason, "is_failure", False):
            _log.error("mqtt: the broker refuses %s: %s", self._settings.predictions, reason)
            if (reading := self._readings.carried(packet)) is not None:
                self._readings.forget(reading)
            # On the next connection the broker sends again what was not acknowledged.
            self._client.disconnect()
            return
        self._readings.confirm(packet)
        self._settle()

    # The publisher's thread.

    def _publish(self) -> None:
        while (reading := self._order.get()) is not None:
            try:
                prediction = reading.found.result()
            except Stopped:
                self._readings.forget(reading)
                continue
            except Exception as error:
                _log.error("mqtt: a message is given up", exc_info=error)
                prediction = None
            self._readings.scored()
            if prediction is None:
                reading.settled = True
            else:
                sent = self._client.publish(self._settings.predictions, prediction, qos=1)
                reading.prediction = sent.mid
            self._settle()
            self._stir()

    def _settle(self) -> None:
        if self._readings.settle(lambda packet: self._client.ack(packet, 1)):
            _log.warning("mqtt: more readings came than fit: the broker is asked for them again")
            self._client.disconnect()


def _send_at_once(_: object, __: object, link: socket.socket) -> None:
    """Else small packets wait up to 40 ms for the acknowledgement of those before."""
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _paho() -> Any:  # noqa: ANN401
    """paho-mqtt's client module; raise :class:`NotServable` where it is not the right one."""
    try:
        from paho.mqtt import client
    except ImportError as error:
        raise NotServable(
            "MQTT_BROKER is set, and paho-mqtt is not in the base: "
            "add paho-mqtt>=2 to requirements.in and run mlpack base build"
        ) from error
    if not hasattr(client, "CallbackAPIVersion"):
        raise NotServable(
            "MQTT_BROKER is set, and the base has paho-mqtt 1: azure-iot-device asks for it. "
            "A base has one of the two; take azure-iot-device out of requirements.in"
        )
    return client
