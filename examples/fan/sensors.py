"""Fans that do not exist: their sensors' readings over MQTT, a share of them failing.

    pip install 'paho-mqtt>=2'
    python sensors.py --broker 127.0.0.1:1883 --fans 4 --faulty 1 --every 1

A message is {"deviceID": "1", "rotation": 598.3, "temperature": 39.2, "vibration": 151.0,
"sound": 48.9}: turns a minute, °C, mm/s, dB. The last --faulty of the fans read as failing
fans do; the ranges are those the model was trained with (train.py).
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import threading
from collections.abc import Iterator
from itertools import count

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

FIELDS = ("rotation", "temperature", "vibration", "sound")
NORMAL = ((500.0, 700.0), (35.0, 45.0), (100.0, 200.0), (45.0, 52.0))
FAULTY = ((400.0, 650.0), (35.0, 55.0), (100.0, 250.0), (45.0, 60.0))
"""As in train.py, which a device does not have."""


def readings(fans: int, faulty: int, seed: int | None) -> Iterator[dict[str, object]]:
    """One reading of each fan after the other, for ever."""
    source = random.Random(seed)  # noqa: S311 (not for secrets)
    for number in count():
        fan = number % fans
        ranges = FAULTY if fan >= fans - faulty else NORMAL
        values = [round(source.uniform(low, high), 1) for low, high in ranges]
        yield {"deviceID": str(fan + 1), **dict(zip(FIELDS, values, strict=True))}


def main() -> None:
    """Publish until stopped, or as many readings as asked for."""
    asked = arguments()
    host, _, port = asked.broker.partition(":")
    # A session of its own name: what is not delivered yet survives a lost connection.
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2, client_id=asked.client_id, clean_session=False
    )
    client.reconnect_delay_set(1, 30)
    stop = threading.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: stop.set())
    client.connect(host, int(port or 1883))
    client.loop_start()
    for number, reading in enumerate(readings(asked.fans, asked.faulty, asked.seed), 1):
        sent = client.publish(asked.topic, json.dumps(reading), qos=1)
        if number == asked.count:
            sent.wait_for_publish()
            break
        if number % asked.fans == 0 and stop.wait(asked.every):
            break
    client.disconnect()
    client.loop_stop()


def arguments() -> argparse.Namespace:
    """What the user wants."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--broker", default="127.0.0.1:1883", metavar="HOST[:PORT]")
    parser.add_argument("--topic", default="fan/messages")
    parser.add_argument("--client-id", default="fan-sensors")
    parser.add_argument("--fans", type=int, default=4, help="how many fans (device ids 1 to N)")
    parser.add_argument("--faulty", type=int, default=1, help="how many of them are failing")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between rounds")
    parser.add_argument("--count", type=int, default=0, help="stop after so many; default: never")
    parser.add_argument("--seed", type=int, help="the same seed gives the same readings")
    found = parser.parse_args()
    if not 0 <= found.faulty <= found.fans or found.fans < 1:
        parser.error("--faulty: from 0 to --fans, and at least one fan")
    return found


if __name__ == "__main__":
    main()
