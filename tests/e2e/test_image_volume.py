"""The base with a release mounted into it, as a pod with an image volume runs it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from mlpack.project.directory import ProjectDirectory
from tests.e2e.engines import Podman, run
from tests.support import free_port, tiny_onnx
from tests.support import run as mlpack

pytestmark = pytest.mark.e2e

START_SECONDS = 60


def test_a_mounted_release_scores_on_the_base(
    real_project: ProjectDirectory, podman: Podman, tmp_path: Path
) -> None:
    root = str(real_project.root)
    model = tiny_onnx(tmp_path / "model.onnx", bias=0.5)
    place = "registry.example.com/edge"
    for command in (["register", str(model), "--name", "mounted"], ["build", "mounted"]):
        assert mlpack("-C", root, *command).exit_code == 0
    rendered = mlpack(
        *("-C", root, "render", "mounted", "--target", "kubernetes"),
        *("--repository", f"{place}/mounted", "--image-volume", f"{place}/base"),
    )
    assert rendered.exit_code == 0, rendered.output
    deployment = list(yaml.safe_load_all(rendered.stdout))[-1]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    [mount] = [each for each in container["volumeMounts"] if each["name"] == "release"]
    podman.load(f"oci:{real_project.layout.root}:base", "mlpack.test/base:1")
    podman.load(f"oci:{real_project.layout.root}:mounted-1", "mlpack.test/mounted:1")
    port = free_port()
    env = [f"{each['name']}={each['value']}" for each in container["env"]]
    started = run(
        *podman.command("run", "-d", "--network", "host", "--read-only", "--cap-drop", "all"),
        *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"),
        "--mount",
        f"type=image,source=mlpack.test/mounted:1,destination={mount['mountPath']},rw=false",
        *(part for each in [*env, f"MLPACK_PORT={port}"] for part in ("-e", each)),
        "mlpack.test/base:1",
    )
    try:
        answer = score(f"http://127.0.0.1:{port}/score", podman, started)
        assert answer == {"result": [[20.5]]}
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready") as ready:
            assert ready.status == 200
    finally:
        podman.stop(started)


def score(url: str, podman: Podman, container: str) -> object:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, b'{"data": [[1, 2, 3, 4]]}', timeout=30) as answer:
                found: object = json.loads(answer.read())
                return found
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < deadline, podman.logs(container)
            time.sleep(0.1)
