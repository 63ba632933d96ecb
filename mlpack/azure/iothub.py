"""An IoT hub's deployments, queries and tags, through Microsoft's ``azure-iot-hub`` 2.7.0.

The one place that talks to the hub. What its client gets wrong is put right here: ETags are
sent in quotes (without, the hub takes a change for a second creation and answers 409,
Azure/azure-iot-hub-python#2), ``429`` without ``Retry-After`` is waited for, too, and query
results are read as the hub sent them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from mlpack.azure.answers import HubError, Retry
from mlpack.azure.connection import Connection, service

if TYPE_CHECKING:
    from azure.iot.hub.protocol.iot_hub_gateway_service_ap_is import IotHubGatewayServiceAPIs

T = TypeVar("T")

SCHEMA_VERSION = "2.0"
PAGE = 1000
"""Items a page; the most the hub gives (Microsoft Learn, "IoT Hub query language")."""
BULK = 100
"""Devices in one request that changes several (IoT Hub quotas)."""

MOST_CONFIGURATIONS = 1000
"""More than any hub holds; without a number the hub gives only some of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubConfiguration:
    """One deployment, which IoT Hub calls a configuration."""

    id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    content: Mapping[str, object] = field(default_factory=dict)
    """``modulesContent``; it can never be changed."""

    condition: str = ""
    """``targetCondition``."""

    priority: int = 0
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Custom metrics: queries by name."""

    etag: str = ""
    """As the hub sent it, without quotes."""

    created: str = ""
    """UTC, as a text that sorts by time."""

    results: Mapping[str, int] = field(default_factory=dict)
    """What the hub counted, some minutes ago: custom metrics and its own (``appliedCount``)."""


class Hub:
    """A hub that is talked to; ``sleep`` waits before a request that was put off is repeated.

    Raises :class:`~mlpack.azure.answers.HubError` with one line, and
    :class:`~mlpack.azure.connection.NoAzure`. Not to be shared by threads.
    """

    def __init__(
        self, connection: Connection, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.host = connection.host
        self._connection = connection
        self._retry = Retry(sleep)
        self._opened: IotHubGatewayServiceAPIs | None = None

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def configurations(self) -> tuple[HubConfiguration, ...]:
        """All deployments."""
        found = self._ask(
            "list its deployments",
            lambda client: client.configuration.get_configurations(MOST_CONFIGURATIONS),
        )
        return tuple(_read(each) for each in found)

    def configuration(self, id: str) -> HubConfiguration:
        """The deployment ``id``; raise :class:`~mlpack.azure.answers.NotThere`."""
        return _read(self._ask(f"show {id}", lambda client: client.configuration.get(id)))

    def create(self, configuration: HubConfiguration) -> HubConfiguration:
        """Create a deployment; an id that is taken is a :class:`~mlpack.azure.answers.Conflict`."""
        return _read(
            self._ask(
                f"create {configuration.id}",
                lambda client: client.configuration.create_or_update(
                    configuration.id, _written(configuration)
                ),
                safe=False,
            )
        )

    def update(self, configuration: HubConfiguration) -> HubConfiguration:
        """Change labels, condition, priority or metrics of the deployment that has this ETag.

        Another ETag is a :class:`~mlpack.azure.answers.Conflict`.
        """
        if not configuration.etag:
            raise HubError(f"{configuration.id} was not read from the hub before it was changed")
        return _read(
            self._ask(
                f"change {configuration.id}",
                lambda client: client.configuration.create_or_update(
                    configuration.id, _written(configuration), f'"{configuration.etag}"'
                ),
                safe=False,
            )
        )

    def delete(self, id: str, etag: str = "") -> None:
        """Delete the deployment that has this ETag; whatever it is where ``etag`` is empty."""
        match = f'"{etag}"' if etag else "*"
        self._ask(f"delete {id}", lambda client: client.configuration.delete(id, match), safe=False)

    def query(self, text: str, page: int = PAGE) -> Iterator[Mapping[str, object]]:
        """What a query finds, ``page`` items a request, as the hub sent them."""
        wanted, token = self._models().QuerySpecification(query=text), None
        while True:
            items, token = self._page(wanted, token, page)
            yield from items
            if not token:
                return

    def _page(
        self, wanted: object, token: str | None, page: int
    ) -> tuple[list[Mapping[str, object]], str | None]:
        def ask(client: IotHubGatewayServiceAPIs) -> tuple[object, str | None]:
            # Not the deserialized Twins: they drop what a Twin has not.
            raw = client.query.get_twins(wanted, token, str(page), raw=True)
            return raw.response.json(), raw.headers.get("x-ms-continuation")

        items, after = self._ask("answer a query", ask)
        if not isinstance(items, list):
            raise HubError(f"{self.host} answered a query with what is no list")
        return items, after

    def tag(self, devices: Mapping[str, Mapping[str, object]]) -> None:
        """Merge tags into the twins of devices; ``None`` takes one away.

        The hub's bulk update is said to overwrite what it is given ("existing information is
        overwritten"), so each device is sent all its tags, under the ETag they were read with.
        A device whose twin changed in between is updated by itself.
        """
        for part in _parts(devices, BULK):
            twins = self._tags(part)
            lacking = [id for id in part if id not in twins]
            if lacking:
                raise HubError(
                    f"{self.host} has no device {lacking[0]}", hint="look with: mlpack devices"
                )
            self._update(part, twins)

    def _tags(self, ids: Iterable[str]) -> dict[str, Mapping[str, object]]:
        # In double quotes, which no id may hold; what may hold single ones is sent as it is.
        listed = ", ".join(f'"{id}"' for id in ids)
        found = self.query(f"SELECT deviceId, etag, tags FROM devices WHERE deviceId IN [{listed}]")  # noqa: S608 - the hub's language
        return {str(each["deviceId"]): each for each in found}

    def _update(
        self,
        devices: Mapping[str, Mapping[str, object]],
        twins: Mapping[str, Mapping[str, object]],
    ) -> None:
        models = self._models()
        wanted = [
            models.ExportImportDevice(
                id=id,
                import_mode="updateTwinIfMatchETag",
                twin_etag=str(twins[id].get("etag", "")),
                tags=merged(twins[id].get("tags"), patch),
            )
            for id, patch in devices.items()
        ]
        done = self._ask(
            f"tag {len(wanted)} devices",
            lambda client: client.bulk_registry.update_registry(wanted),
        )
        if done.is_successful:
            return
        if not done.errors:
            raise HubError(f"{self.host} did not tag devices, and does not say why")
        for error in done.errors:
            if error.device_id not in devices:
                raise HubError(
                    f"{self.host} did not tag devices: {error.error_status} ({error.error_code})"
                )
            self._tag_one(error.device_id, devices[error.device_id])

    def _tag_one(self, id: str, patch: Mapping[str, object]) -> None:
        twin = self._models().Twin(tags=dict(patch))
        self._ask(
            f"tag {id}",
            lambda client: client.devices.update_twin(id, twin, "*"),
        )

    def _ask(
        self,
        what: str,
        action: Callable[[IotHubGatewayServiceAPIs], T],
        *,
        safe: bool = True,
    ) -> T:
        client = self._client()
        return self._retry.call(self.host, what, lambda: action(client), safe=safe)

    def _models(self) -> ModuleType:
        """The client's own types, once it can be imported."""
        self._client()
        from azure.iot.hub import models

        found: ModuleType = models
        return found

    def _client(self) -> IotHubGatewayServiceAPIs:
        if self._opened is None:
            self._opened = service(self._connection)
        return self._opened


def merged(tags: object, patch: Mapping[str, object]) -> dict[str, object]:
    """``tags`` with ``patch`` merged in, as the hub merges twins.

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


def _parts(
    devices: Mapping[str, Mapping[str, object]], size: int
) -> Iterator[Mapping[str, Mapping[str, object]]]:
    rest = iter(devices.items())
    while part := dict(islice(rest, size)):
        yield part


def _written(configuration: HubConfiguration) -> object:
    from azure.iot.hub.models import Configuration, ConfigurationContent, ConfigurationMetrics

    return Configuration(
        id=configuration.id,
        schema_version=SCHEMA_VERSION,
        labels=dict(configuration.labels),
        content=ConfigurationContent(modules_content=dict(configuration.content)),
        target_condition=configuration.condition,
        priority=configuration.priority,
        metrics=ConfigurationMetrics(queries=dict(configuration.metrics)),
        etag=configuration.etag or None,
    )


def _read(found: object) -> HubConfiguration:
    metrics, system = getattr(found, "metrics", None), getattr(found, "system_metrics", None)
    created = getattr(found, "created_time_utc", None)
    content = getattr(found, "content", None)
    return HubConfiguration(
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
