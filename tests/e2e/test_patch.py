"""Packed and patch releases in real engines: what they fetch, and that they score as the model."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from mlpack.api.plan import find_update
from mlpack.plan.engines import Link
from mlpack.plan.transfer import PullDiff, diff_pull
from mlpack.project.directory import ProjectDirectory
from mlpack.project.references import find_image
from tests.e2e.conftest import scratch
from tests.e2e.engines import Containerd, Docker, Podman, run
from tests.e2e.situations import LATENCY, RULES
from tests.e2e.test_container import Service
from tests.e2e.wire import Count, CountingProxy, DockerRegistry
from tests.support import dense_onnx, free_port
from tests.support import run as mlpack

pytestmark = pytest.mark.e2e

log = logging.getLogger(__name__)
"""The measured figures: pytest --log-cli-level=INFO shows them."""

Device = Docker | Containerd | Podman
REPOSITORY = "edge/tuned"
WIDTH = 512
"""A model of 1 MB."""

ROWS = [[0.1, 0.2, 0.3, 0.4], [1, -1, 2, -2], [0, 0, 0, 1]]


@dataclass(frozen=True)
class Place:
    """A registry with an anchor and patch releases on it, behind a proxy that counts.

    The anchor of ``tuned`` is packed, that of ``plain`` has its model as it is.
    """

    project: ProjectDirectory
    registry: DockerRegistry
    proxy: CountingProxy
    models: Path

    def reference(self, version: int, name: str = "tuned") -> str:
        """The release as a device names it."""
        digest = find_image(self.project, f"{name}:{version}").target.digest
        return f"127.0.0.1:{self.proxy.port}/{REPOSITORY}@{digest}"

    def planned(self, rule: str, old: str, version: int, connections: int) -> PullDiff:
        """What mlpack predicts for a device on ``old``."""
        update = find_update(self.project, old, find_image(self.project, f"tuned:{version}"))
        link = Link(
            tls="none",
            registry=f"127.0.0.1:{self.proxy.port}",
            repository=REPOSITORY,
            connections=connections,
        )
        return diff_pull(rule, old, f"tuned:{version}", replace(update.pull, link=link))

    def pull(self, device: Device, old: str, version: int) -> tuple[Count, PullDiff]:
        """Pull a release onto a device that holds ``old``; what it took, and what was planned."""
        self.proxy.take()
        device.pull(self.reference(version))
        count = self.proxy.take()
        planned = self.planned(RULES[device.name], old, version, count.connections)
        log.info(
            "%s: %s to tuned:%d: %d bytes measured, %d planned, of which layers %d",
            *(device.name, old, version, count.total, planned.transfer.total),
            planned.transfer.layers,
        )
        return count, planned

    def expected(self, version: int) -> list[list[float]]:
        """What onnxruntime itself says of the registered file."""
        session = onnxruntime.InferenceSession(str(self.models / f"{version}.onnx"))
        found: list[list[float]] = session.run(None, {"x": np.asarray(ROWS, np.float32)})[
            0
        ].tolist()
        return found


@pytest.fixture(scope="module")
def place(
    real_project: ProjectDirectory, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    models = tmp_path_factory.mktemp("tuned")
    root = str(real_project.root)
    with scratch() as folder, DockerRegistry.started(folder / "registry") as registry:
        for version, tuned in ((1, 0), (2, 1), (3, 2)):
            model = dense_onnx(models / f"{version}.onnx", tuned=tuned, width=WIDTH)
            shutil.copyfile(model, models / "model.onnx")
            for name, strategy in (
                ("tuned", "auto"),
                ("plain", "layer" if version == 1 else "auto"),
            ):
                for command in (
                    ["register", str(models / "model.onnx"), "--name", name],
                    ["build", name, "--strategy", strategy],
                    ["push", name, "--to", f"127.0.0.1:{registry.port}/{REPOSITORY}"],
                ):
                    done = mlpack("-C", root, *command)
                    assert done.exit_code == 0, done.output
        with CountingProxy.started(registry.port, delay=LATENCY) as proxy:
            yield Place(real_project, registry, proxy, models)


@contextmanager
def new_device(name: str) -> Iterator[Device]:
    """An engine that holds nothing."""
    with scratch() as folder, ExitStack() as stack:
        started: Device
        if name == "docker":
            started = stack.enter_context(Docker.started(folder / name))
        elif name == "podman":
            started = stack.enter_context(Podman.started(folder / name))
        else:
            started = stack.enter_context(Containerd.started(folder / name))
        yield started


@pytest.fixture(params=list(RULES))
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """Each engine in turn, empty."""
    with new_device(request.param) as started:
        yield started


def test_a_device_on_the_anchor_fetches_the_patch_alone(place: Place, device: Device) -> None:
    anchor, patch = (find_image(place.project, f"tuned:{n}").image for n in (1, 2))
    assert patch.layers[-1].size < 0.7 * anchor.layers[-1].size
    plain = find_image(place.project, "plain:1").image
    assert anchor.layers[-1].size < 0.92 * plain.layers[-1].size
    count, planned = place.pull(device, "none", 1)
    assert planned.transfer.layers == sum(each.size for each in anchor.layers)
    assert count.total == planned.transfer.total
    assert_scores(place, device, 1)
    count, planned = place.pull(device, "tuned:1", 2)
    assert planned.transfer.layers == patch.layers[-1].size
    assert count.total == planned.transfer.total
    # From one patch to a later one, too: both stand on the anchor, not on each other.
    count, planned = place.pull(device, "tuned:2", 3)
    assert [each.action for each in planned.steps] == ["reuse"] * 5 + ["fetch"]
    assert count.total == planned.transfer.total
    for version in (2, 3):
        assert_scores(place, device, version)


def test_an_empty_device_fetches_anchor_and_patch(place: Place, device: Device) -> None:
    image = find_image(place.project, "tuned:2").image
    count, planned = place.pull(device, "none", 2)
    assert planned.transfer.layers == sum(each.size for each in image.layers)
    assert count.total == planned.transfer.total
    assert_scores(place, device, 2)


def answers(service: Service) -> list[list[float]]:
    """What the release says of the rows, as the float32 that was meant: JSON has fewer digits."""
    status, body = service.request("/score", json.dumps({"data": ROWS}).encode())
    assert status == 200, body
    found: list[list[float]] = np.asarray(json.loads(body)["result"], np.float32).tolist()
    return found


def test_a_patch_on_an_anchor_that_is_not_packed(place: Place, docker: Docker) -> None:
    docker.pull(place.reference(2, "plain"))
    assert_scores(place, docker, 2, "plain")


def assert_scores(place: Place, device: Device, version: int, name: str = "tuned") -> None:
    """Start it as on a device (no root, nothing writable but /tmp), and compare its answers."""
    service = Service(device, place.reference(version, name))
    try:
        service.wait()
        assert answers(service) == place.expected(version)
        said = device.logs(service.container)
        size = (place.models / f"{version}.onnx").stat().st_size
        assert f"rebuilding {size} bytes in /tmp/mlpack-model-" in said
    finally:
        device.stop(service.container)


def rebuilt(place: Place, docker: Docker, options: list[str]) -> str:
    """Start the patch release once more; what it says."""
    name = place.reference(2)
    service = Service(docker, name, ["MLPACK_MODEL_CACHE=/cache"], options)
    try:
        service.wait()
        assert answers(service) == place.expected(2)
        return docker.logs(service.container)
    finally:
        docker.stop(service.container)


def test_a_volume_keeps_the_model(place: Place, docker: Docker) -> None:
    place.pull(docker, "none", 2)
    with scratch() as folder:
        folder.chmod(0o755)
        cache = folder / "cache"
        cache.mkdir()
        os.chown(cache, 65532, 65532)
        volume = ["-v", f"{cache}:/cache"]
        assert "rebuilding " in rebuilt(place, docker, volume)
        [kept] = [each for each in cache.rglob("*") if each.is_file()]
        assert kept.read_bytes() == (place.models / "2.onnx").read_bytes()
        assert "checking " in rebuilt(place, docker, volume)
        damaged = bytearray(kept.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        kept.write_bytes(damaged)
        said = rebuilt(place, docker, volume)
        assert "is damaged" in said
        assert "rebuilding " in said
        assert kept.read_bytes() == (place.models / "2.onnx").read_bytes()
        # Kept, it can be read where it cannot be written.
        assert "checking " in rebuilt(place, docker, ["-v", f"{cache}:/cache:ro"])


def test_a_volume_that_cannot_be_written_is_passed_over(place: Place, docker: Docker) -> None:
    place.pull(docker, "none", 2)
    with scratch() as folder:
        folder.chmod(0o755)
        said = rebuilt(place, docker, ["-v", f"{folder}:/cache"])
    assert "MLPACK_MODEL_CACHE=/cache cannot be used (Permission denied)" in said
    assert "in /tmp/mlpack-model-" in said


@pytest.mark.parametrize(
    ("model", "folder", "file"),
    [
        ("plain", "azureml-models", "azureml-models/plain/1/model.onnx"),
        ("tuned", "mlpack", "mlpack/patch.mlpd"),
    ],
)
def test_a_patch_whose_anchor_is_hidden_ends_with_one_line(
    model: str, folder: str, file: str, place: Place, docker: Docker
) -> None:
    name = place.reference(2, model)
    docker.pull(name)
    with scratch() as empty:
        hidden = ["-v", f"{empty}:/var/azureml-app/{folder}:ro"]
        container = docker.start(name, [f"MLPACK_PORT={free_port()}"], hidden)
        status = run(*docker.command("wait", container))
        said = docker.logs(container)
        run(*docker.command("rm", container))
    assert status == "1"
    [line] = said.splitlines()
    assert f"{file} cannot be read" in json.loads(line)["message"]


def test_a_bundle_carries_the_patch_alone(place: Place, docker: Docker, tmp_path: Path) -> None:
    place.pull(docker, "none", 1)
    root, file = str(place.project.root), str(tmp_path / "patch.tar")
    made = [
        "bundle",
        "make",
        "tuned:3",
        "--onto",
        "tuned:1",
        "-o",
        file,
        "--name",
        "mlpack.test/t:3",
    ]
    done = mlpack("-C", root, "--json", *made, "--engine", "moby")
    assert done.exit_code == 0, done.output
    assert [each["carried"] for each in json.loads(done.stdout)["layers"]] == [False] * 5 + [True]
    docker.take(Path(file))
    service = Service(docker, "mlpack.test/t:3")
    try:
        service.wait()
        assert answers(service) == place.expected(3)
    finally:
        docker.stop(service.container)
