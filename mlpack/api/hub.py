"""What the rollout commands ask of an IoT hub, and reading it into values of mlpack's own.

Queries cost the hub's owner messages and are limited to 20 a minute and unit, so each asks
for no more than is needed: twins only where devices are listed or say that something is
wrong, else numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mlpack.model.condition import BUCKET_TAG, Condition
from mlpack.model.groups import DeviceGroup
from mlpack.plan import deployed, outcome
from mlpack.plan.deployed import Deployed
from mlpack.plan.fleet import Device
from mlpack.plan.outcome import AgentReport
from mlpack.plan.rollout import Observation, bucket
from mlpack.stores.fleets import Held

if TYPE_CHECKING:
    from mlpack.azure.iothub import HubConfiguration

RUNNING, DOWN = "running", "down"
"""Names of the custom metrics of every deployment."""

_APPLIED, _COUNT = "appliedCount", "COUNT() AS number"


class Hub(Protocol):
    """An IoT hub, as :mod:`mlpack.azure.iothub` reaches one."""

    def configurations(self) -> tuple[HubConfiguration, ...]:
        """All deployments."""
        ...

    def create(self, configuration: HubConfiguration, /) -> HubConfiguration:
        """Create one; an id that is taken is a conflict."""
        ...

    def update(self, configuration: HubConfiguration, /) -> HubConfiguration:
        """Change one, under its ETag."""
        ...

    def delete(self, id: str, etag: str, /) -> None:
        """Delete one, under its ETag."""
        ...

    def query(self, text: str, page: int = 100) -> Iterator[Mapping[str, object]]:
        """What a query finds, page by page."""
        ...

    def tag(self, devices: Mapping[str, Mapping[str, object]], /) -> None:
        """Merge tags into the twins of devices."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """An observation, and the configurations it was read from: their ETags guard each change."""

    observation: Observation
    configurations: Mapping[str, HubConfiguration]


def deployments(found: Mapping[str, HubConfiguration]) -> tuple[Deployed, ...]:
    """Configurations as the plan knows them."""
    return tuple(
        Deployed(
            id=each.id,
            labels=each.labels,
            condition=each.condition,
            priority=each.priority,
            created=each.created,
        )
        for each in found.values()
    )


def configurations(hub: Hub) -> dict[str, HubConfiguration]:
    """All of the hub's, by id."""
    return {each.id: each for each in hub.configurations()}


def observe(hub: Hub, condition: Condition, id: str, module: str) -> Seen:
    """Look at the hub once, for the rollout whose deployment is ``id``."""
    found = configurations(hub)
    mine = found.get(id)
    seen = Observation(deployments=deployments(found), untagged=_untagged(hub, condition))
    if mine is None or mine.labels.get(deployed.STATE) != "rolling":
        return Seen(seen, found)
    image = mine.labels.get(deployed.IMAGE, "")
    reasons = failures(hub, id, module, image)
    counted = Observation(
        deployments=seen.deployments,
        untagged=seen.untagged,
        targeted=count(hub, mine.condition),
        running=running_now(hub, id, module, image),
        failed=sum(reasons.values()),
        reasons=reasons,
    )
    return Seen(counted, found)


def count(hub: Hub, condition: str) -> int:
    """How many devices a target condition means."""
    return _number(hub, f"SELECT {_COUNT} FROM devices WHERE {condition}")  # noqa: S608 - the hub's language; the condition was read before


def running_now(hub: Hub, id: str, module: str, image: str) -> int:
    """How many devices of a deployment run ``image``.

    The query of the deployment's metric, asked now: the hub works metrics out some minutes apart.
    """
    return _number(hub, outcome.running_query(id, module, image, _COUNT))


def _number(hub: Hub, query: str) -> int:
    found = next(iter(hub.query(query)), {})
    number = found.get("number", 0)
    return number if isinstance(number, int) else 0


def failures(hub: Hub, id: str, module: str, image: str) -> Mapping[str, int]:
    """What the devices of a deployment say that failed, and how many say it."""
    found: Counter[str] = Counter()
    for twin in hub.query(outcome.trouble_query(id, module)):
        report = AgentReport.of(twin, module)
        if report.outcome(image) == "failed":
            found[report.reason(image)] += 1
    return found


def _untagged(hub: Hub, condition: Condition) -> tuple[str, ...]:
    wanted = condition.also(f"NOT is_defined({BUCKET_TAG})")
    found = hub.query(f"SELECT deviceId FROM devices WHERE {wanted}")  # noqa: S608 - as above
    return tuple(str(each["deviceId"]) for each in found)


def metrics(id: str, module: str, image: str) -> dict[str, str]:
    """The custom metrics of a deployment, which the hub works out by itself."""
    return {
        RUNNING: outcome.running_query(id, module, image),
        DOWN: outcome.down_query(id, module, image),
    }


def read_devices(
    hub: Hub,
    group: DeviceGroup,
    module: str,
    held: Held,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Device, ...]:
    """Every device of a group, and what its edgeAgent says of ``module``."""
    twins = {}
    for twin in hub.query(f"SELECT * FROM devices WHERE {group.condition.text}"):  # noqa: S608
        twins[str(twin["deviceId"])] = twin
        advance(1)
    reports = {}
    for twin in hub.query("SELECT * FROM devices.modules WHERE moduleId = '$edgeAgent'"):
        report = AgentReport.of(twin, module)
        if report.device in twins:
            reports[report.device] = report
            advance(1)
    none = AgentReport(device="")
    return tuple(_device(twin, reports.get(id, none), held) for id, twin in sorted(twins.items()))


def _device(twin: Mapping[str, object], report: AgentReport, held: Held) -> Device:
    tags = twin.get("tags")
    own = tags.get("mlpack") if isinstance(tags, Mapping) else None
    number = own.get("bucket") if isinstance(own, Mapping) else None
    seen = str(twin.get("lastActivityTime") or "")
    return Device(
        id=str(twin["deviceId"]),
        holds=held.name(report.image),
        image=report.image,
        platform=report.platform,
        status=report.status,
        seen="" if seen.startswith("0001") else seen,
        bucket=int(number) if isinstance(number, int | float) else None,
    )


def mistagged(devices: tuple[Device, ...]) -> tuple[str, ...]:
    """Devices whose bucket is missing, or not the one their id has."""
    return tuple(each.id for each in devices if each.bucket != bucket(each.id))


def applied(configuration: HubConfiguration) -> int:
    """How many devices the hub has given a deployment to."""
    return int(configuration.results.get(_APPLIED, 0))
