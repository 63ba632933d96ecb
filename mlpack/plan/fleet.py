"""What a release takes on a device group: cohorts, and their bytes, money and time.

A cohort is the devices in one state: the same release held, the same platform. Each is planned
once, whatever its size. A device that holds something unknown counts as an empty one, which is
the most it can cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from itertools import pairwise

from mlpack.json_document import HIDDEN, INLINE, document, named, unless
from mlpack.oci.descriptor import Digest
from mlpack.plan.cost import CostReport, Metered, Tariff, cost
from mlpack.plan.refusals import Refusal, warnings
from mlpack.plan.transfer import Alternative, AlternativeName
from mlpack.settings.reader import BUCKETS, share_text

UNKNOWN, EMPTY = "unknown", "none"
"""What a device holds: an image that is not in this project, or nothing."""

EDGE_AGENT_WAITS = 300
"""Seconds edgeAgent waits for a pull unless ``ManagementApiTimeoutSecs`` is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device of a group; a document of it is an entry of a fleet file."""

    id: str = field(metadata=named("deviceId"))
    holds: str = field(default=EMPTY, metadata=named("release"))
    """``NAME:VERSION``, ``none`` or ``unknown``."""

    image: str = ""
    """The image its module reports."""

    platform: str = ""
    """``linux/arm64``; empty if it is not reported."""

    status: str = ""
    """The module's: ``running``, ``backoff``, …; empty if nothing is reported."""

    seen: str = field(default="", metadata=named("lastSeen"))
    """The time of its last activity, as the hub writes it."""

    bucket: int | None = field(default=None, metadata=HIDDEN)
    """The twin tag; ``None`` if it is not set."""

    count: int = field(default=1, metadata=unless(1))
    """How many devices this entry of a fleet file represents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """Devices in the same state."""

    holds: str = field(metadata=named("release"))
    platform: str
    devices: int
    stages: tuple[int, ...] = field(metadata=HIDDEN)
    """How many of them each stage adds."""


def cohorts(devices: Iterable[tuple[Device, int]], stages: Sequence[Decimal]) -> tuple[Cohort, ...]:
    """Group devices, each with its bucket, into cohorts; the largest first.

    An entry that represents many devices is spread over the stages in proportion.
    """
    found: dict[tuple[str, str], list[int]] = {}
    for device, bucket in devices:
        parts = found.setdefault((device.holds, device.platform), [0] * len(stages))
        if device.count == 1:
            parts[next(n for n, share in enumerate(stages) if bucket < share * BUCKETS)] += 1
            continue
        reached = [int(device.count * share) for share in stages]
        for number, (before, after) in enumerate(pairwise([0, *reached])):
            parts[number] += after - before
    made = [
        Cohort(holds=holds, platform=platform, devices=sum(parts), stages=tuple(parts))
        for (holds, platform), parts in found.items()
    ]
    return tuple(sorted(made, key=lambda each: (-each.devices, each.holds, each.platform)))


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortPlan:
    """A cohort, and the alternatives for bringing each of its devices to the release."""

    cohort: Cohort = field(metadata=INLINE)
    alternatives: tuple[Alternative, ...] = field(metadata=named("strategies"))
    """The last is mlpack's own; empty if there is nothing to fetch, or no image to run."""

    current: bool = field(default=False, metadata=HIDDEN)
    """Whether the devices run the release already."""

    def bytes(self, name: AlternativeName) -> int | None:
        """Return what one device fetches; ``None`` if it could not be calculated."""
        if not self.alternatives:
            return 0
        return next((each.transfer.total for each in self.alternatives if each.name == name), None)


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
    strategy: AlternativeName = "layer"
    missing: tuple[str, ...] = ()
    """What could not be calculated, and why."""

    never_started: tuple[str, ...] = ()
    """The release's images that were not seen to start when they were built, and why."""

    refusals: tuple[Refusal, ...] = ()
    """Why the group's engine does not take the release as it is."""

    @cached_property
    def devices(self) -> int:
        """All devices of the group."""
        return sum(each.cohort.devices for each in self.cohorts)

    def stage_devices(self, stage: int) -> int:
        """Return how many devices ``stage`` adds to those before."""
        return sum(each.cohort.stages[stage] for each in self.cohorts)

    def stage_bytes(self, stage: int) -> int:
        """Return what the devices that ``stage`` adds fetch together."""
        return sum(
            each.cohort.stages[stage] * (each.bytes(self.strategy) or 0) for each in self.cohorts
        )

    def _parts(self, name: AlternativeName) -> list[tuple[int, int]] | None:
        """Bytes and devices of each cohort; ``None`` if the bytes of one are unknown."""
        found = [(each.bytes(name), each.cohort.devices) for each in self.cohorts]
        known = [(count, devices) for count, devices in found if count is not None]
        return known if len(known) == len(found) else None

    def total(self, name: AlternativeName) -> int | None:
        """Return the bytes of the whole group; ``None`` if those of one cohort are unknown."""
        parts = self._parts(name)
        return None if parts is None else sum(count * devices for count, devices in parts)

    def bill(self, name: AlternativeName) -> CostReport | None:
        """Price an alternative for the whole group; ``None`` if its bytes are unknown."""
        parts = self._parts(name)
        return fleet_cost(self.tariff, parts) if parts and self.devices else None

    @cached_property
    def names(self) -> tuple[AlternativeName, ...]:
        """The alternatives that every cohort has, the most expensive first."""
        every: tuple[AlternativeName, ...] = ("whole", "usual", "layer", "packed", "patch")
        return tuple(name for name in every if self.total(name) is not None)

    @cached_property
    def slowest_seconds(self) -> float:
        """How long a device of the worst cohort fetches; 0 if the link is unknown."""
        if not self.link_bytes_per_second:
            return 0
        most = max((each.bytes(self.strategy) or 0 for each in self.cohorts), default=0)
        return most / self.link_bytes_per_second

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What to know before it is sent."""
        bill = self.bill(self.strategy)
        sent = any(each.alternatives for each in self.cohorts)
        said = [*(warnings(self.refusals) if sent else ())]
        said += [*(self.never_started if sent else ()), *(bill.warnings if bill else ())]
        unknown = sum(e.cohort.devices for e in self.cohorts if e.cohort.holds == UNKNOWN)
        if unknown:
            said.append(
                f"{unknown:,} hold an image that is not in this project: counted as empty devices"
            )
        if self.slowest_seconds > EDGE_AGENT_WAITS:
            said.append(
                f"a pull takes at most {self.slowest_seconds:,.0f} s, and edgeAgent aborts it "
                f"after {EDGE_AGENT_WAITS} s unless ManagementApiTimeoutSecs is higher; the base "
                "deployment sets it by the group's link"
            )
        return tuple(said)

    def to_json(self) -> dict[str, object]:
        """Return what ``mlpack --json plan`` prints and the ledger keeps; amounts are texts."""
        return document(
            {
                "group": self.group,
                "target": self.condition,
                "release": self.release,
                "digest": self.digest,
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
                "cohorts": self.cohorts,
                "strategies": [
                    {"name": name, "bytes": self.total(name), "cost": self.bill(name)}
                    for name in self.names
                ],
                "strategy": self.strategy,
                "bytes": self.total(self.strategy),
                "tariff": self.tariff,
                "warnings": self.warnings,
                "unknowns": self.missing,
                "never_started": self.never_started,
                "refusals": self.refusals,
            }
        )


def fleet_cost(tariff: Tariff, parts: Sequence[tuple[int, int]]) -> CostReport:
    """Price several parts, each of so many bytes to each of so many devices.

    Metered bytes are billed by part. A pool is shared by all, so their mean counts.
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


def count_held(devices: Iterable[Device]) -> Counter[str]:
    """Count the devices by what they hold."""
    found: Counter[str] = Counter()
    for each in devices:
        found[each.holds] += each.count
    return found
