"""What a release costs a fleet: the value behind ``mlpack report``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from mlpack.oci.descriptor import Platform
from mlpack.oci.digest import Digest
from mlpack.plan.cost import CostReport, cost
from mlpack.plan.delta import Delta
from mlpack.plan.strategy import Way, WayName
from mlpack.plan.tariff import Pooled, Tariff
from mlpack.plan.wire import Link

COLUMNS = (1_000, 100_000)
"""Fleet sizes every report shows beside the one asked for."""

NOT_COUNTED = (
    "TCP and IP headers: measured, 15 to 30 % on top of a small update; "
    "reckoned, about 5 % on top of a large one",
    "what is fetched again after a lost connection: Docker keeps nothing of a pull it gave up",
    "what the cloud charges: traffic out of the registry, messages of the IoT hub",
)
"""What no line of a report holds, whatever the tariff."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Bytes per device by part, the ways beside each other, and their money."""

    release: str
    """Name and version, as the user writes them."""

    digest: Digest
    """What a deployment names."""

    platform: Platform
    old: str
    """What the devices hold; ``none`` for empty ones."""

    engine: str
    """The engine the ways and their money are worked out for."""

    link: Link
    deltas: tuple[Delta, ...]
    """The same update with each engine that was asked for."""

    ways: tuple[Way, ...]
    missing: tuple[str, ...] = ()
    """Ways that could not be worked out, and why."""

    tariff: Tariff
    devices: int

    @property
    def fleets(self) -> tuple[int, ...]:
        """Fleet sizes shown, ascending."""
        return tuple(sorted({self.devices, *COLUMNS}))

    def way(self, name: WayName) -> Way | None:
        """The way called ``name``, where it could be worked out."""
        return next((way for way in self.ways if way.name == name), None)

    @property
    def ours(self) -> Way | None:
        """The way mlpack takes: the patch where the release is one, else the layer."""
        return self.way("patch") or self.way("layer")

    def cost(self, way: Way, devices: int) -> CostReport:
        """What ``way`` costs a fleet of ``devices``."""
        return cost(self.tariff, way.transfer.total, devices)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What the tariff says against each way, for the fleet asked for."""
        return tuple(
            f"{way.title}: {warning}"
            for way in self.ways
            for warning in self.cost(way, self.devices).warnings
        )

    @cached_property
    def unknowns(self) -> tuple[str, ...]:
        """Everything no amount above includes, for the fleet asked for."""
        priced = tuple(
            f"{way.title}: {unknown}"
            for way in self.ways
            for unknown in self.cost(way, self.devices).unknowns
        )
        return (*self.missing, *priced, *self._shared_pool(), *NOT_COUNTED)

    def _shared_pool(self) -> tuple[str, ...]:
        terms = self.tariff.terms
        if isinstance(terms, Pooled) and terms.pool_bytes is not None:
            return (f"other traffic in the same {self.tariff.per}: it uses up the same pool",)
        return ()

    def to_json(self) -> dict[str, object]:
        """The document ``mlpack report --json`` prints; amounts are texts, bytes numbers."""
        return {
            "release": self.release,
            "digest": str(self.digest),
            "platform": str(self.platform),
            "old": self.old,
            "engine": self.engine,
            "link": {
                "tls": self.link.tls,
                "token_bytes": self.link.token_bytes,
                "by_digest": self.link.by_digest,
            },
            "devices": self.devices,
            "transfers": [delta.transfer.to_json() for delta in self.deltas],
            "strategies": [
                {
                    **way.to_json(),
                    "costs": [self.cost(way, count).to_json() for count in self.fleets],
                }
                for way in self.ways
            ],
            "tariff": self.tariff.to_json(),
            "warnings": list(self.warnings),
            "unknowns": list(self.unknowns),
        }
