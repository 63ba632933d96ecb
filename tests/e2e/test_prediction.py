"""Predicted bytes against those of real pulls, counted by a proxy before docker-registry."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import scratch
from tests.e2e.engines import Containerd, Docker, Podman
from tests.e2e.situations import REUSE, SITUATIONS, Range

pytestmark = pytest.mark.e2e

Device = Docker | Containerd | Podman


@pytest.fixture(scope="module")
def wire() -> Iterator[Range]:
    """Registries and proxies for all pulls."""
    with scratch() as folder, Range.opened(folder) as opened:
        yield opened


@pytest.fixture(params=["docker", "containerd", "podman"])
def device(request: pytest.FixtureRequest) -> Device:
    """Each engine in turn."""
    started: Device = request.getfixturevalue(request.param)
    return started


@pytest.mark.parametrize("what", [*SITUATIONS, *REUSE])
def test_a_pull_over_plain_http_weighs_what_was_predicted(
    wire: Range, device: Device, what: str
) -> None:
    found = wire.measure(device, what, {**SITUATIONS, **REUSE}[what], "none")
    assert found.bodies == found.planned.payload, found
    assert found.count.total == found.planned.total, found


OVER_TLS = ("model update", "model update, by tag", "a patch on the last release", "nothing new")


@pytest.mark.parametrize("what", [*OVER_TLS, "model update, named registry", "another base"])
def test_a_pull_over_tls_weighs_what_was_predicted(wire: Range, device: Device, what: str) -> None:
    found = wire.measure(device, what, SITUATIONS[what], "ec-chain")
    assert found.bodies == found.planned.payload, found
    assert abs(found.error) <= 0.02, found
    # containerd may find a connection free that it was planned to open; never the other way.
    assert found.planned.total <= found.usual.total, found
