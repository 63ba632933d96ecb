"""The whole scenario on this machine: broker, sensors, scoring, and a database where there is one.

    python local.py                        until Ctrl-C; needs mosquitto, and fan.onnx from train.py
    python local.py --seconds 20 --fans 8
    python local.py --remote               scoring in one process, the predictor in another

Everything listens on the loopback address, keeps its data in --folder, and is ended by its
process id, newest first, when this script ends.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
START_SECONDS = 30
STOP_SECONDS = 15


class Processes:
    """Processes of ours, with a log file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(
        self,
        name: str,
        command: list[str],
        *,
        port: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start one and wait until it listens on ``port``; end where it does not."""
        log = self._folder / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                stdout=out,
                stderr=out,
                env={**os.environ, **(environment or {})},
                # Ctrl-C is for this script, which then ends them in order.
                start_new_session=True,
            )
        self._started.append((name, process))
        where = f", port {port}" if port else ""
        print(f"{name}: process {process.pid}{where}, {log}", flush=True)
        deadline = time.monotonic() + START_SECONDS
        while port and not listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"error: {name} does not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)

    def ended(self) -> str:
        """The name of one that ended by itself, if any did."""
        return next((name for name, each in self._started if each.poll() is not None), "")

    def end(self) -> None:
        """End all, newest first: sensors stop before the broker does."""
        for name, process in reversed(self._started):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                print(f"{name} does not end: it is killed", flush=True)
                process.kill()
                process.wait()


@contextlib.contextmanager
def processes(folder: Path) -> Iterator[Processes]:
    """Processes that are ended with the block, however it ends."""
    found = Processes(folder)
    try:
        yield found
    finally:
        found.end()


def listens(port: int) -> bool:
    """Whether something answers at ``port``."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def find(program: str) -> str | None:
    """Where a program is; Debian has brokers outside a user's path."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")


def release(folder: Path, model: Path) -> Path:
    """The folder of an application, as a release has it: the script and the model."""
    place = folder / "azureml-models" / "fan" / "local"
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(model, place / "fan.onnx")
    shutil.copy(HERE / "score.py", folder / "score.py")
    return folder


def start_all(ours: Processes, asked: argparse.Namespace, folder: Path) -> None:
    """Start broker, database, scoring, bridge and sensors, in this order."""
    broker_port, influx_port, rpc_port, http_port, predictor_port = free_ports(5)
    broker, influx = f"127.0.0.1:{broker_port}", f"127.0.0.1:{influx_port}"
    said = ["--broker-port", str(broker_port), "--influx-bind", influx]
    said += ["--influx-rpc-port", str(rpc_port), "--data", str(folder), "--to", str(folder)]
    subprocess.run([sys.executable, str(HERE / "edge" / "render.py"), *said], check=True)
    mosquitto = find("mosquitto") or sys.exit("error: there is no mosquitto: apt-get install it")
    if os.geteuid() == 0:
        with (folder / "mosquitto.conf").open("a") as settings:
            settings.write("user root\n")  # else it gives up its rights to its own folder
    ours.start("mosquitto", [mosquitto, "-c", f"{folder}/mosquitto.conf"], port=broker_port)
    influxd = find("influxd")
    if influxd:
        ours.start("influxd", [influxd, "-config", f"{folder}/influxdb.conf"], port=influx_port)
        bridge = [sys.executable, str(HERE / "bridge.py"), "--broker", broker]
        ours.start("bridge", [*bridge, "--influx", f"http://{influx}"])
    start_scoring(
        ours, asked, release(folder / "app", asked.model), broker, http_port, predictor_port
    )
    sensors = [sys.executable, str(HERE / "sensors.py"), "--broker", broker]
    sensors += ["--fans", str(asked.fans), "--faulty", str(asked.faulty)]
    ours.start("sensors", [*sensors, "--every", str(asked.every)])
    print(f"broker {broker}, scoring http://127.0.0.1:{http_port}/", flush=True)
    if influxd:
        print(f"InfluxDB http://{influx}, database fan", flush=True)


def start_scoring(
    ours: Processes, asked: argparse.Namespace, app: Path, broker: str, port: int, second: int
) -> None:
    """The release's own runtime: one process that listens to both, or one for each."""
    runtime = [sys.executable, "-m", "mlpack.runtime"]
    environment = {"AML_APP_ROOT": str(app), "AZUREML_MODEL_DIR": ""}
    environment |= {"MLPACK_HOST": "127.0.0.1", "MLPACK_PORT": str(port)}
    mqtt = {"MQTT_BROKER": broker}
    if not asked.remote:
        ours.start("scoring", runtime, port=port, environment={**environment, **mqtt})
        return
    ours.start("scoring", runtime, port=port, environment=environment)
    mqtt |= {"SCORING_URL": f"http://127.0.0.1:{port}/score", "MLPACK_PORT": str(second)}
    ours.start("predictor", runtime, port=second, environment={**environment, **mqtt})


def main() -> None:
    """Run until Ctrl-C, SIGTERM, or as long as asked for."""
    asked = arguments()
    if not asked.model.is_file():
        sys.exit(f"error: {asked.model} is not there; run: python train.py")
    stop = threading.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: stop.set())
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="fan-"))
    folder.mkdir(parents=True, exist_ok=True)
    with processes(folder) as ours:
        start_all(ours, asked, folder)
        until = time.monotonic() + (asked.seconds or float("inf"))
        while not stop.wait(0.2) and time.monotonic() < until:
            if name := ours.ended():
                sys.exit(f"error: {name} ended by itself: see {folder}/{name}.log")
    print("all ended", flush=True)


def arguments() -> argparse.Namespace:
    """What the user wants."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, default=Path("fan.onnx"))
    parser.add_argument("--folder", type=Path, help="for data and logs; default: a new one")
    parser.add_argument("--seconds", type=float, default=0, help="default: until Ctrl-C")
    parser.add_argument("--fans", type=int, default=4)
    parser.add_argument("--faulty", type=int, default=1)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between readings")
    parser.add_argument("--remote", action="store_true", help="score in a process of its own")
    return parser.parse_args()


if __name__ == "__main__":
    main()
