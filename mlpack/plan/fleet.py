"""What a release takes on a device group: cohorts, and their bytes, money and time.

A cohort is the devices in one state: the same release held, the same platform. Each is
planned once, whatever its size. A device that holds something unknown is counted as an
empty one: the most it can cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property

from mlpack.model.amounts import BUCKETS, share_text
from mlpack.oci.digest import Digest
from mlpack.plan.cost import CostReport, cost
from mlpack.plan.strategy import Way, WayName
from mlpack.plan.tariff import Metered, Tariff

UNKNOWN, EMPTY = "unknown", "none"
"""What a device holds: an image this project does not know, and nothing."""

EDGE_AGENT_WAITS = 300
"""Seconds edgeAgent waits for a pull (``ManagementApiTimeoutSecs``), where that is not set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device of a group, as far as is known."""

    id: str
    holds: str = EMPTY
    """``NAME:VERSION``, ``none`` or ``unknown``."""

    image: str = ""
    """The image its module reports."""

    platform: str = ""
    """``linux/arm64``; empty where it is not reported."""

    status: str = ""
    """The module's: ``running``, ``backoff``, …; empty where nothing is reported."""

    seen: str = ""
    """When the hub last heard of it, as the hub writes it."""

    bucket: int | None = None
    """The twin tag as it is; ``None`` where it is not set."""

    count: int = 1
    """How many devices this entry of a fleet file stands for."""

    def to_json(self) -> dict[str, object]:
        """One entry of ``mlpack devices --json``, and of a fleet file."""
        return {
            "deviceId": self.id,
            "release": self.holds,
            "image": self.image,
            "platform": self.platform,
            "status": self.status,
            "lastSeen": self.seen,
            **({"count": self.count} if self.count != 1 else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """Devices in the same state."""

    holds: str
    platform: str
    devices: int
    stages: tuple[int, ...]
    """How many of them each stage adds."""


def cohorts(devices: Iterable[tuple[Device, int]], stages: Sequence[Decimal]) -> tuple[Cohort, ...]:
    """Devices, each with its bucket, as cohorts; the largest first.

    An entry that stands for many devices is spread over the stages as their shares are.
    """
    found: dict[tuple[str, str], list[int]] = {}
    for device, bucket in devices:
        parts = found.setdefault((device.holds, device.platform), [0] * len(stages))
        if device.count == 1:
            stage = next(n for n, share in enumerate(stages) if bucket < share * BUCKETS)
            parts[stage] += 1
            continue
        before = 0
        for number, share in enumerate(stages):
            upto = int(device.count * share)
            parts[number] += upto - before
            before = upto
    made = [
        Cohort(holds=holds, platform=platform, devices=sum(parts), stages=tuple(parts))
        for (holds, platform), parts in found.items()
    ]
    return tuple(sorted(made, key=lambda each: (-each.devices, each.holds, each.platform)))


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortPlan:
    """A cohort, and the ways of bringing each of its devices to the release."""

    cohort: Cohort
    ways: tuple[Way, ...]
    """The last is mlpack's own; none where the devices run the release already."""

    def bytes(self, name: WayName) -> int | None:
        """What one device fetches; ``None`` where the way could not be worked out."""
        if not self.ways:
            return 0
        return next((way.transfer.total for way in self.ways if way.name == name), None)


@dataclass(frozen=True, kw_only=True)
class FleetPlan:
    """A release on a device group, before anything is sent."""

    group: str
    condition: str
    release: str
    digest: Digest
    engine: str
    stages: tuple[Decimal, ...]
    cohorts: tuple[CohortPlan, ...]
    tariff: Tariff
    link_bytes_per_second: int = 0
    way: WayName = "layer"
    missing: tuple[str, ...] = ()
    """What could not be worked out, and why."""

    @cached_property
    def devices(self) -> int:
        """All devices of the group."""
        return sum(each.cohort.devices for each in self.cohorts)

    def stage_devices(self, stage: int) -> int:
        """Devices that ``stage`` adds to those before."""
        return sum(each.cohort.stages[stage] for each in self.cohorts)

    def stage_bytes(self, stage: int) -> int:
        """What the devices that ``stage`` adds fetch together."""
        return sum(each.cohort.stages[stage] * (each.bytes(self.way) or 0) for each in self.cohorts)

    def total(self, name: WayName) -> int | None:
        """Bytes of the whole group by a way; ``None`` where one cohort's are not known."""
        found = [(each.bytes(name), each.cohort.devices) for each in self.cohorts]
        if any(count is None for count, _ in found):
            return None
        return sum((count or 0) * devices for count, devices in found)

    def bill(self, name: WayName) -> CostReport | None:
        """What a way costs the whole group."""
        found = [(each.bytes(name), each.cohort.devices) for each in self.cohorts]
        if any(count is None for count, _ in found) or not self.devices:
            return None
        return fleet_cost(self.tariff, [(count or 0, devices) for count, devices in found])

    @cached_property
    def names(self) -> tuple[WayName, ...]:
        """The ways every cohort has, dearest first."""
        every: tuple[WayName, ...] = ("whole", "usual", "layer", "patch")
        return tuple(name for name in every if self.total(name) is not None)

    @cached_property
    def slowest_seconds(self) -> float:
        """How long a device of the worst cohort fetches; 0 where the link is not said."""
        if not self.link_bytes_per_second:
            return 0
        most = max((each.bytes(self.way) or 0 for each in self.cohorts), default=0)
        return most / self.link_bytes_per_second

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What should be known before it is sent."""
        bill = self.bill(self.way)
        said = list(bill.warnings if bill else ())
        unknown = sum(e.cohort.devices for e in self.cohorts if e.cohort.holds == UNKNOWN)
        if unknown:
            said.append(
                f"{unknown:,} hold an image this project does not know: counted as empty devices"
            )
        if self.slowest_seconds > EDGE_AGENT_WAITS:
            said.append(
                f"a pull takes up to {self.slowest_seconds:,.0f} s, and edgeAgent gives one up "
                f"after {EDGE_AGENT_WAITS} s where its ManagementApiTimeoutSecs says no more; the "
                "base deployment sets it by the group's link"
            )
        return tuple(said)

    def to_json(self) -> dict[str, object]:
        """What ``mlpack plan --json`` prints and the ledger keeps; amounts are texts."""
        bills = {name: self.bill(name) for name in self.names}
        return {
            "group": self.group,
            "target": self.condition,
            "release": self.release,
            "digest": str(self.digest),
            "engine": self.engine,
            "devices": self.devices,
            "link_bytes_per_second": self.link_bytes_per_second,
            "seconds": round(self.slowest_seconds, 1),
            "stages": [
                {
                    "share": share_text(share),
                    "devices": self.stage_devices(number),
                    "bytes": self.stage_bytes(number),
                }
                for number, share in enumerate(self.stages)
            ],
            "cohorts": [
                {
                    "release": each.cohort.holds,
                    "platform": each.cohort.platform,
                    "devices": each.cohort.devices,
                    "strategies": [way.to_json() for way in each.ways],
                }
                for each in self.cohorts
            ],
            "strategies": [
                {"name": name, "bytes": self.total(name), "cost": bill.to_json() if bill else None}
                for name, bill in bills.items()
            ],
            "strategy": self.way,
            "bytes": self.total(self.way),
            "tariff": self.tariff.to_json(),
            "warnings": list(self.warnings),
            "unknowns": list(self.missing),
        }


def fleet_cost(tariff: Tariff, parts: Sequence[tuple[int, int]]) -> CostReport:
    """Price so many bytes to each of so many devices, for several such parts at once.

    Metered bytes are billed by part. A pool is shared by all, so that their mean is what counts.
    """
    devices = sum(count for _, count in parts)
    sent = sum(each * count for each, count in parts)
    whole = cost(tariff, -(-sent // max(1, devices)), devices)
    if not isinstance(tariff.terms, Metered):
        return whole
    usage = [
        line
        for each, count in parts
        for line in cost(tariff, each, count).lines
        if line.kind == "usage"
    ]
    fixed = [line for line in whole.lines if line.kind == "fixed"]
    return replace(whole, lines=(*fixed, *usage))


def held(devices: Iterable[Device]) -> Counter[str]:
    """How many devices hold what."""
    found: Counter[str] = Counter()
    for each in devices:
        found[each.holds] += each.count
    return found
