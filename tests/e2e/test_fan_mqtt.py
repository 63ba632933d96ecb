"""The fan's readings over a real Mosquitto: whatever ends in the middle, each is predicted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import paho.mqtt.client as paho
import pytest

from tests.doubles.mosquitto import client, mosquitto
from tests.e2e.engines import needs, run
from tests.examples.fan import FIELDS, expected, fan_release, real_readings
from tests.registry.registry import certificate
from tests.support import free_port

pytestmark = pytest.mark.e2e

Readings = npt.NDArray[np.float32]


class Predictions:
    """What came on the topic of predictions, by device."""

    def __init__(self, subscriber: paho.Client) -> None:
        self.found: dict[str, list[str]] = defaultdict(list)
        subscriber.on_message = self._take
        subscriber.subscribe("fan/anomaly", 1)

    def _take(self, _: object, __: object, message: paho.MQTTMessage) -> None:
        prediction = json.loads(message.payload)
        assert set(prediction) == {"deviceID", "fault"}
        self.found[prediction["deviceID"]].append(prediction["fault"])


@contextlib.contextmanager
def predictor(
    release: Path, environment: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The runtime of a release in a process of its own, and the port of its HTTP."""
    port = free_port()
    ours = {
        "AML_APP_ROOT": str(release),
        "AZUREML_MODEL_DIR": "",
        "MLPACK_HOST": "127.0.0.1",
        "MLPACK_PORT": str(port),
        "MLPACK_DRAIN": "0.1",
    }
    with (release / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlpack.runtime"],
            env={**os.environ, **ours, **environment},
            stdout=log,
            stderr=log,
        )
    try:
        yield process, port
    finally:
        process.kill()
        process.wait()


def until(condition: Callable[[], object], release: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, (release / "log").read_text()[-4000:]
        time.sleep(0.02)


def publish(sensors: paho.Client, readings: Readings, first: int = 0) -> None:
    for number, reading in enumerate(readings.tolist(), first):
        message = {"deviceID": str(number), **dict(zip(FIELDS, reading, strict=True))}
        sensors.publish("fan/messages", json.dumps(message), 1)


def test_no_reading_is_lost_when_the_predictor_is_killed_and_the_broker_restarts(
    tmp_path: Path,
) -> None:
    release = fan_release(tmp_path / "release")
    readings = real_readings(900)
    labels = expected(readings)
    assert set(labels) == {"0", "1"}
    with (
        mosquitto(tmp_path) as broker,
        client(broker, "dashboard") as subscriber,
        client(broker, "sensors") as sensors,
    ):
        seen = Predictions(subscriber).found
        environment = {"MQTT_BROKER": broker.address}
        with predictor(release, environment) as (first, _):
            until(lambda: "session new" in (release / "log").read_text(), release)
            publish(sensors, readings[:300])
            until(lambda: len(seen) > 50, release)
            first.kill()  # some readings are in work
            first.wait()
        assert len(seen) < 300
        publish(sensors, readings[300:600], 300)
        with predictor(release, environment) as (second, port):
            until(lambda: len(seen) > 350, release)
            broker.stop()
            publish(sensors, readings[600:], 600)  # the sensors keep them until it is back
            broker.start()
            until(lambda: len(seen) == 900, release)
            assert accuracy_over_http(port, readings[:200]) == labels[:200]
            second.send_signal(signal.SIGTERM)
            assert second.wait(60) == 0
    assert [set(seen[str(number)]) for number in range(900)] == [{label} for label in labels]


def accuracy_over_http(port: int, readings: Readings) -> list[str]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/score",
        json.dumps({"data": readings.tolist()}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return [each["fault"] for each in json.load(reply)["result"]]


def test_sigterm_finishes_what_is_in_work_and_leaves_the_rest_to_the_next(tmp_path: Path) -> None:
    release = fan_release(tmp_path / "release")
    readings = real_readings(600)
    with (
        mosquitto(tmp_path) as broker,
        client(broker, "dashboard") as subscriber,
        client(broker, "sensors") as sensors,
    ):
        seen = Predictions(subscriber).found
        environment = {"MQTT_BROKER": broker.address, "MQTT_VERSION": "3.1.1"}
        ends: list[int] = []
        while len(seen) < 600:
            with predictor(release, environment) as (process, _):
                if not ends:
                    until(lambda: "session new" in (release / "log").read_text(), release)
                    publish(sensors, readings)
                target = min(600, len(seen) + 250)
                until(lambda target=target: len(seen) >= target, release)  # type: ignore[misc]
                process.send_signal(signal.SIGTERM)
                ends.append(process.wait(60))
        assert set(ends) == {0}
        # In work when the signal came, finished and acknowledged: nothing was predicted twice.
        assert all(len(each) == 1 for each in seen.values())
    assert [seen[str(number)] for number in range(600)] == [[each] for each in expected(readings)]


def test_tls_with_a_user_and_a_password_from_a_file(tmp_path: Path) -> None:
    release = fan_release(tmp_path / "release")
    ca = certificate(tmp_path)
    needs("mosquitto_passwd")
    run("mosquitto_passwd", "-c", "-b", str(tmp_path / "users"), "fan", "s3cret word")
    (tmp_path / "acl").write_text("user fan\ntopic readwrite fan/#\n")
    settings = (
        f"cafile {ca}\ncertfile {tmp_path}/server.pem\nkeyfile {tmp_path}/server.key\n"
        f"allow_anonymous false\npassword_file {tmp_path}/users\nacl_file {tmp_path}/acl\n"
    )
    (tmp_path / "password").write_text("wrong\n")
    environment = {
        "MQTT_USER": "fan",
        "MQTT_PASSWORD_FILE": str(tmp_path / "password"),
        "MQTT_CA": str(ca),
    }
    with mosquitto(tmp_path, settings) as broker:
        environment["MQTT_BROKER"] = f"localhost:{broker.port}"
        with predictor(release, environment) as (process, _):
            until(lambda: "Not authorized" in (release / "log").read_text(), release)
            assert process.poll() is None
        (tmp_path / "password").write_text("s3cret word\n")
        login = ("fan", "s3cret word")
        with (
            client(broker, "both", ca=ca, login=login) as both,
            predictor(release, environment),
        ):
            seen = Predictions(both).found
            until(lambda: "session new" in (release / "log").read_text(), release)
            readings = real_readings(20)
            publish(both, readings)
            until(lambda: len(seen) == 20, release)
    assert [seen[str(number)][0] for number in range(20)] == expected(readings)
    assert "s3cret" not in (release / "log").read_text()


def test_predictions_that_the_broker_refuses_come_once_it_takes_them(tmp_path: Path) -> None:
    release = fan_release(tmp_path / "release")
    rights = tmp_path / "acl"
    rights.write_text("topic readwrite fan/messages\ntopic read fan/anomaly\n")
    rights.chmod(0o600)
    settings = f"allow_anonymous true\nacl_file {rights}\n"
    with mosquitto(tmp_path, settings) as broker, client(broker, "both") as both:
        seen = Predictions(both).found
        with predictor(release, {"MQTT_BROKER": broker.address}):
            until(lambda: "session new" in (release / "log").read_text(), release)
            readings = real_readings(30)
            publish(both, readings)
            until(lambda: "refused fan/anomaly" in (release / "log").read_text(), release)
            rights.write_text("topic readwrite fan/#\n")
            broker.reload()
            until(lambda: len(seen) == 30, release)
    assert [set(seen[str(number)]) for number in range(30)] == [
        {label} for label in expected(readings)
    ]
