"""The fan as a module of IoT Edge: Microsoft's own client, connected to a hub made for tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlpack.base.python import find_uv
from tests.doubles.edgehub import EdgeHub
from tests.e2e.engines import needs, run
from tests.examples.fan import fan_release
from tests.support import free_port

pytestmark = pytest.mark.e2e

HOST = "127.8.8.3"
"""Of the loopback network; the port is given, so the address is one nobody else takes."""
CLIENT = "press-7/fan"
NORMAL = {"rotation": 600, "temperature": 40, "vibration": 150, "sound": 48}
FAULTY = {"rotation": 450, "temperature": 52, "vibration": 240, "sound": 58}


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """azure-iot-device, apart: it wants a paho-mqtt that MQTT mode cannot use."""
    folder = tmp_path_factory.mktemp("azure-iot-device")
    run(
        *(find_uv(), "pip", "install", "--quiet", "--python", sys.executable),
        *("--target", str(folder), "azure-iot-device==2.14.0"),
    )
    return folder


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[EdgeHub]:
    needs("openssl")
    certificate, key = tmp_path / "hub.pem", tmp_path / "hub.key"
    run(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-days", "2", "-subj", f"/CN={HOST}"),
        *("-addext", f"subjectAltName=IP:{HOST}", "-out", str(certificate), "-keyout", str(key)),
    )
    with EdgeHub.started(HOST, certificate, key) as started:
        started.desired["threshold"] = 0.5
        yield started


@pytest.fixture
def module(
    hub: EdgeHub, packages: Path, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The runtime with the fan, as edgeAgent starts it."""
    release = fan_release(tmp_path / "release")
    key = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI="
    environment = {
        **os.environ,
        "PYTHONPATH": str(packages),
        "AML_APP_ROOT": str(release),
        "AZUREML_MODEL_DIR": "",
        "MLPACK_HOST": "127.0.0.1",
        "MLPACK_PORT": str(free_port()),
        "MLPACK_DRAIN": "0.1",
        "EdgeHubConnectionString": f"HostName=hub.azure-devices.net;GatewayHostName={HOST};"
        f"DeviceId=press-7;ModuleId=fan;SharedAccessKey={key}",
        "EdgeModuleCACertificateFile": str(tmp_path / "hub.pem"),
    }
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlpack.runtime"], env=environment, stdout=out, stderr=out
        )
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()


def until(condition: Callable[[], object], log: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(0.02)


def test_inputs_become_outputs_and_the_twin_says_and_sets(
    hub: EdgeHub, module: tuple[subprocess.Popen[bytes], Path]
) -> None:
    process, log = module

    def subscribed() -> bool:
        found = hub.sessions.get(CLIENT)
        return found is not None and any("/inputs/" in each for each in found.subscriptions)

    def deliver(device: str, reading: dict[str, int], name: str = "data") -> None:
        content = json.dumps({"deviceID": device, **reading}).encode()
        hub.deliver(CLIENT, name, content, **{"$.mid": f"m{device}"})

    until(subscribed, log)
    assert hub.reported["model"]["name"] == "fan"
    assert hub.reported["model"]["version"] == "1"
    assert set(hub.reported["model"]) == {"name", "version", "digest", "loaded"}
    assert hub.reported["configured"] == {"version": 1, "ok": True, "message": None}

    deliver("1", NORMAL)
    deliver("2", FAULTY)
    hub.deliver(CLIENT, "data", b"not JSON")
    deliver("3", NORMAL, "elsewhere")
    deliver("4", FAULTY)
    until(lambda: len(hub.outputs) == 3, log)
    assert sorted(content for _, content in hub.outputs) == [
        b'{"deviceID":"1","fault":"0"}',
        b'{"deviceID":"2","fault":"1"}',
        b'{"deviceID":"4","fault":"1"}',
    ]
    said = next(said for said, content in hub.outputs if b'"1","fault' in content)
    assert (said["$.on"], said["$.cid"], said["$.ct"]) == ("score", "m1", "application/json")
    assert said["model"] == "fan:1"
    assert hub.unacknowledged(CLIENT) == 0

    # A threshold that everything reaches; then one that is none, which leaves the last one.
    hub.desire(CLIENT, threshold=0)
    until(lambda: hub.reported["configured"]["version"] == 2, log)
    hub.desire(CLIENT, threshold="high")
    until(lambda: hub.reported["configured"]["version"] == 3, log)
    assert hub.reported["configured"]["ok"] is False
    assert "threshold is 'high'" in hub.reported["configured"]["message"]
    deliver("5", NORMAL)
    until(lambda: len(hub.outputs) == 4, log)
    assert json.loads(hub.outputs[3][1]) == {"deviceID": "5", "fault": "1"}

    # The hub comes back as one that knows nobody; the twin was changed meanwhile.
    hub.restart(forget=True, away=lambda: hub.desired.update({"threshold": 0.5, "$version": 9}))
    until(subscribed, log)
    assert hub.reported["configured"] == {"version": 9, "ok": True, "message": None}
    for each in range(50):
        deliver(f"{each:02}", NORMAL)
    until(lambda: not hub.sessions[CLIENT].unacknowledged, log)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    # Microsoft's client hands messages over on four threads, in any order.
    assert sorted(content for _, content in hub.outputs[4:]) == [
        b'{"deviceID":"%02d","fault":"0"}' % each for each in range(50)
    ]
