"""An IoT hub, through Microsoft's ``azure-iot-hub`` 2.7.0, and what rollouts ask it.

The only module that calls the hub. It corrects what the client gets wrong: ETags are sent in
quotes (without, the hub takes a change for a second creation and answers 409,
Azure/azure-iot-hub-python#2), a ``429`` without ``Retry-After`` is retried, too, and query
results are read as the hub sent them. Queries cost the hub's owner messages and are limited to 20
a minute and unit, so each fetches no more than is needed: twins only to list devices or to explain
a failure, else counts.

edgeAgent reports ``lastDesiredStatus`` 200 once its plan is done, 400, 412 or 417 if it cannot
read the deployment, and 500 if a step failed. A pull that takes longer than edgeAgent waits
(300 s) is reported as 500 "The operation was canceled" while the pull continues or is retried:
neither that nor silence is a failure (Azure/iotedge, edge-agent sources of 1.6). A report
counts only if it is about the configuration the hub wants now.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from types import ModuleType
from typing import TYPE_CHECKING, Literal, TypeVar

from mlpack.azure.hub_client import Connection, HubError, Retry, service
from mlpack.plan.fleet import Device
from mlpack.project.device_groups import KnownImages
from mlpack.rollout.decide import HubDeployment, Observation, bucket, member
from mlpack.settings.condition import BUCKET_TAG, MAX_QUERY_BYTES, Condition, where
from mlpack.settings.targets import DeviceGroup

if TYPE_CHECKING:
    from azure.iot.hub.protocol.iot_hub_gateway_service_ap_is import IotHubGatewayServiceAPIs

T = TypeVar("T")

SCHEMA_VERSION = "2.0"
PAGE = 1000
"""Items a page; the hub's maximum (Microsoft Learn, "IoT Hub query language")."""
BULK = 100
"""Devices in one request that changes several (IoT Hub quotas)."""

MOST_CONFIGURATIONS = 1000
"""More than any hub holds; without a number the hub returns only some of them."""


class IotHub:
    """A connection to a hub; ``sleep`` waits before a request is repeated.

    Raises :class:`~mlpack.azure.hub_client.HubError` with one line, and
    :class:`~mlpack.azure.management.NoAzure`. Not safe to share between threads.
    """

    def __init__(
        self, connection: Connection, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.host = connection.host
        self._connection = connection
        self._retry = Retry(sleep)
        self._opened: IotHubGatewayServiceAPIs | None = None

    def __enter__(self) -> IotHub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def configurations(self) -> tuple[HubDeployment, ...]:
        """Return all deployments."""
        found = self._ask(
            "list its deployments",
            lambda client: client.configuration.get_configurations(MOST_CONFIGURATIONS),
        )
        return tuple(_read(each) for each in found)

    def configuration(self, id: str) -> HubDeployment:
        """Return the deployment ``id``; raise :class:`~mlpack.azure.hub_client.NotThere`."""
        return _read(self._ask(f"show {id}", lambda client: client.configuration.get(id)))

    def create(self, deployment: HubDeployment) -> HubDeployment:
        """Create a deployment; an id in use is a :class:`~mlpack.azure.hub_client.Conflict`."""
        return self._put("create", deployment)

    def update(self, deployment: HubDeployment) -> HubDeployment:
        """Change labels, condition, priority or metrics of the deployment that has this ETag.

        Another ETag is a :class:`~mlpack.azure.hub_client.Conflict`.
        """
        if not deployment.etag:
            raise HubError(f"{deployment.id} was not read from the hub before it was changed")
        return self._put("change", deployment, f'"{deployment.etag}"')

    def _put(self, verb: str, deployment: HubDeployment, *match: str) -> HubDeployment:
        def put(client: IotHubGatewayServiceAPIs) -> object:
            written = _written(deployment)
            return client.configuration.create_or_update(deployment.id, written, *match)

        return _read(self._ask(f"{verb} {deployment.id}", put, safe=False))

    def delete(self, id: str, etag: str = "") -> None:
        """Delete the deployment that has this ETag; an empty ``etag`` matches any."""
        match = f'"{etag}"' if etag else "*"
        self._ask(f"delete {id}", lambda client: client.configuration.delete(id, match), safe=False)

    def query(self, text: str, page: int = PAGE) -> Iterator[Mapping[str, object]]:
        """Yield the results of a query as the hub sent them, ``page`` items a request."""
        query, token = self._models().QuerySpecification(query=text), None
        while True:
            items, token = self._page(query, token, page)
            yield from items
            if not token:
                return

    def _page(
        self, query: object, token: str | None, page: int
    ) -> tuple[list[Mapping[str, object]], str | None]:
        def ask(client: IotHubGatewayServiceAPIs) -> tuple[object, str | None]:
            # Not the deserialized Twins: they drop the members Twin does not know.
            raw = client.query.get_twins(query, token, str(page), raw=True)
            return raw.response.json(), raw.headers.get("x-ms-continuation")

        items, after = self._ask("answer a query", ask)
        if not isinstance(items, list):
            raise HubError(f"{self.host} answered a query with something other than a list")
        return items, after

    def tag(self, devices: Mapping[str, Mapping[str, object]]) -> None:
        """Merge tags into the twins of devices; ``None`` removes one.

        The hub's bulk update is documented to overwrite ("existing information is overwritten"),
        so each device is sent all its tags, under the ETag they were read with. A device whose
        twin changed in between is updated by itself.
        """
        rest = iter(devices.items())
        while part := dict(islice(rest, BULK)):
            twins = self._tags(part)
            if lacking := next((id for id in part if id not in twins), None):
                raise HubError(f"{self.host} has no device {lacking}", hint="see: mlpack devices")
            self._update(part, twins)

    def _tags(self, ids: Iterable[str]) -> dict[str, Mapping[str, object]]:
        found = (each for query in _named(ids) for each in self.query(query))
        return {str(each["deviceId"]): each for each in found}

    def _update(
        self,
        devices: Mapping[str, Mapping[str, object]],
        twins: Mapping[str, Mapping[str, object]],
    ) -> None:
        models = self._models()
        changes = [
            models.ExportImportDevice(
                id=id,
                import_mode="updateTwinIfMatchETag",
                twin_etag=str(twins[id].get("etag", "")),
                tags=merged(twins[id].get("tags"), patch),
            )
            for id, patch in devices.items()
        ]
        done = self._ask(
            f"tag {len(changes)} devices",
            lambda client: client.bulk_registry.update_registry(changes),
        )
        if done.is_successful:
            return
        if not done.errors:
            raise HubError(f"{self.host} did not tag devices and returned no reason")
        for error in done.errors:
            if error.device_id not in devices:
                raise HubError(
                    f"{self.host} did not tag devices: {error.error_status} ({error.error_code})"
                )
            self._tag_one(error.device_id, devices[error.device_id])

    def _tag_one(self, id: str, patch: Mapping[str, object]) -> None:
        twin = self._models().Twin(tags=dict(patch))
        self._ask(f"tag {id}", lambda client: client.devices.update_twin(id, twin, "*"))

    def _ask(
        self, what: str, action: Callable[[IotHubGatewayServiceAPIs], T], *, safe: bool = True
    ) -> T:
        client = self._client()
        return self._retry.call(self.host, what, lambda: action(client), safe=safe)

    def _models(self) -> ModuleType:
        """Import the client's own types."""
        self._client()
        from azure.iot.hub import models

        found: ModuleType = models
        return found

    def _client(self) -> IotHubGatewayServiceAPIs:
        if self._opened is None:
            self._opened = service(self._connection)
        return self._opened


def _named(ids: Iterable[str]) -> Iterator[str]:
    """Yield queries for the tags of devices, none longer than the hub takes."""
    select = "SELECT deviceId, etag, tags FROM devices WHERE deviceId IN [{}]"
    listed = ""
    for id in ids:
        # In double quotes, which no id may contain; single quotes may be part of one.
        longer = f'{listed}, "{id}"' if listed else f'"{id}"'
        if listed and len(select) + len(longer) > MAX_QUERY_BYTES:
            yield select.format(listed)
            longer = f'"{id}"'
        listed = longer
    if listed:
        yield select.format(listed)


def merged(tags: object, patch: Mapping[str, object]) -> dict[str, object]:
    """Merge ``patch`` into ``tags``, as the hub merges twins.

    >>> merged({"a": {"b": 1}, "c": 2}, {"a": {"d": 3}, "c": None})
    {'a': {'b': 1, 'd': 3}}
    """
    found = dict(tags) if isinstance(tags, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, Mapping):
            found[key] = merged(found.get(key), value)
        else:
            found[key] = value
    return found


def _written(deployment: HubDeployment) -> object:
    from azure.iot.hub.models import Configuration, ConfigurationContent, ConfigurationMetrics

    return Configuration(
        id=deployment.id,
        schema_version=SCHEMA_VERSION,
        labels=dict(deployment.labels),
        content=ConfigurationContent(modules_content=dict(deployment.content)),
        target_condition=deployment.condition,
        priority=deployment.priority,
        metrics=ConfigurationMetrics(queries=dict(deployment.metrics)),
        etag=deployment.etag or None,
    )


def _read(found: object) -> HubDeployment:
    metrics, system = getattr(found, "metrics", None), getattr(found, "system_metrics", None)
    created = getattr(found, "created_time_utc", None)
    content = getattr(found, "content", None)
    return HubDeployment(
        id=getattr(found, "id", "") or "",
        labels=getattr(found, "labels", None) or {},
        content=getattr(content, "modules_content", None) or {},
        condition=getattr(found, "target_condition", None) or "",
        priority=getattr(found, "priority", None) or 0,
        metrics=getattr(metrics, "queries", None) or {},
        etag=getattr(found, "etag", None) or "",
        created=created.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if created else "",
        results={
            **(getattr(metrics, "results", None) or {}),
            **(getattr(system, "results", None) or {}),
        },
    )


DeviceOutcome = Literal["running", "failed", "pulling", "silent"]

MAX_REASON = 80
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TRANSITIONAL = ("operation was canceled", "operation was cancelled", "task was canceled")
_BROKEN_CONFIG = frozenset({400, 412, 417})
_DOWN = frozenset({"failed", "backoff", "unhealthy", "stopped", "dead"})
_CURRENT = "properties.desired.$version = properties.reported.lastDesiredVersion"
_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_COUNT = "COUNT() AS number"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReport:
    """The part of an edgeAgent's twin that is about one module."""

    device: str
    image: str = ""
    """The module's image; empty if it reports none."""

    status: str = ""
    """The module's ``runtimeStatus``."""

    detail: str = ""
    code: int = 0
    """``lastDesiredStatus``; 0 if none was reported."""

    description: str = ""
    current: bool = False
    """Whether the report is about the configuration the hub wants now."""

    platform: str = ""
    """``linux/arm64``, if it is reported."""

    @classmethod
    def of(cls, twin: Mapping[str, object], module: str) -> AgentReport:
        """Read a module twin of ``$edgeAgent``; missing and malformed parts stay empty."""
        reported = member(twin, "properties", "reported")
        mine = member(reported, "modules", module)
        last = member(reported, "lastDesiredStatus")
        version, code = member(twin, "properties", "desired", "$version"), member(last, "code")
        os = _text(reported, "runtime", "platform", "os").lower()
        architecture = _text(reported, "runtime", "platform", "architecture").lower()
        known = os and architecture in _ARCHITECTURES
        return cls(
            device=str(twin.get("deviceId", "")),
            image=_text(mine, "settings", "image"),
            status=_text(mine, "runtimeStatus"),
            detail=_text(mine, "statusDescription"),
            code=code if isinstance(code, int) else 0,
            description=_text(last, "description"),
            current=version is not None and version == member(reported, "lastDesiredVersion"),
            platform=f"{os}/{_ARCHITECTURES[architecture]}" if known else "",
        )

    def outcome(self, image: str) -> DeviceOutcome:
        """Classify the report for a release with ``image``."""
        if not self.current:
            return "silent"
        if self.image == image and self.status == "running":
            return "running"
        if self.image == image and self.status in _DOWN:
            return "failed"
        if self.code in (0, 200):
            return "silent"
        if self.code in _BROKEN_CONFIG:
            return "failed"
        if any(each in self.description.lower() for each in _TRANSITIONAL):
            return "pulling"
        return "failed" if self.code == 500 else "silent"

    def reason(self, image: str) -> str:
        """Return why the device failed, as a short line that many devices share."""
        if self.image == image and self.status in _DOWN:
            said = f"{self.status}: {self.detail}".rstrip(": ")
        else:
            said = f"{self.code} {self.description}"
        line = " ".join("".join(char if char.isprintable() else " " for char in said).split())
        return line if len(line) <= MAX_REASON else f"{line[: MAX_REASON - 1]}…"


def _text(document: object, *path: str) -> str:
    found = member(document, *path)
    return found if isinstance(found, str) else ""


@dataclass(frozen=True, slots=True)
class DeploymentQueries:
    """The queries about the devices of one deployment whose ``module`` runs ``image``."""

    id: str
    module: str
    image: str

    @property
    def running(self) -> str:
        """Devices whose module runs the image."""
        return self._status("deviceId", "=")

    @property
    def down(self) -> str:
        """Devices that have the image and whose module does not stay up."""
        return self._status("deviceId", "!=")

    @property
    def trouble(self) -> str:
        """Twins that do not report success: they name the failure and its reason."""
        return (
            f"{self._applied('*')} AND (properties.reported.lastDesiredStatus.code != 200"
            f" OR {self._reported}.runtimeStatus != 'running')"
        )

    @property
    def metrics(self) -> dict[str, str]:
        """The deployment's custom metrics, which the hub evaluates every few minutes."""
        return {"running": self.running, "down": self.down}

    def count_running(self, hub: IotHub) -> int:
        """Count the devices that run the image now; the hub's own metrics are minutes old."""
        return _number(hub, self._status(_COUNT, "="))

    def failures(self, hub: IotHub) -> Mapping[str, int]:
        """Return the reasons of the devices that failed, each with the number of devices."""
        found: Counter[str] = Counter()
        for twin in hub.query(self.trouble):
            report = AgentReport.of(twin, self.module)
            if report.outcome(self.image) == "failed":
                found[report.reason(self.image)] += 1
        return found

    @property
    def _reported(self) -> str:
        name = self.module if _PLAIN.fullmatch(self.module) else f"[[{self.module}]]"
        return f"properties.reported.modules.{name}"

    def _status(self, what: str, sign: str) -> str:
        return (
            f"{self._applied(what)} AND {self._reported}.settings.image = '{self.image}'"
            f" AND {self._reported}.runtimeStatus {sign} 'running'"
        )

    def _applied(self, what: str) -> str:
        return (
            f"SELECT {what} FROM devices.modules WHERE moduleId = '$edgeAgent'"  # noqa: S608 - the hub's language
            f" AND configurations.[[{self.id}]].status = 'Applied' AND {_CURRENT}"
        )


def observe(hub: IotHub, condition: Condition, id: str, module: str) -> Observation:
    """Look at the hub once, for the rollout whose deployment is ``id``."""
    found, untagged = hub.configurations(), _untagged(hub, condition)
    mine = next((each for each in found if each.id == id), None)
    if mine is None or mine.state != "rolling":
        return Observation(deployments=found, untagged=untagged)
    queries = DeploymentQueries(id, module, mine.image)
    reasons = queries.failures(hub)
    return Observation(
        deployments=found,
        untagged=untagged,
        targeted=count(hub, mine.condition),
        running=queries.count_running(hub),
        failed=sum(reasons.values()),
        reasons=reasons,
    )


def count(hub: IotHub, condition: str) -> int:
    """Count the devices that match a target condition."""
    return _number(hub, f"SELECT {_COUNT} FROM devices {where(condition)}")  # noqa: S608 - the hub's language; the condition was parsed before


def _number(hub: IotHub, query: str) -> int:
    number = next(iter(hub.query(query)), {}).get("number", 0)
    return number if isinstance(number, int) else 0


def _untagged(hub: IotHub, condition: Condition) -> tuple[str, ...]:
    clause = f"{where(condition.operand)} AND NOT is_defined({BUCKET_TAG})"
    found = hub.query(f"SELECT deviceId FROM devices {clause}")  # noqa: S608 - as above
    return tuple(str(each["deviceId"]) for each in found)


def read_devices(
    hub: IotHub,
    group: DeviceGroup,
    module: str,
    images: KnownImages,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Device, ...]:
    """Read every device of a group, and what its edgeAgent reports about ``module``."""
    twins = {}
    for twin in hub.query(f"SELECT * FROM devices {where(group.condition.text)}"):  # noqa: S608
        twins[str(twin["deviceId"])] = twin
        advance(1)
    reports = {}
    for twin in hub.query("SELECT * FROM devices.modules WHERE moduleId = '$edgeAgent'"):
        report = AgentReport.of(twin, module)
        if report.device in twins:
            reports[report.device] = report
            advance(1)
    none = AgentReport(device="")
    return tuple(_device(twin, reports.get(id, none), images) for id, twin in sorted(twins.items()))


def _device(twin: Mapping[str, object], report: AgentReport, images: KnownImages) -> Device:
    number = member(twin, "tags", "mlpack", "bucket")
    seen = str(twin.get("lastActivityTime") or "")
    return Device(
        id=str(twin["deviceId"]),
        holds=images.release(report.image),
        image=report.image,
        platform=report.platform,
        status=report.status,
        seen="" if seen.startswith("0001") else seen,
        bucket=int(number) if isinstance(number, int | float) else None,
    )


def mistagged(devices: tuple[Device, ...]) -> tuple[str, ...]:
    """Return the devices whose bucket is missing, or not the one of their id."""
    return tuple(each.id for each in devices if each.bucket != bucket(each.id))
