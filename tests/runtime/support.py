"""A module in this process: a real scorer behind its queue, and its ASGI application."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import httpx

from mlpack.runtime.http.app import application
from mlpack.runtime.scoring_service import ScoringService
from mlpack.runtime.settings import RuntimeSettings
from tests.support import free_port, own_environment

FAN = """
import json
FIELDS = {"rotation": (400, 800, 600), "temperature": (20, 60, 35.5), "a_b": (0, 300, 120)}
def init(): pass
def run(data):
    request = json.loads(data)
    numbers = request.get("params") if isinstance(request, dict) else None
    if not isinstance(numbers, list) or not all(type(n) in (int, float) for n in numbers):
        raise ValueError("params is not a list of three numbers")
    if len(numbers) != len(FIELDS):
        raise ValueError("params is not a list of three numbers")
    total = sum(numbers)
    return {"fault": "1" if total > 1000 else "0", "probability": min(1.0, total / 2000)}
"""
"""A script with numbers to fill in; a fault is where they are high."""

PICTURE = """
import time
LABELS = ("red", "green", "blue", "dark", "light_grey", "grey")
def init(): pass
def run(data): return {}
def run_image(image):
    image = image.convert("RGB")
    red, green, blue = image.resize((1, 1)).getpixel((0, 0))
    scores = [red, green, blue, 20, 10, 5]
    ranked = sorted(zip(scores, LABELS), reverse=True)[:5]
    top = [{"label": label, "probability": score / sum(scores)} for score, label in ranked]
    width, height = image.size
    face = [width // 4, height // 4, width // 2, height // 2]
    return {"result": scores, "time": 0.001, "top": top, "face": face}
"""
"""A script for pictures; the class is the strongest color."""


def release(folder: Path, script: str | None = None, model: str = "fan/3") -> RuntimeSettings:
    """Settings for a release in ``folder``, with or without a script."""
    place = folder / "azureml-models" / model
    place.mkdir(parents=True, exist_ok=True)
    if script is not None:
        (folder / "score.py").write_text(script)
    return RuntimeSettings(app_root=folder, model_dir=place, script=folder / "score.py")


def start(settings: RuntimeSettings) -> ScoringService:
    """The module of a release, whose worker has a thread of its own until it is closed."""
    opened: Future[ScoringService] = Future()

    def live() -> None:
        try:
            service = ScoringService.open(settings)
        except BaseException as error:
            opened.set_exception(error)
            return
        opened.set_result(service)
        service.work()

    threading.Thread(target=live, name="scoring", daemon=True).start()
    return opened.result()


@contextmanager
def started(settings: RuntimeSettings) -> Iterator[ScoringService]:
    """The module of a release, until the block ends; it exports variables to its script."""
    with own_environment():
        module = start(settings)
        try:
            yield module
        finally:
            module.close()


def ask(
    module: ScoringService,
    method: str,
    path: str,
    content: bytes = b"",
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    """One request, without a socket."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=application(module))
        async with httpx.AsyncClient(transport=transport, base_url="http://module") as client:
            return await client.request(method, path, content=content, headers=headers)

    return asyncio.run(send())


@contextmanager
def serving(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """The release in ``folder`` in a process of its own, with ``settings``; its address."""
    port = free_port()
    # A module in this process leaves there what its own scripts must find.
    own = {k: v for k, v in os.environ.items() if not k.startswith(("AML_", "AZUREML_", "MLPACK_"))}
    environment = {
        **own,
        "AML_APP_ROOT": str(folder),
        "MLPACK_HOST": "127.0.0.1",
        "MLPACK_PORT": str(port),
        **(settings or {}),
    }
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlpack.runtime"], env=environment, stdout=log, stderr=log
        )
    try:
        _wait(process, port, folder / "log.txt")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
