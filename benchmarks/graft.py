"""The origin story: a 6 KB model below 60 MB of packages that each build makes again.

Version 2 is built by Docker as it is usually done, and pulled by a device on version 1,
compared with ``mlpack graft`` of the same two images. All bytes on the wire count, plain HTTP.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.e2e.conftest import scratch
from tests.e2e.engines import Containerd, Docker, Engine, Podman, run
from tests.e2e.situations import RULES
from tests.e2e.test_graft import DOCKERFILE, install
from tests.e2e.wire import CountingProxy, DockerRegistry

MODEL_BYTES = 6_000
RUNS = 3


def main(folder: Path) -> None:
    """Build twice, graft, and pull both ways with each engine."""
    with ExitStack() as stack:
        place = stack.enter_context(scratch())
        registry = stack.enter_context(DockerRegistry.started(folder / "registry"))
        devices: list[Engine] = [
            stack.enter_context(Docker.started(place / "docker")),
            stack.enter_context(Containerd.started(place / "containerd")),
            stack.enter_context(Podman.started(place / "podman")),
        ]
        builder = stack.enter_context(Docker.started(place / "builder"))
        there = f"127.0.0.1:{registry.port}/fan"
        _build(builder, folder, f"{there}:1", 1)
        usual = _build(builder, folder, f"{there}:2", 2)
        project = _project(folder / "project")
        _times(usual, project, there)
        proxy = stack.enter_context(CountingProxy.started(registry.port))
        print(f"\n{'a new model reaches a device, bytes':<36}", end="")
        print(f"{'usual build':>13}{'predicted':>13}{'graft':>9}{'predicted':>11}{'ratio':>9}")
        for device in devices:
            _row(device, proxy, project, there)


def _build(docker: Docker, folder: Path, name: str, seed: int) -> float:
    """The usual build and push; seconds of both, without the download of the packages."""
    context = folder / "context"
    shutil.rmtree(context, ignore_errors=True)
    (context / "etc").mkdir(parents=True)
    (context / "etc" / "os-release").write_text("NAME=edge\n")
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "model.onnx").write_bytes(random.Random(seed).randbytes(MODEL_BYTES))
    install(context / "packages")
    start = time.perf_counter()
    run(*docker.command("build", "-q", "--no-cache", "-t", name, str(context)))
    run(*docker.command("push", "-q", name))
    return time.perf_counter() - start


def _project(folder: Path) -> Path:
    """Settings that say what the devices' link is: plain HTTP."""
    folder.mkdir()
    (folder / "mlpack.toml").write_text('[model]\nname = "fan"\n\n[device]\ntls = "none"\n')
    return folder


def _times(usual: float, project: Path, there: str) -> None:
    took = []
    for turn in range(RUNS):
        start = time.perf_counter()
        _graft(project, there, f"{there}:2-graft{turn}")
        took.append(time.perf_counter() - start)
    print(
        f"\nmlpack graft, both images fetched, compared, checked, published: "
        f"{statistics.median(took):.1f} s ({min(took):.1f}-{max(took):.1f}); "
        f"docker build and push of version 2: {usual:.1f} s"
    )


def _row(device: Engine, proxy: CountingProxy, project: Path, there: str) -> None:
    planned = _graft(project, there, f"{there}:2-{device.name}", "--engine", RULES[device.name])
    here = f"127.0.0.1:{proxy.port}/fan"
    device.pull(f"{here}:1")
    proxy.take()
    measured = []
    # The graft first: after the usual build the device would hold the packages built again.
    for digest in (planned["digest"], planned["new"]):
        device.pull(f"{here}@{digest}")
        measured.append(proxy.take().total)
    grafted, whole = measured
    usual, small = (planned[each]["total"] for each in ("transfer_new", "transfer_graft"))
    print(
        f"{device.name:<36}{whole:>13,}{usual:>13,}{grafted:>9,}{small:>11,}"
        f"{whole / grafted:>8,.0f}x",
        flush=True,
    )


def _graft(project: Path, there: str, out: str, *more: str) -> dict[str, Any]:
    images: Sequence[str] = (f"{there}:1", f"{there}:2")
    command = [sys.executable, "-m", "mlpack", "-C", str(project), "--json", "graft", *images]
    command += ["-o", out, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"mlpack graft failed:\n{done.stderr}")
    (found,) = json.loads(done.stdout)["platforms"].values()
    answer: dict[str, Any] = found
    return answer
