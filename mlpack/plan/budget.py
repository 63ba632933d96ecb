"""Whether an update stays within ``[budget]``: a verdict with its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mlpack.errors import MlpackError
from mlpack.model.budget import BudgetRecipe, Money
from mlpack.plan.report import Report
from mlpack.words import counted, money, size

Bound = Literal["layer", "device", "rollout"]


class OverBudget(MlpackError):
    """An update that takes more than ``[budget]`` allows."""

    exit_status = 3
    hint = "make the update smaller (mlpack diff shows each layer), or raise [budget]"


class NoBudget(MlpackError):
    """A check against a budget that says nothing."""

    hint = 'add [budget] to mlpack.toml, with device = "200 kB" for one'


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One bound, and what the update takes of it."""

    bound: Bound
    title: str
    allowed: str
    found: str
    over: bool

    def to_json(self) -> dict[str, object]:
        """The line as ``--json`` prints it."""
        return {
            "bound": self.bound,
            "allowed": self.allowed,
            "found": self.found,
            "over": self.over,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """Every bound of a budget beside the update's own number."""

    release: str
    lines: tuple[Line, ...]

    @property
    def over(self) -> tuple[Line, ...]:
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
        """``budget`` in the document of ``mlpack report --check --json``."""
        return {"over": bool(self.over), "lines": [line.to_json() for line in self.lines]}


def check(report: Report, budget: BudgetRecipe) -> Verdict:
    """Hold ``report`` against ``budget``; raise :class:`NoBudget` where it bounds nothing.

    What is not known is over: a price the tariff does not state, or one in another currency.
    """
    if budget.empty:
        raise NoBudget("mlpack.toml has no [budget] to check against")
    return Verdict(report.release, tuple(_lines(report, budget)))


def _lines(report: Report, budget: BudgetRecipe) -> Iterator[Line]:
    way = report.ours
    layers, total = (way.transfer.layers, way.transfer.total) if way else (None, None)
    if budget.layer is not None:
        yield _bytes("layer", "layers a device fetches", budget.layer, layers)
    if budget.device is not None:
        yield _bytes("device", "bytes per device", budget.device, total)
    if budget.rollout is not None:
        yield _money(report, budget.rollout)


def _bytes(bound: Bound, title: str, allowed: int, found: int | None) -> Line:
    return Line(
        bound=bound,
        title=title,
        # To the byte beside the rounded one: two numbers that round alike may well differ.
        allowed=_exact(allowed),
        found="not known" if found is None else _exact(found),
        over=found is None or found > allowed,
    )


def _exact(count: int) -> str:
    rounded, exact = size(count), f"{count:,} bytes"
    return rounded if count < 1000 else f"{rounded} ({exact})"


def _money(report: Report, allowed: Money) -> Line:
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
    return Line(bound="rollout", title=title, allowed=limit, found=found, over=over)
