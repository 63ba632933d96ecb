"""MQTT: messages in on one topic, predictions out on another, at least once.

A message is acknowledged only after the broker has acknowledged its prediction. The session
outlives both ends, so the broker sends again what was sent while either was away and what was in
work when one ended.
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

from ..predictor import Predictor, Stopped, backoff
from ..scorer import Payload
from ..settings import NotServable
from .pending import PendingMessage, PendingMessages
from .settings import MqttSettings

if TYPE_CHECKING:
    from ..scoring_service import ScoringService

_IN_FLIGHT = 20
"""Messages that the broker may send before earlier ones are acknowledged."""
_KEEP_ALIVE_SECONDS = 30
_STABLE_SECONDS = 30.0
"""Duration of a connection after which the waits between retries start over."""
_POLL_SECONDS = 1.0
_FAREWELL_SECONDS = 2.0
_NEVER_EXPIRES = 0xFFFFFFFF
"""MQTT 5, 3.1.2.11.2: the broker keeps the session until the client returns."""

_log = logging.getLogger("mlpack_runtime")


class MqttTransport:
    """Subscribes, scores and publishes until closed, whatever the broker does."""

    def __init__(self, service: ScoringService, settings: MqttSettings) -> None:
        self._settings = settings
        self._predictor = Predictor(service, "mqtt", settings.scoring_url)
        # HTTP gets the other half of the time.
        self._grace = service.settings.grace / 2
        self._pending = PendingMessages()
        self._stopping = threading.Event()
        self._leaving = threading.Event()
        self._order: queue.SimpleQueue[PendingMessage | None] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(self._predictor.threads, "mqtt-score")
        self._woken, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        self._client = self._make_client(service.identity.name)
        self._network = threading.Thread(target=self._stay_connected, name="mqtt", daemon=True)
        self._publisher = threading.Thread(target=self._publish, name="mqtt-publish", daemon=True)

    @classmethod
    def open(cls, service: ScoringService, environment: Mapping[str, str]) -> MqttTransport:
        """Start; the broker may still be unreachable. Raises :class:`~.settings.NotServable`."""
        made = cls(service, MqttSettings.read(environment))
        made._network.start()
        made._publisher.start()
        return made

    def close(self) -> None:
        """Accept no more messages, finish those in work, and disconnect; the session stays.

        Messages not finished in time are not acknowledged: the broker sends them again.
        """
        self._stopping.set()
        self._pending.wait(self._grace)
        self._leaving.set()
        self._order.put(None)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.disconnect()
        self._wake_up()
        self._network.join(_FAREWELL_SECONDS)
        self._predictor.close()

    # In the network thread.

    def _stay_connected(self) -> None:
        waits = backoff()
        while not self._leaving.is_set():
            start = time.monotonic()
            try:
                self._connect()
                self._exchange()
            except Exception as error:  # an invalid response must not end the module
                reason = error if isinstance(error, OSError) else repr(error)
                _log.warning("mqtt: %s: %s", self._settings.address, reason)
            self._pending.disconnected()
            self._pending.notify()
            if self._pending.overflowed or time.monotonic() - start > _STABLE_SECONDS:
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
            # With MQTT 3.1.1 the broker alone limits what it sends ahead; this limits it here.
            reading = [link] if self._pending.backlog <= _IN_FLIGHT else []
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
        # This makes the network thread the only one that writes to the socket.
        client.on_socket_register_write = self._wake_up
        return client

    def _wake_up(self, *_: object) -> None:
        """Wake the network thread."""
        with contextlib.suppress(BlockingIOError):  # it is being woken already
            self._wake.send(b"\0")

    def _on_connect(self, client: Any, _: object, flags: Any, reason: Any, __: object) -> None:  # noqa: ANN401
        if reason.is_failure:
            # Such as a wrong password; a disconnect follows.
            _log.error("mqtt: %s refused the connection: %s", self._settings.address, reason)
            return
        self._pending.connected()
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
                _log.error("mqtt: the broker refused %s: %s", self._settings.topic, reason)

    def _on_disconnect(self, _: object, __: object, ___: object, reason: Any, ____: object) -> None:  # noqa: ANN401
        self._pending.disconnected()
        if not self._leaving.is_set():
            _log.warning("mqtt: connection to %s ended: %s", self._settings.address, reason)

    def _on_message(self, _: object, __: object, received: Any) -> None:  # noqa: ANN401
        if self._stopping.is_set():
            return  # not acknowledged, so the broker sends it again
        packet = received.mid if received.qos else 0
        message = self._pending.take(to_payload(received), packet, again=received.dup)
        if message is None:
            return
        message.found = self._pool.submit(self._predictor.predict, message.payload, self._stopping)
        self._order.put(message)

    def _on_publish(self, _: object, __: object, packet: int, reason: Any, ___: object) -> None:  # noqa: ANN401
        if getattr(reason, "is_failure", False):
            _log.error("mqtt: the broker refused %s: %s", self._settings.predictions, reason)
            if (message := self._pending.carried(packet)) is not None:
                self._pending.forget(message)
            # On the next connection the broker sends unacknowledged messages again.
            self._client.disconnect()
            return
        self._pending.confirm(packet)
        self._settle()

    # In the publisher thread.

    def _publish(self) -> None:
        while (message := self._order.get()) is not None:
            try:
                prediction = message.found.result()
            except Stopped:
                self._pending.forget(message)
                continue
            except Exception as error:
                _log.error("mqtt: a message is dropped", exc_info=error)
                prediction = None
            self._pending.scored()
            if prediction is None:
                message.settled = True
            else:
                sent = self._client.publish(self._settings.predictions, prediction, qos=1)
                message.prediction = sent.mid
            self._settle()
            self._wake_up()

    def _settle(self) -> None:
        if self._pending.settle(lambda packet: self._client.ack(packet, 1)):
            _log.warning("mqtt: too many messages in memory: reconnecting to get them again")
            self._client.disconnect()


def to_payload(received: Any) -> Payload:  # noqa: ANN401
    """Return a message of paho's client as a request.

    MQTT 5 has a content type; a user property ``content-encoding`` is the header over HTTP.
    """
    properties = received.properties
    headers = {
        name.lower(): value
        for name, value in getattr(properties, "UserProperty", None) or ()
        if name.lower() == "content-encoding"
    }
    kind = getattr(properties, "ContentType", "") or ""
    return Payload(content=bytes(received.payload), content_type=kind, headers=headers)


def _send_at_once(_: object, __: object, link: socket.socket) -> None:
    """Disable Nagle's algorithm, which delays small packets by up to 40 ms."""
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _paho() -> Any:  # noqa: ANN401
    """Return paho-mqtt's client module; raise :class:`NotServable` if it is missing or old."""
    try:
        from paho.mqtt import client
    except ImportError as error:
        raise NotServable(
            "MQTT is configured, but paho-mqtt is not in the base: "
            "add paho-mqtt>=2 to requirements.in and run mlpack base build"
        ) from error
    if not hasattr(client, "CallbackAPIVersion"):
        raise NotServable(
            "MQTT is configured, but the base has paho-mqtt 1, which azure-iot-device requires: "
            "remove azure-iot-device from requirements.in and run mlpack base build"
        )
    return client
