"""An operator at a simulated hub: commands run here, by the hub's own clock."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlpack.api.session import Clock
from mlpack.project.directory import ProjectDirectory
from tests.azure.fleet_project import fleet_project
from tests.doubles.iothub import IotHub
from tests.doubles.iothub_devices import Behave, Pull
from tests.e2e.wire import local_certificate
from tests.support import run

GROUP = ("--device-group", "vans")
GO = (*GROUP, "--wait", "--yes")


@dataclass(frozen=True)
class Operator:
    """Someone with a project, a hub and its key."""

    project: ProjectDirectory
    hub: IotHub
    clock: Clock

    def __call__(self, *args: str) -> Any:  # noqa: ANN401  # click's Result
        """Run a command."""
        return run("-C", str(self.project.root), *args, clock=self.clock)

    def done(self, *args: str) -> str:
        """Run a command that must succeed; return all it says."""
        result = self(*args)
        assert result.exit_code == 0, result.output
        return str(result.output)

    def document(self, *args: str) -> Any:  # noqa: ANN401  # a JSON document
        """What a command prints with ``--json``."""
        result = self(*args, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def environment(self) -> dict[str, str]:
        """What another process needs to reach the hub."""
        return {
            "MLPACK_IOTHUB_CONNECTION_STRING": self.hub.access.connection_string(),
            "MLPACK_AZURE_CA": self.hub.ca,
        }

    def holding(self, version: int) -> int:
        """How many devices run a version, as the devices themselves know."""
        digest = str(self.project.layout.resolve(f"fan-{version}").digest)
        return sum(each.image.get("fan", "").endswith(digest) for each in self.hub.devices.values())

    def labels(self) -> Mapping[str, Mapping[str, str]]:
        """The labels of every deployment, without moments."""
        found = {}
        for id, each in self.hub.configurations.items():
            labels = each.document.get("labels")
            assert isinstance(labels, dict)
            found[id] = {
                key: value
                for key, value in labels.items()
                if key not in {"mlpack.started", "mlpack.since"}
            }
        return found


@contextmanager
def operator(
    folder: Path, devices: int, *, settings: str = "", releases: int = 2
) -> Iterator[Operator]:
    """A hub with so many vans, and a project of some releases; none is deployed yet."""
    project = fleet_project(
        folder, releases=releases, **({"settings": settings} if settings else {})
    )
    hub = IotHub()
    hub.add_devices(devices, lambda _: {"deviceGroup": "vans"})
    with hub.started(local_certificate()), pytest.MonkeyPatch.context() as patch:
        made = Operator(project, hub, Clock(lambda: hub.now.replace(microsecond=0), hub.advance))
        for name, value in made.environment().items():
            patch.setenv(name, value)
        yield made


def failing(project: ProjectDirectory, version: int, percent: int) -> Behave:
    """A release that some devices cannot run: most crash, some cannot fetch it."""
    digest = str(project.layout.resolve(f"fan-{version}").digest)

    def behave(device: str, images: Mapping[str, str]) -> Pull:
        number = int.from_bytes(hashlib.sha256(f"luck {device}".encode()).digest()[:4], "big")
        if not any(image.endswith(digest) for image in images.values()):
            return Pull()
        if number % 100 >= percent:
            return Pull()
        if number % 5 == 0:
            return Pull(error="failed to register layer: no space left on device")
        return Pull(status="backoff")

    return behave


def silent(number: Callable[[str], bool]) -> Behave:
    """Devices that are never heard of again once they are given something."""
    return lambda device, images: Pull(silent=number(device))
