"""Some devices of the simulated hub really pull what a deployment names, through Docker."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from mlpack.azure.hub_client import Connection
from mlpack.rollout.decide import HubDeployment
from mlpack.rollout.hub import IotHub as Hub
from tests.doubles.iothub import IotHub
from tests.doubles.iothub_devices import Pull
from tests.e2e.engines import Docker, run
from tests.e2e.wire import DockerRegistry, local_certificate
from tests.support import make_project

pytestmark = pytest.mark.e2e

REAL = frozenset({"van-00000", "van-00001"})
AGENT = {"schemaVersion": "1.1", "runtime": {}, "systemModules": {}, "modules": {}}


def deployment(id: str, priority: int, agent: Mapping[str, object]) -> HubDeployment:
    return HubDeployment(
        id=id, content={"$edgeAgent": agent}, condition="tags.a = 1", priority=priority
    )


def fan(image: str) -> Mapping[str, object]:
    return {"properties.desired.modules.fan": {"settings": {"image": image}}}


def test_devices_that_pull_through_docker(tmp_path: Path, docker: Docker) -> None:
    project = make_project(tmp_path / "fan")

    def behave(device: str, images: Mapping[str, str]) -> Pull:
        for image in images.values() if device in REAL else ():
            done = subprocess.run(
                docker.command("pull", "-q", image), capture_output=True, text=True, check=False
            )
            if done.returncode:
                return Pull(error=f"Failed to pull image {image}: {done.stderr.strip()}")
        return Pull()

    double = IotHub(behave=behave)
    double.add_devices(100, lambda n: {"a": 1})
    with (
        DockerRegistry.started(tmp_path / "registry") as registry,
        double.started(local_certificate()),
        Hub(Connection.of(double.access.connection_string(), ca=double.ca)) as hub,
    ):
        name = f"127.0.0.1:{registry.port}/edge/fan"
        source, target = f"oci:{project.layout.root}:base", f"docker://{name}:1"
        run("skopeo", "copy", "-q", "--all", "--dest-tls-verify=false", source, target)
        good = f"{name}@{project.layout.resolve('base').digest}"
        bad = f"{name}@sha256:{'0' * 64}"
        hub.create(deployment("base", 1, {"properties.desired": AGENT}))
        hub.create(deployment("good", 2, fan(good)))
        double.advance(300)
        assert hub.configuration("good").results["reportedSuccessfulCount"] == 100
        assert good in run(*docker.command("image", "inspect", "-f", "{{.RepoDigests}}", good))
        hub.create(deployment("bad", 3, fan(bad)))
        double.advance(300)
        results = hub.configuration("bad").results
        assert (results["reportedSuccessfulCount"], results["reportedFailedCount"]) == (98, 2)
        failed = hub.query(
            "SELECT deviceId, properties.reported.lastDesiredStatus AS said FROM devices.modules "
            "WHERE properties.reported.lastDesiredStatus.code = 500"
        )
        said = {str(each["deviceId"]): str(each["said"]) for each in failed}
        assert set(said) == REAL
        assert all("manifest unknown" in each for each in said.values())
        docker.remove(good)
