"""An IoT hub: its service REST API over HTTPS, with simulated devices and a clock of its own.

``hub = IotHub(); hub.add_devices(10_000, lambda n: {"deviceGroup": "vans"})``, then
``with hub.started(certificate):`` serve it; ``hub.advance(60)`` lets a minute pass for hub and
devices, which is the only way time passes for them. The API is in
:mod:`tests.doubles.iothub_rest`, the devices are in :mod:`tests.doubles.iothub_devices`.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tests.doubles.authority import served
from tests.doubles.iothub_access import Access
from tests.doubles.iothub_devices import Behave, Device, EdgeAgent, Pull, new_device, stamp
from tests.doubles.iothub_query import Document, Test, parse_condition, parse_query
from tests.doubles.iothub_rest import Rest
from tests.e2e.wire import Certificate

START = datetime(2026, 11, 20, 8, tzinfo=UTC)
LAYER = "properties.desired."


@dataclass
class Configuration:
    """One deployment; ``document`` is what was sent, and never changes in ``content``."""

    document: dict[str, object]
    created: datetime
    order: int
    test: Test
    version: int = 1
    updated: datetime = START
    results: Mapping[str, int] = field(default_factory=dict)
    system: Mapping[str, int] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.document["id"])

    @property
    def rank(self) -> tuple[int, int]:
        """The higher wins; of one priority the one that was created last."""
        priority = self.document.get("priority", 0)
        assert isinstance(priority, int)
        return priority, self.order

    @property
    def content(self) -> Mapping[str, Mapping[str, object]]:
        """``modulesContent``; empty where it is for devices that are not IoT Edge's."""
        content = self.document.get("content")
        found = content.get("modulesContent") if isinstance(content, dict) else None
        return found if isinstance(found, dict) else {}

    @property
    def whole(self) -> bool:
        """Whether it is a deployment of its own and not a layer on one."""
        return "properties.desired" in self.content.get("$edgeAgent", {})

    @property
    def queries(self) -> Mapping[str, str]:
        """Custom metrics."""
        metrics = self.document.get("metrics")
        found = metrics.get("queries") if isinstance(metrics, dict) else None
        return found if isinstance(found, dict) else {}

    def system_queries(self) -> dict[str, str]:
        """How the service counts by itself (Azure/azure-iot-pcs-remote-monitoring)."""
        applied = (
            "SELECT deviceId FROM devices.modules WHERE moduleId = '$edgeAgent' "
            f"AND configurations.[[{self.id}]].status = 'Applied'"
        )
        current = (
            f"{applied} AND properties.desired.$version = properties.reported.lastDesiredVersion"
        )
        code = "properties.reported.lastDesiredStatus.code"
        return {
            "appliedCount": applied,
            "reportedSuccessfulCount": f"{current} AND {code} = 200",
            "reportedFailedCount": f"{current} AND {code} != 200",
        }


class IotHub:
    """The hub's state and its clock."""

    def __init__(self, *, behave: Behave = lambda device, images: Pull()) -> None:
        self.access = Access()
        self.rest = Rest(self)
        self.now = START
        self.behave = behave
        """How devices fare with what they are given; may be set at any time."""
        self.metrics_lag_seconds = 300.0
        """How old counts may be; 0 counts at every look."""
        self.configurations: dict[str, Configuration] = {}
        self.devices: dict[str, Device] = {}
        self.certificate: Certificate | None = None
        self._lock = threading.RLock()
        self._events: list[tuple[datetime, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._stale = True
        self._counted = START
        self._made: dict[tuple[str, ...], Mapping[str, Mapping[str, object]]] = {}
        self._agent = EdgeAgent(
            behave=lambda device, images: self.behave(device, images),
            schedule=self._schedule,
            now=lambda: self.now,
        )

    @contextmanager
    def started(self, certificate: Certificate) -> Iterator[IotHub]:
        """Serve it on loopback."""
        self.certificate = certificate
        with served(self.rest.answer, certificate) as url:
            self.access.host = url.removeprefix("https://")
            yield self

    @property
    def host(self) -> str:
        """``localhost:PORT``."""
        return self.access.host

    @property
    def ca(self) -> str:
        """The file of the authority that vouches for it."""
        assert self.certificate is not None, "the hub was not started"
        return str(self.certificate.ca)

    def locked(self) -> threading.RLock:
        """What a request holds while it is answered."""
        return self._lock

    def add_devices(
        self, count: int, tags: Callable[[int], Mapping[str, object]], prefix: str = "van-"
    ) -> None:
        """Register ``count`` devices ``van-00000``…"""
        for number in range(count):
            self.add_device(f"{prefix}{number:05}", tags(number))

    def add_device(
        self,
        id: str,
        tags: Mapping[str, object] | None = None,
        *,
        reported: Mapping[str, object] | None = None,
        edge: bool = True,
    ) -> Device:
        """Register one; ``reported`` are its own reported properties, not those of edgeAgent."""
        with self._lock:
            device = new_device(id, tags or {}, reported or {}, stamp(self.now), edge=edge)
            self.devices[id] = device
            self._stale = True
        return device

    def advance(self, seconds: float) -> None:
        """Let time pass: deployments reach devices, devices pull and report, the hub counts."""
        with self._lock:
            end = self.now + timedelta(seconds=seconds)
            self.settle()
            while (moment := self._next(end)) is not None:
                self.now = moment
                while self._events and self._events[0][0] <= self.now:
                    heapq.heappop(self._events)[2]()
                self._count_if_due()
                self.settle()
            self.now = end

    def _next(self, end: datetime) -> datetime | None:
        """When something happens next, up to ``end``."""
        found = [self._events[0][0]] if self._events else []
        if self.metrics_lag_seconds:
            found.append(self._counted + timedelta(seconds=self.metrics_lag_seconds))
        return min((max(each, self.now) for each in found if each <= end), default=None)

    def _schedule(self, seconds: float, action: Callable[[], None]) -> None:
        when = self.now + timedelta(seconds=seconds)
        heapq.heappush(self._events, (when, next(self._numbers), action))

    def wake(self, id: str) -> None:
        """Let the edgeAgent of a silent device begin anew with what it is to do."""
        with self._lock:
            self._agent.start(self.devices[id])

    def changed(self) -> None:
        """Deployments or twins are others: who gets what is worked out again."""
        self._stale = True

    def settle(self) -> None:
        """Give every device the deployments that apply to it now."""
        if not self._stale:
            return
        self._stale = False
        self._made.clear()
        ranked = sorted(self.configurations.values(), key=lambda each: each.rank)
        edge = [each for each in ranked if each.content]
        for device in self.devices.values():
            if device.edge:
                self._settle(device, [each for each in edge if each.test(device.twin)])

    def _settle(self, device: Device, targeted: list[Configuration]) -> None:
        base = next((each for each in reversed(targeted) if each.whole), None)
        layers = [
            each for each in targeted if base and not each.whole and each.rank[0] > base.rank[0]
        ]
        applied = tuple(each.id for each in ([base, *layers] if base else []))
        device.agent["configurations"] = {
            each.id: {"status": "Applied" if each.id in applied else "Targeted"}
            for each in targeted
        }
        if base is None or applied == device.applied:
            # What no deployment applies to any more keeps its modules.
            device.applied = applied
            return
        device.applied = applied
        content = self._made.get(applied)
        if content is None:
            content = self._made[applied] = combined([base, *layers])
        device.desire("$edgeHub", content.get("$edgeHub", {}))
        if device.desire("$edgeAgent", content["$edgeAgent"]):
            self._agent.start(device)

    def apply(self, device: Device, content: Mapping[str, Mapping[str, object]]) -> None:
        """Give one device modules by hand, as ``applyConfigurationContent`` does."""
        made = {module: parts["properties.desired"] for module, parts in content.items()}
        for part in ("$edgeHub", "$edgeAgent"):
            desired = made.get(part)
            if isinstance(desired, dict) and device.desire(part, desired) and part == "$edgeAgent":
                self._agent.start(device)

    def run_query(self, text: str) -> list[Document]:
        """What a query finds; raise :class:`~tests.doubles.iothub_query.BadQuery`."""
        query = parse_query(text)
        if query.modules:
            twins = (twin for each in self.devices.values() for twin in (each.agent, each.edge_hub))
            return query.run(twins)
        return query.run(each.twin for each in self.devices.values())

    def _count_if_due(self) -> None:
        lag = timedelta(seconds=self.metrics_lag_seconds)
        if lag and self.now >= self._counted + lag:
            self._counted = self.now
            self.count()

    def count(self) -> None:
        """Work out every deployment's metrics now."""
        self.settle()
        for each in self.configurations.values():
            each.results = {name: self._number(text) for name, text in each.queries.items()}
            if each.content:
                edge = (device for device in self.devices.values() if device.edge)
                system = {name: self._number(q) for name, q in each.system_queries().items()}
                system["targetedCount"] = sum(each.test(d.twin) is True for d in edge)
                each.system = system

    def _number(self, text: str) -> int:
        query, found = parse_query(text), self.run_query(text)
        if query.count:
            number = found[0][query.count]
            assert isinstance(number, int)
            return number
        return len(found)

    def put(self, document: dict[str, object]) -> Configuration:
        """Create a configuration, or change the one of this id; the REST API has checked it."""
        id = str(document["id"])
        condition = str(document.get("targetCondition") or "")
        test: Test = parse_condition(condition) if condition else lambda _: False
        before = self.configurations.get(id)
        if before is None:
            made = Configuration(document, self.now, next(self._numbers), test, updated=self.now)
            self.configurations[id] = made
        else:
            made = before
            made.document, made.test = document, test
            made.version, made.updated = before.version + 1, self.now
        self.changed()
        return made


def combined(configurations: list[Configuration]) -> Mapping[str, Mapping[str, object]]:
    """The desired properties a base and the layers on it come to, the highest last."""
    made: dict[str, dict[str, object]] = {}
    for each in configurations:
        for module, parts in each.content.items():
            for path, value in parts.items():
                target = made.setdefault(module, {})
                if path == "properties.desired":
                    assert isinstance(value, dict)
                    made[module] = dict(value)
                else:
                    made[module] = _set(target, path.removeprefix(LAYER).split("."), value)
    return made


def _set(target: Mapping[str, object], path: list[str], value: object) -> dict[str, object]:
    """``target`` with ``value`` at ``path``; what it shares with others stays as it is."""
    if len(path) == 1:
        return {**target, path[0]: value}
    inner = target.get(path[0])
    return {**target, path[0]: _set(inner if isinstance(inner, dict) else {}, path[1:], value)}
