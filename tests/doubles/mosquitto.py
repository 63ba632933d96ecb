"""A real Mosquitto with persistence, that can be stopped and started again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.support import free_port, unavailable

START_SECONDS = 60
PROGRAM = "/usr/sbin/mosquitto"


@dataclass
class Mosquitto:
    """The broker; what it holds for absent clients survives a restart."""

    folder: Path
    port: int
    settings: str = ""
    log: Path = field(init=False)
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.log = self.folder / "mosquitto.log"

    @property
    def address(self) -> str:
        """For ``MQTT_BROKER``."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and wait until it listens."""
        if not Path(PROGRAM).exists() and shutil.which("mosquitto") is None:
            unavailable("mosquitto is not installed")
        settings = self.folder / "mosquitto.conf"
        settings.write_text(
            f"listener {self.port} 127.0.0.1\npersistence true\n"
            f"persistence_location {self.folder}/\nmax_queued_messages 0\n"
            "set_tcp_nodelay true\nuser root\n" + (self.settings or "allow_anonymous true\n")
        )
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [shutil.which("mosquitto") or PROGRAM, "-c", str(settings)], stdout=log, stderr=log
            )
        wait_for_port(self.port, self._process, self.log)

    def reload(self) -> None:
        """SIGHUP: it reads its lists of users and rights again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """SIGTERM: it writes its database and ends."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_SECONDS)
            self._process = None


@contextmanager
def mosquitto(folder: Path, settings: str = "") -> Iterator[Mosquitto]:
    """A broker until the block ends; ``settings`` take the place of open access."""
    broker = Mosquitto(folder, free_port(), settings)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@contextmanager
def client(
    broker: Mosquitto, name: str, *, ca: Path | None = None, login: tuple[str, str] | None = None
) -> Iterator[paho.Client]:
    """A client with a session that outlives the connection; reconnects by itself."""
    made = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=False)
    made.reconnect_delay_set(1, 1)
    if ca is not None:
        made.tls_set(str(ca))
    if login is not None:
        made.username_pw_set(*login)
    made.connect("127.0.0.1", broker.port)
    made.loop_start()
    try:
        yield made
    finally:
        made.disconnect()
        made.loop_stop()


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until ``process`` listens on ``port``."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
