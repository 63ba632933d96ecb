"""Predicted bytes compared with real pulls by Docker, containerd and podman."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.e2e.conftest import scratch
from tests.e2e.engines import Containerd, Docker, Engine, Podman
from tests.e2e.situations import REUSE, SITUATIONS, Measured, Range


def main(_: Path) -> None:
    """Pull in every situation, over plain HTTP and over TLS, and print a table."""
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        wire = stack.enter_context(Range.opened(folder / "wire"))
        devices: list[Engine] = [
            stack.enter_context(Docker.started(folder / "docker")),
            stack.enter_context(Containerd.started(folder / "containerd")),
            stack.enter_context(Podman.started(folder / "podman")),
        ]
        _head()
        for what, situation in {**SITUATIONS, **REUSE}.items():
            for tls in ("none", "ec-chain"):
                for device in devices:
                    _row(wire.measure(device, what, situation, tls))


def _head() -> None:
    print("\npredicted and measured bytes of a pull (20 ms; bodies are manifests, config, layers)")
    print(
        f"{'':<32}{'engine':<12}{'way':<10}{'bodies':>9}{'predicted':>11}"
        f"{'in all':>10}{'predicted':>11}{'error':>9}{'connections':>13}"
    )


def _row(found: Measured) -> None:
    way = "HTTP" if found.tls == "none" else "TLS 1.3"
    print(
        f"{found.what:<32}{found.engine:<12}{way:<10}{found.bodies:>9,}{found.planned.payload:>11,}"
        f"{found.count.total:>10,}{found.usual.total:>11,}"
        f"{found.usual.total / found.count.total - 1:>+9.2%}{found.count.connections:>13}",
        flush=True,
    )
