"""Engines pull from ``mlpack registry serve``, and tools push to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from mlpack.plan.engines import DeviceState, Link, engine
from mlpack.plan.transfer import transfer
from mlpack.project.directory import ProjectDirectory
from mlpack.project.references import releases
from mlpack.stores.integrity import validate
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import read_index, select_image
from tests.cli.test_registry import serving
from tests.e2e.conftest import scratch
from tests.e2e.engines import Containerd, Docker, Podman, needs, run
from tests.e2e.situations import LATENCY, RULES
from tests.e2e.wire import Certificate, CountingProxy
from tests.support import AMD64, make_project, tiny_onnx
from tests.support import run as mlpack

pytestmark = pytest.mark.e2e

Device = Docker | Containerd | Podman
LOGIN = "edge:a password"


class Served(NamedTuple):
    """A project with fan:1 and fan:2, and where it is served."""

    project: ProjectDirectory
    plain: CountingProxy
    tls: str
    certificate: Certificate


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Served on plain HTTP, and on TLS to one user."""
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        project = make_project(folder / "project")
        for bias in (1.0, 2.0):
            model = tiny_onnx(folder / "model.onnx", bias=bias)
            for command in (["register", str(model)], ["build", "fan"]):
                assert mlpack("-C", str(project.root), *command).exit_code == 0
        certificate = Certificate.made(folder / "certificates")
        (folder / "password").write_text(LOGIN.partition(":")[2])
        login = ["--user", "edge", "--password-file", str(folder / "password")]
        keys = ["--certificate", str(certificate.chain), "--key", str(certificate.key)]
        store = ["--store", str(project.layout.root)]
        plain, _ = stack.enter_context(serving(*store))
        tls, _ = stack.enter_context(serving(*store, *login, *keys))
        port = int(plain["address"].rpartition(":")[2])
        proxy = stack.enter_context(CountingProxy.started(port, delay=LATENCY))
        yield Served(project, proxy, tls["address"], certificate)


@pytest.fixture(params=["docker", "containerd", "podman"])
def device(request: pytest.FixtureRequest) -> Device:
    """Each engine in turn."""
    started: Device = request.getfixturevalue(request.param)
    return started


def test_an_update_from_it_is_one_layer_and_weighs_about_what_was_predicted(
    served: Served, device: Device
) -> None:
    layout = served.project.layout
    found = releases(layout, "fan")
    where = f"127.0.0.1:{served.plain.port}/fan"
    device.pull(f"{where}:1")
    served.plain.take()
    device.pull(f"{where}:2")
    counted = served.plain.take()
    old, new = (select_image(layout, found[version], AMD64) for version in ("1", "2"))
    rule = engine(RULES[device.name])
    planned = transfer(
        rule,
        new,
        read_index(layout, found["2"]),
        DeviceState.holding(old, indexes=[read_index(layout, found["1"])]),
        Link(tls="none", by_digest=False, tag_bytes=1, registry=where[:-4], repository="fan"),
    )
    # Its answers have shorter headers than docker-registry's, which the plan knows.
    assert 0 <= planned.total - counted.total <= 200 * planned.requests
    assert counted.total < 12_000


def test_a_release_by_its_tag_and_one_by_digest_over_tls_with_a_password(
    served: Served, device: Device
) -> None:
    digest = releases(served.project.layout, "fan")["1"].digest
    for name in ("fan:2", f"fan@{digest}"):
        device.pull(f"{served.tls}/{name}", ca=served.certificate.ca, login=LOGIN)


def test_without_the_password_nothing_is_pulled(served: Served, podman: Podman) -> None:
    with pytest.raises(AssertionError, match=r"unauthorized|authentication required"):
        podman.pull(f"{served.tls}/fan:1", ca=served.certificate.ca)


def test_what_engines_and_tools_push_is_there(
    served: Served, docker: Docker, podman: Podman, tmp_path: Path
) -> None:
    needs("skopeo")
    source = served.project.layout.root
    with serving("--store", str(tmp_path / "images")) as (answer, _):
        at = answer["address"]
        for device, name in ((docker, "from-docker"), (podman, "from-podman")):
            device.load(f"oci:{source}:fan-1", f"{at}/{name}:1")
            trust = ["--tls-verify=false"] if device is podman else []
            run(*device.command("push", "-q", *trust, f"{at}/{name}:1"))
        there = f"docker://{at}/fan:1"
        options = ["-q", "--all", "--preserve-digests", "--dest-tls-verify=false"]
        run("skopeo", "copy", *options, f"oci:{source}:fan-1", there)
        back = ["-q", "--all", "--preserve-digests", "--src-tls-verify=false"]
        run("skopeo", "copy", *back, there, f"oci:{tmp_path / 'back'}:fan")
    layout = LayoutStore(tmp_path / "images")
    assert list(layout.tags()) == ["fan-1", "from-docker/1", "from-podman/1"]
    assert validate(layout) == ()
    assert layout.resolve("fan-1") == releases(served.project.layout, "fan")["1"]
    assert LayoutStore(tmp_path / "back").resolve("fan") == layout.resolve("fan-1")
