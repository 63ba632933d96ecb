"""What a release costs a fleet, and whether that is within ``[budget]``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from mlpack.errors import MlpackError
from mlpack.humanize import counted, money, size
from mlpack.json_document import HIDDEN, document
from mlpack.oci.descriptor import Digest, Platform
from mlpack.plan.cost import CostReport, Pooled, Tariff, cost
from mlpack.plan.engines import Link
from mlpack.plan.transfer import Alternative, AlternativeName, PullDiff
from mlpack.settings.project_settings import BudgetSettings, Money

Bound = Literal["layer", "device", "rollout"]

COLUMNS = (1_000, 100_000)
"""Fleet sizes that every report shows besides the requested one."""

NOT_COUNTED = (
    "TCP and IP headers: measured, 15 to 30 % on top of a small update; "
    "calculated, about 5 % on top of a large one",
    "what is fetched again after a lost connection: Docker keeps nothing of an aborted pull",
    "what the cloud charges: traffic out of the registry, messages of the IoT hub",
)
"""What no line of a report includes, whatever the tariff."""


@dataclass(frozen=True, kw_only=True)
class ReleaseReport:
    """Bytes per device by part, the alternatives, and their cost."""

    release: str
    """``NAME:VERSION``."""

    digest: Digest
    """The digest that a deployment names."""

    platform: Platform
    old: str
    """The release that the devices hold; ``none`` for empty devices."""

    engine: str
    """The engine that the alternatives and their cost are calculated for."""

    link: Link
    diffs: tuple[PullDiff, ...]
    """The same update with each requested engine."""

    alternatives: tuple[Alternative, ...]
    missing: tuple[str, ...] = ()
    """Alternatives that could not be calculated, and why."""

    tariff: Tariff
    devices: int

    @property
    def fleets(self) -> tuple[int, ...]:
        """Fleet sizes to show, ascending."""
        return tuple(sorted({self.devices, *COLUMNS}))

    def alternative(self, name: AlternativeName) -> Alternative | None:
        """Return the alternative ``name``; ``None`` if it could not be calculated."""
        return next((way for way in self.alternatives if way.name == name), None)

    @property
    def ours(self) -> Alternative | None:
        """What mlpack ships: the patch or packed model if the release is one, else the layer."""
        shipped: tuple[AlternativeName, ...] = ("patch", "packed", "layer")
        return next(filter(None, map(self.alternative, shipped)), None)

    def cost(self, way: Alternative, devices: int) -> CostReport:
        """Price an alternative for a fleet of ``devices``."""
        return cost(self.tariff, way.transfer.total, devices)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """The tariff's warnings about each alternative, for the requested fleet."""
        return tuple(
            f"{way.title}: {warning}"
            for way in self.alternatives
            for warning in self.cost(way, self.devices).warnings
        )

    @cached_property
    def unknowns(self) -> tuple[str, ...]:
        """Everything that no amount includes, for the requested fleet."""
        priced = tuple(
            f"{way.title}: {unknown}"
            for way in self.alternatives
            for unknown in self.cost(way, self.devices).unknowns
        )
        return (*self.missing, *priced, *self._shared_pool(), *NOT_COUNTED)

    def _shared_pool(self) -> tuple[str, ...]:
        terms = self.tariff.terms
        if isinstance(terms, Pooled) and terms.pool_bytes is not None:
            return (f"other traffic in the same {self.tariff.per}: it uses up the same pool",)
        return ()

    def to_json(self) -> dict[str, object]:
        """Return the document of ``mlpack --json report``; amounts are texts, bytes numbers."""
        link = self.link
        return document(
            {
                "release": self.release,
                "digest": self.digest,
                "platform": self.platform,
                "old": self.old,
                "engine": self.engine,
                "link": {name: getattr(link, name) for name in ("tls", "token_bytes", "by_digest")},
                "devices": self.devices,
                "transfers": [each.transfer for each in self.diffs],
                "strategies": [
                    {**document(each), "costs": [self.cost(each, count) for count in self.fleets]}
                    for each in self.alternatives
                ],
                "tariff": self.tariff,
                "warnings": self.warnings,
                "unknowns": self.unknowns,
            }
        )


class OverBudget(MlpackError):
    """An update that takes more than ``[budget]`` allows."""

    exit_status = 3
    hint = "make the update smaller (mlpack diff shows each layer), or raise [budget]"


class NoBudget(MlpackError):
    """A check against a budget without bounds."""

    hint = 'add [budget] to mlpack.toml, with device = "200 kB" for one'


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLine:
    """One bound, and what the update takes of it."""

    bound: Bound
    title: str = field(metadata=HIDDEN)
    allowed: str
    found: str
    over: bool


@dataclass(frozen=True, slots=True)
class BudgetCheck:
    """Every bound of a budget next to the update's own number."""

    release: str
    lines: tuple[BudgetLine, ...]

    @property
    def over(self) -> tuple[BudgetLine, ...]:
        """The bounds that are broken."""
        return tuple(line for line in self.lines if line.over)

    def require(self) -> None:
        """Raise :class:`OverBudget` with every number that is too large, in one line."""
        if self.over:
            broken = "; ".join(
                f"{line.title}: {line.found}, and [budget] {line.bound} allows {line.allowed}"
                for line in self.over
            )
            raise OverBudget(f"{self.release} is over its budget: {broken}")

    def to_json(self) -> dict[str, object]:
        """Return ``budget`` of the document of ``mlpack --json report --check``."""
        return document({"over": bool(self.over), "lines": self.lines})


def check(report: ReleaseReport, budget: BudgetSettings) -> BudgetCheck:
    """Compare ``report`` with ``budget``; raise :class:`NoBudget` if it has no bounds.

    What is unknown is over: a price the tariff does not state, or one in another currency.
    """
    if budget.empty:
        raise NoBudget("mlpack.toml has no [budget] to check against")
    return BudgetCheck(report.release, tuple(_lines(report, budget)))


def _lines(report: ReleaseReport, budget: BudgetSettings) -> Iterator[BudgetLine]:
    way = report.ours
    layers, total = (way.transfer.layers, way.transfer.total) if way else (None, None)
    if budget.layer is not None:
        yield _bytes("layer", "layers a device fetches", budget.layer, layers)
    if budget.device is not None:
        yield _bytes("device", "bytes per device", budget.device, total)
    if budget.rollout is not None:
        yield _money(report, budget.rollout)


def _bytes(bound: Bound, title: str, allowed: int, found: int | None) -> BudgetLine:
    return BudgetLine(
        bound=bound,
        title=title,
        # Exact next to the rounded one: numbers that round alike may differ.
        allowed=_exact(allowed),
        found="not known" if found is None else _exact(found),
        over=found is None or found > allowed,
    )


def _exact(count: int) -> str:
    rounded, exact = size(count), f"{count:,} bytes"
    return rounded if count < 1000 else f"{rounded} ({exact})"


def _money(report: ReleaseReport, allowed: Money) -> BudgetLine:
    way, currency = report.ours, report.tariff.currency
    bill = report.cost(way, report.devices) if way else None
    title = f"rollout to {counted(report.devices, 'device')}"
    limit = f"{money(allowed.amount)} {allowed.currency}"
    if bill is None or bill.usage is None:
        found, over = "a price the tariff does not state", True
    elif currency != allowed.currency:
        found, over = f"{money(bill.usage)} {currency}, another currency", True
    else:
        over = bill.usage > allowed.amount
        shown = money(bill.usage)
        if over and shown == money(allowed.amount):
            shown = f"{bill.usage.normalize():f}"
        found = f"{shown} {currency}"
    return BudgetLine(bound="rollout", title=title, allowed=limit, found=found, over=over)
