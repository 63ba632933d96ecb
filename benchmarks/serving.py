"""A module that serves: the price of HTTP over the model itself, requests a second, cold start.

The peer is azureml-inference-server-http in a virtual environment of its own,
with the same scoring script and the same onnxruntime. All servers are up at
once and are asked in turn, so drift hits all alike. The load comes from wrk
(Debian's package), a program in C, over 16 connections; the peer closes each
after its answer, and wrk opens the next.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from benchmarks.servers import (
    CHECKOUT,
    NO_BYTECODE,
    family,
    make_fan,
    make_peer,
    memory,
    mlpack_command,
    resident,
    serving,
    wait,
)

RESNET = CHECKOUT / "examples" / "resnet50v2"
PICTURE = CHECKOUT.parent / "shared" / "data" / "images" / "dog.jpg"
READING = b'{"params": [600, 40, 150, 50]}'
ROUNDS = 7
IN_A_ROW = 5
STARTS = 7

ALONE = """
import sys, time
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
[given] = session.get_inputs()
x = numpy.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype("float32")
session.run(None, {given.name: x})
print("up", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    session.run(None, {given.name: x})
    print(time.perf_counter() - start, flush=True)
"""


def main(folder: Path) -> None:
    """Print three tables."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not there: apt-get install wrk")
    fan = make_fan(folder / "fan")
    peer = make_peer(folder / "peer")
    cold_start(fan, peer)
    requests_a_second(fan, peer)
    price_of_http(folder)


def cold_start(fan: Path, peer: Path) -> None:
    """From the start of the process to the first answer 200, and memory when idle."""
    [model] = fan.rglob("*.onnx")
    load = f"import onnxruntime; onnxruntime.InferenceSession({str(model)!r})"
    cases: dict[str, Callable[[], tuple[float, float]]] = {
        "mlpack": lambda: first_answer(fan, mlpack_command()),
        "mlpack, no bytecode (a container)": lambda: first_answer(
            fan, mlpack_command(), NO_BYTECODE
        ),
        "azmlinfsrv": lambda: first_answer(fan, [str(peer)]),
        "azmlinfsrv, no bytecode": lambda: first_answer(fan, [str(peer)], NO_BYTECODE),
        "floor: python -c pass": lambda: whole("pass"),
        "floor: import onnxruntime, load": lambda: whole(load),
        "floor: the same, no bytecode": lambda: whole(load, NO_BYTECODE),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for turn in range(STARTS + 1):
        for name, measure in cases.items():
            one = measure()
            if turn:
                found[name].append(one)
    print("\ncold start of the fan, and idle memory (targets: 1 s, 120 MB)")
    print(f"{'':<40}{'seconds':>9}{'min-max':>15}{'MB':>8}")
    for name, runs in found.items():
        seconds = [each for each, _ in runs]
        spread = f"{min(seconds):.3f}-{max(seconds):.3f}"
        memory = statistics.median(each for _, each in runs)
        print(f"{name:<40}{statistics.median(seconds):>9.3f}{spread:>15}{memory:>8.1f}")


def first_answer(
    app: Path, command: Sequence[str], environment: Mapping[str, str] = {}
) -> tuple[float, float]:
    """Seconds to the first answer, and MB of all its processes half a second later."""
    start = time.perf_counter()
    with serving(app, command, environment) as server:
        wait(server, READING)
        seconds = time.perf_counter() - start
        time.sleep(0.5)
        return seconds, sum(memory(pid) for pid in family(server.process.pid))


def whole(code: str, environment: Mapping[str, str] = {}) -> tuple[float, float]:
    """Seconds and MB of a process that ends."""
    start = time.perf_counter()
    ended = "; import os; print(open('/proc/self/status').read(), flush=True); os._exit(0)"
    done = subprocess.run(
        [sys.executable, "-c", code + ended],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - start
    return seconds, resident(done.stdout)


def requests_a_second(fan: Path, peer: Path) -> None:
    """The fan's readings from 16 clients."""
    script = fan / "post.lua"
    body = READING.decode()
    script.write_text(
        f"wrk.method = 'POST'\nwrk.body = '{body}'\n"
        "wrk.headers['Content-Type'] = 'application/json'\n"
    )
    commands = {"azmlinfsrv": [str(peer)], "mlpack": mlpack_command()}
    found: dict[str, list[float]] = {name: [] for name in commands}
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(serving(fan, command)) for name, command in commands.items()
        }
        for server in servers.values():
            wait(server, READING)
        for turn in range(ROUNDS + 1):
            for name, server in servers.items():
                rate = load(server.port, script)
                if turn:
                    found[name].append(rate)
    print("\nthe fan's readings in JSON, 16 clients (target: 3.5 times the peer)")
    print(f"{'':<40}{'requests/s':>11}{'min-max':>15}{'ratio':>8}")
    for name, rates in found.items():
        ratios = (a / b for a, b in zip(rates, found["azmlinfsrv"], strict=True))
        spread = f"{min(rates):.0f}-{max(rates):.0f}"
        print(
            f"{name:<40}{statistics.median(rates):>11.0f}{spread:>15}"
            f"{statistics.median(ratios):>8.2f}"
        )


def load(port: int, script: Path) -> float:
    """Requests a second that wrk gets answered; every answer must be 200."""
    done = subprocess.run(
        ["wrk", "-t1", "-c16", "-d3s", "-s", str(script), f"http://127.0.0.1:{port}/score"],
        capture_output=True,
        text=True,
        check=True,
    )
    if "Non-2xx" in done.stdout:
        raise SystemExit(done.stdout)
    return float(re.findall(r"Requests/sec:\s+([\d.]+)", done.stdout)[0])


def price_of_http(folder: Path) -> None:
    """One picture for a network of ResNet50v2's size, in every way it can be sent."""
    app = folder / "resnet"
    model = app / "azureml-models" / "resnet50v2" / "1"
    model.mkdir(parents=True)
    file = str(model / "model.onnx")
    make = [sys.executable, str(RESNET / "make_weights.py"), "--output", file]
    subprocess.run(make, check=True, capture_output=True)
    shutil.copy(RESNET / "score.py", app)
    labels = "".join(f"n{place:08} class{place}\n" for place in range(1000))
    (model / "labels.txt").write_text(labels)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 224, 224))
    body = json.dumps({"data": pixels.tolist()}).encode()
    floats = json.dumps({"data": (pixels + 0.123).clip(0, 255).tolist()}).encode()
    ways = {
        "raw tensor": (pixels.astype("<f4").tobytes(), "application/octet-stream"),
        "JPEG": (PICTURE.read_bytes(), "image/jpeg"),
        f"JSON, whole numbers ({len(body) / 1e6:.1f} MB)": (body, "application/json"),
        f"JSON, decimals ({len(floats) / 1e6:.1f} MB)": (floats, "application/json"),
    }
    found: dict[str, list[float]] = {name: [] for name in ("session.run alone", *ways)}
    alone = [sys.executable, "-c", ALONE, file]
    with (
        subprocess.Popen(
            alone, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process,
        serving(app, mlpack_command()) as server,
    ):
        if process.stdin is None or process.stdout is None:
            raise SystemExit("no pipes")
        process.stdout.readline()
        wait(server, body)
        connection = server.connect()
        cases: dict[str, Callable[[], float]] = {
            "session.run alone": partial(run_alone, process.stdin, process.stdout),
            **{name: partial(ask, connection, *sent) for name, sent in ways.items()},
        }
        for _ in range(ROUNDS):
            for name, measure in cases.items():
                found[name] += block(measure)
        process.stdin.close()
    print("\none request to a network of ResNet50v2's size (targets: 1.15, 1.3, 2)")
    print(f"{'':<40}{'ms':>9}{'min-max':>15}{'ratio':>8}")
    base = statistics.median(found["session.run alone"])
    for name, seconds in found.items():
        middle = statistics.median(seconds)
        spread = f"{min(seconds) * 1e3:.1f}-{max(seconds) * 1e3:.1f}"
        print(f"{name:<40}{middle * 1e3:>9.1f}{spread:>15}{middle / base:>8.2f}")


def run_alone(asked: IO[str], answered: IO[str]) -> float:
    """Seconds of one run of the model in a process that does nothing else."""
    asked.write("\n")
    asked.flush()
    return float(answered.readline())


def block(measure: Callable[[], float]) -> list[float]:
    """Some runs in a row, once the threads of the process measured before are asleep."""
    time.sleep(0.2)
    return [measure() for _ in range(IN_A_ROW + 1)][1:]


def ask(connection: http.client.HTTPConnection, content: bytes, kind: str) -> float:
    """Seconds until a request is answered."""
    start = time.perf_counter()
    connection.request("POST", "/score", content, {"content-type": kind})
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise SystemExit(f"{kind} was answered {answer.status}")
    return time.perf_counter() - start
