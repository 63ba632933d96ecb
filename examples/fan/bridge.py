"""MQTT to InfluxDB 1.x, where Telegraf cannot be installed: the same measurement, tags and fields.

    pip install 'paho-mqtt>=2'
    python bridge.py --broker 127.0.0.1:1883 --influx http://127.0.0.1:8086

What edge/telegraf.conf describes: every message on fan/# becomes a point of the
measurement mqtt_consumer with the tags deviceID and topic, its numbers as fields, and
fault as a whole number. A message is acknowledged once it is written, so none is lost
while InfluxDB is away.
"""

from __future__ import annotations

import argparse
import json
import queue
import signal
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

MEASUREMENT = "mqtt_consumer"
MOST = 500
"""Points written at once."""


def line(topic: str, content: bytes, nanoseconds: int) -> str:
    """A message in InfluxDB's line protocol; raise :class:`ValueError` for what is none.

    >>> line("fan/anomaly", b'{"deviceID": "1", "fault": "0"}', 5)
    'mqtt_consumer,deviceID=1,topic=fan/anomaly fault=0i 5'
    """
    document = json.loads(content)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    fields = {
        name: float(value)
        for name, value in document.items()
        if name != "deviceID" and isinstance(value, int | float) and not isinstance(value, bool)
    }
    written = [f"{_escaped(name)}={value!r}" for name, value in sorted(fields.items())]
    if isinstance(document.get("fault"), str):
        written.append(f"fault={int(document['fault'])}i")
    if not written or not {"inf", "-inf", "nan"}.isdisjoint(map(repr, fields.values())):
        raise ValueError("no numbers")
    tags = f"deviceID={_escaped(str(document['deviceID']))}," if document.get("deviceID") else ""
    return f"{MEASUREMENT},{tags}topic={_escaped(topic)} {','.join(written)} {nanoseconds}"


def _escaped(text: str) -> str:
    for each in "\\,= ":
        text = text.replace(each, f"\\{each}")
    return text.replace("\n", " ")


class Bridge:
    """Writes what comes over MQTT, in order, and acknowledges it then."""

    def __init__(self, client: mqtt.Client, influx: str, database: str) -> None:
        self._client = client
        self._influx = influx.rstrip("/")
        self._database = database
        self._came: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self._last = 0
        self.stop = threading.Event()

    def take(self, _: object, __: object, message: mqtt.MQTTMessage) -> None:
        """Called by the MQTT client."""
        # Two points of one device at one time would be one point.
        self._last = max(self._last + 1, time.time_ns())
        try:
            self._came.put((message.mid, line(message.topic, bytes(message.payload), self._last)))
        except (ValueError, TypeError, RecursionError) as error:
            print(f"bridge: {message.topic}: left out: {error}", file=sys.stderr)
            self._came.put((message.mid, ""))

    def run(self) -> None:
        """Write until stopped."""
        self._create()
        while not self.stop.is_set():
            batch = self._batch()
            lines = "\n".join(text for _, text in batch if text)
            if lines and not self._write(lines):
                return
            for packet, _ in batch:
                self._client.ack(packet, 1)

    def _batch(self) -> list[tuple[int, str]]:
        found: list[tuple[int, str]] = []
        try:
            found.append(self._came.get(timeout=0.5))
            while len(found) < MOST:
                found.append(self._came.get(timeout=0.01))
        except queue.Empty:
            pass
        return found

    def _create(self) -> None:
        while not self._post("/query", f"q=CREATE+DATABASE+{self._database}".encode()):
            if self.stop.wait(1):
                return

    def _write(self, lines: str) -> bool:
        """Try until it is written; ``False`` when stopped before."""
        path = "/write?" + urllib.parse.urlencode({"db": self._database, "precision": "ns"})
        while not self._post(path, lines.encode()):
            if self.stop.wait(1):
                return False
        return True

    def _post(self, path: str, content: bytes) -> bool:
        kind = "application/x-www-form-urlencoded"
        sent = urllib.request.Request(  # noqa: S310 (the user names the address)
            self._influx + path, content, {"content-type": kind}
        )
        try:
            urllib.request.urlopen(sent, timeout=10).close()  # noqa: S310
        except urllib.error.HTTPError as error:
            print(f"bridge: InfluxDB answered {error.code}: {error.read(300)!r}", file=sys.stderr)
            # A point of another type than before: never written, and not to stop the others.
            return error.code == 400
        except OSError as error:
            print(f"bridge: {self._influx} cannot be reached: {error}", file=sys.stderr)
            return False
        return True


def main() -> None:
    """Bridge until stopped."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--broker", default="127.0.0.1:1883", metavar="HOST[:PORT]")
    parser.add_argument("--topic", default="fan/#")
    parser.add_argument("--influx", default="http://127.0.0.1:8086")
    parser.add_argument("--database", default="fan")
    asked = parser.parse_args()
    host, _, port = asked.broker.partition(":")
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2, client_id="fan-bridge", clean_session=False, manual_ack=True
    )
    bridge = Bridge(client, asked.influx, asked.database)
    client.on_message = bridge.take

    def subscribe(*_: object) -> None:
        client.subscribe(asked.topic, qos=1)

    client.on_connect = subscribe
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: bridge.stop.set())
    client.connect(host, int(port or 1883))
    client.loop_start()
    bridge.run()
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    main()
