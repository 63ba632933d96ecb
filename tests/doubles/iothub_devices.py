"""Simulated IoT Edge devices: their twins, and an edgeAgent that reports as the real one does.

What edgeAgent 1.6 does (Azure/iotedge, edge-agent): it carries out its plan, then reports the
version it was for and a status: 200, or 500 with the text of what failed, after which it tries
again, each time twice as long after. A pull that is longer than it waits (300 s unless
``ManagementApiTimeoutSecs`` says otherwise) is reported as 500 "The operation was canceled."
while the pull goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tests.doubles.iothub_query import get

CANCELED = "The operation was canceled."
PATIENCE_SECONDS = 300.0
FIRST_BACKOFF_SECONDS, MOST_TRIES = 10.0, 20
NEVER = "0001-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """How a device fares with images it is given."""

    seconds: float = 20.0
    """How long it takes to fetch and start them, or to fail."""

    error: str = ""
    """What failed, as edgeAgent would report it; empty where nothing did."""

    status: str = "running"
    """What the new modules' ``runtimeStatus`` is then: ``backoff`` where they crash."""

    silent: bool = False
    """Whether nothing is heard of the device any more."""


Behave = Callable[[str, Mapping[str, str]], Pull]
"""Device id and new images by module, to how it goes; may really pull."""

Schedule = Callable[[float, Callable[[], None]], None]
"""Seconds from now, and what happens then."""


@dataclass(slots=True, eq=False)
class Device:
    """A device: its twins are the documents queries are run over."""

    id: str
    twin: dict[str, object]
    agent: dict[str, object]
    """The module twin of ``$edgeAgent``."""

    edge_hub: dict[str, object]
    running: dict[str, object] = field(default_factory=dict)
    """What it runs, by module: the part of the desired properties it was made of."""

    applied: tuple[str, ...] = ()
    """The deployments its desired properties are made of."""

    edge: bool = True

    @property
    def desired(self) -> Mapping[str, object]:
        """What edgeAgent is to do."""
        found = get(self.agent, ("properties", "desired"))
        assert isinstance(found, dict)
        return found

    @property
    def image(self) -> Mapping[str, str]:
        """Images it runs, by module."""
        return {name: _image(spec) for name, spec in self.running.items()}

    def desire(self, part: str, content: Mapping[str, object]) -> bool:
        """Give ``$edgeAgent`` or ``$edgeHub`` other desired properties; whether they are others."""
        twin = self.agent if part == "$edgeAgent" else self.edge_hub
        before = get(twin, ("properties", "desired"))
        assert isinstance(before, dict)
        same = {key: value for key, value in before.items() if key not in _OWN}
        if same == content:
            return False
        properties = twin["properties"]
        assert isinstance(properties, dict)
        properties["desired"] = {
            **content,
            "$metadata": before["$metadata"],
            "$version": before["$version"] + 1,
        }
        return True

    def report(self, when: str, changes: Mapping[str, object]) -> None:
        """Merge into the reported properties of edgeAgent."""
        properties = self.agent["properties"]
        assert isinstance(properties, dict)
        reported = properties["reported"]
        properties["reported"] = {
            **reported,
            **changes,
            "$version": reported["$version"] + 1,
        }
        for twin in (self.twin, self.agent):
            twin["lastActivityTime"], twin["connectionState"] = when, "Connected"


_OWN = frozenset({"$version", "$metadata"})


def new_device(
    id: str, tags: Mapping[str, object], reported: Mapping[str, object], now: str, *, edge: bool
) -> Device:
    """A device that was just registered and has never been heard of."""
    return Device(
        id=id,
        twin={
            **_twin(id, now, {**reported, "$version": 1}),
            "tags": dict(tags),
            "capabilities": {"iotEdge": edge},
        },
        agent={**_twin(id, now, {"$version": 1}), "moduleId": "$edgeAgent", "configurations": {}},
        edge_hub={**_twin(id, now, {"$version": 1}), "moduleId": "$edgeHub"},
        edge=edge,
    )


def _twin(id: str, now: str, reported: Mapping[str, object]) -> dict[str, object]:
    metadata = {"$lastUpdated": now}
    return {
        "deviceId": id,
        "etag": "AAAAAAAAAAE=",
        "deviceEtag": "MQ==",
        "status": "enabled",
        "statusUpdateTime": NEVER,
        "connectionState": "Disconnected",
        "lastActivityTime": NEVER,
        "cloudToDeviceMessageCount": 0,
        "authenticationType": "sas",
        "version": 2,
        "properties": {
            "desired": {"$metadata": metadata, "$version": 1},
            "reported": {"$metadata": metadata, **reported},
        },
    }


@dataclass(frozen=True, slots=True)
class EdgeAgent:
    """Works off what devices are to do; time is the hub's."""

    behave: Behave
    schedule: Schedule
    now: Callable[[], datetime]

    def start(self, device: Device, tries: int = 0) -> None:
        """Begin with the desired properties the device has now."""
        version = device.desired["$version"]
        wanted = device.desired.get("modules", {})
        assert isinstance(wanted, dict)
        new = {
            name: _image(spec) for name, spec in wanted.items() if device.running.get(name) != spec
        }
        pull = self.behave(device.id, new) if new else Pull(seconds=5)
        if pull.silent:
            return

        def later(seconds: float, action: Callable[[], None]) -> None:
            """Do ``action`` then, unless the device is to do something else by that time."""
            self.schedule(
                seconds, lambda: action() if device.desired["$version"] == version else None
            )

        def end() -> None:
            if not pull.error:
                self._succeed(device, wanted, new, pull.status)
                return
            self._say(device, 500, pull.error)
            if tries + 1 < MOST_TRIES:
                later(FIRST_BACKOFF_SECONDS * 2**tries, lambda: self.start(device, tries + 1))

        if pull.seconds > (patience := _patience(device)):
            later(patience, lambda: self._say(device, 500, CANCELED))
        later(pull.seconds, end)

    def _succeed(
        self,
        device: Device,
        wanted: Mapping[str, object],
        new: Mapping[str, str],
        status: str,
    ) -> None:
        before = get(device.agent, ("properties", "reported", "modules"))
        known = before if isinstance(before, dict) else {}
        device.running = dict(wanted)
        modules = {
            name: _reported(spec, self._time(), status) if name in new else known[name]
            for name, spec in wanted.items()
        }
        self._say(device, 200, "", modules=modules)

    def _say(self, device: Device, code: int, text: str, **more: object) -> None:
        status: dict[str, object] = {"code": code}
        if text:
            status["description"] = text
        changes = {
            "schemaVersion": "1.1",
            "version": {"version": "1.6.1"},
            "lastDesiredVersion": device.desired["$version"],
            "lastDesiredStatus": status,
            "runtime": {
                "type": "docker",
                "platform": {"os": "linux", "architecture": "aarch64", "version": "1.6.1"},
            },
            **more,
        }
        device.report(self._time(), changes)

    def _time(self) -> str:
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")


def _image(spec: object) -> str:
    return str(get(spec, ("settings", "image")) or "")


def _patience(device: Device) -> float:
    path = ("systemModules", "edgeAgent", "env", "ManagementApiTimeoutSecs", "value")
    found = get(device.desired, path)
    return float(found) if isinstance(found, int | float | str) else PATIENCE_SECONDS


def _reported(spec: object, when: str, status: str) -> dict[str, object]:
    """A module as edgeAgent reports it: what it was told, and how it is."""
    told = dict(spec) if isinstance(spec, dict) else {}
    failed = status != "running"
    return {
        **told,
        "exitCode": 1 if failed else 0,
        "statusDescription": "Failed (1)" if failed else "running",
        "lastStartTimeUtc": when,
        "lastExitTimeUtc": when if failed else NEVER,
        "restartCount": 3 if failed else 0,
        "lastRestartTimeUtc": when if failed else NEVER,
        "runtimeStatus": status,
    }


def stamp(moment: datetime) -> str:
    """A moment as the service writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f0Z")
