"""Walks: which files of mlpack a command enters, and how many lines a reader must open for it.

``python -m benchmarks walks`` prints a line per walk; ``WALK_FILES=1`` lists the files. A command
runs in a new process. A file counts as entered when one of its functions is called; a module that
only names things or makes classes does not. ``deploy`` runs in this process, because the tests'
double of the hub keeps the clock: a rollout in three steps. ``/score`` is what one POST to a
running fan module enters.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / "mlpack"


@dataclass(frozen=True, slots=True)
class Walk:
    """Every entry into a file of mlpack that was not left meanwhile, in order."""

    entered: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """The files entered, below ``mlpack/``, in the order of their first entry."""
        return tuple(dict.fromkeys(self.entered))

    @property
    def lines(self) -> int:
        """The lines of all these files."""
        return sum(len((PACKAGE / each).read_bytes().splitlines()) for each in self.files)


class Tracer:
    """Follows the calls of this process, on this thread and on those started meanwhile."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self._root = f"{PACKAGE}{os.sep}"

    def __enter__(self) -> Tracer:
        threading.setprofile(self._follow)
        sys.setprofile(self._follow)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _follow(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        # Bodies of modules and classes have no local names of their own.
        if event == "call" and code.co_flags & inspect.CO_NEWLOCALS:
            path = code.co_filename
            if path.startswith(self._root):
                name = path[len(self._root) :]
                if not self.entered or self.entered[-1] != name:
                    self.entered.append(name)


def main(folder: Path) -> None:
    """Print all walks."""
    print(f"{'walk':22} {'files':>5} {'lines':>6} {'moves':>6}")
    _commands(folder)
    _deploy(folder)
    _score(folder)


def _show(name: str, walk: Walk) -> None:
    print(f"{name:22} {len(walk.files):5} {walk.lines:6} {len(walk.entered):6}")
    if os.environ.get("WALK_FILES"):
        print("".join(f"    {path}\n" for path in walk.files), end="")


def _walk(args: Iterable[str]) -> Walk:
    """Run ``mlpack`` with ``args`` in a new process and follow it."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.walks", *args],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"mlpack {' '.join(args)} failed:\n{done.stderr}")
    return Walk(tuple(json.loads(done.stdout.splitlines()[-1])))


def _commands(folder: Path) -> None:
    from tests.azure.fleet_project import fleet_project
    from tests.support import make_project, run, tiny_onnx

    project = make_project(folder / "build")
    tiny_onnx(project.root / "fan.onnx")
    at = ("-C", str(project.root))
    done = run(*at, "register", "fan.onnx")
    if done.exit_code:
        raise SystemExit(done.output)
    _show("build fan", _walk([*at, "build", "fan"]))
    _show("models", _walk([*at, "models"]))
    fleet = fleet_project(folder / "render")
    _show("render fan", _walk(["-C", str(fleet.root), "render", "fan"]))


def _deploy(folder: Path) -> None:
    from tests.azure.rollouts import GROUP, operator

    (folder / "deploy").mkdir()
    go = ("--stages", "50%,100%", "--wait", "--yes")
    with operator(folder / "deploy", 20, releases=2) as vans:
        vans.done("deploy", *GROUP, "--base", "--yes")
        vans.done("deploy", "fan:1", *GROUP, *go)
        with Tracer() as tracer:
            vans.done("deploy", "fan:2", *GROUP, *go)
        _show("deploy, three steps", Walk(tuple(tracer.entered)))


def _score(folder: Path) -> None:
    from mlpack.runtime.http.app import application
    from tests.runtime.support import FAN, release, started

    (folder / "score").mkdir()
    with Tracer() as tracer, started(release(folder / "score", FAN)) as module:
        app: Callable[..., object] = application(module)
        for _ in range(2):  # what only the first request does is left out
            tracer.entered.clear()
            asyncio.run(_post(app))
        walk = Walk(tuple(tracer.entered))
    _show("one POST /score", walk)


async def _post(application: Callable[..., object]) -> None:
    body, statuses = b'{"params": [600, 40, 150]}', []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/score",
        "raw_path": b"/score",
        "query_string": b"",
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("module", 80),
        "client": ("127.0.0.1", 1),
        "root_path": "",
    }
    await application(scope, receive, send)  # type: ignore[misc]
    if statuses != [200]:
        raise SystemExit(f"/score answered {statuses}")


def _follow_command(args: list[str]) -> int:
    """Run the command in this process; print what it entered as the last line."""
    sys.argv = ["mlpack", *args]
    status = 0
    with Tracer() as tracer:
        from mlpack.cli.main import main as command

        try:
            command()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
    print(f"\n{json.dumps(tracer.entered)}")
    return status


if __name__ == "__main__":
    sys.exit(_follow_command(sys.argv[1:]))
