"""What a rollout costs: the part due whatever is sent, and the part that follows the bytes.

Amounts are exact :class:`~decimal.Decimal`; the one rounding is that of a total,
to the cent. What a tariff does not say is an unknown and counted as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Literal

from mlpack.plan.tariff import Metered, Pooled, Tariff
from mlpack.words import cents, size

Kind = Literal["fixed", "usage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLine:
    """One position of the bill."""

    what: str
    kind: Kind
    quantity: Decimal
    unit: str
    """What :attr:`quantity` counts, and the price is for one of."""

    price: Decimal | None
    """Per unit; ``None`` where the tariff does not say."""

    @property
    def amount(self) -> Decimal | None:
        """Exact; ``None`` where it is not known."""
        return None if self.price is None else self.quantity * self.price

    def to_json(self) -> dict[str, object]:
        """Amounts as texts: JSON numbers are not exact."""
        return {
            "what": self.what,
            "kind": self.kind,
            "quantity": _text(self.quantity),
            "unit": self.unit,
            "price": _text(self.price),
            "amount": _text(self.amount),
        }


@dataclass(frozen=True, kw_only=True)
class CostReport:
    """The bill for sending the same bytes to each of some devices, once."""

    tariff: Tariff
    devices: int
    bytes_per_device: int
    lines: tuple[CostLine, ...]
    included_bytes: int | None = 0
    """Volume the fixed part includes for these devices; ``None`` where it has no limit."""

    beyond_bytes: int = 0
    """What is sent beyond that volume."""

    warnings: tuple[str, ...] = ()
    unknowns: tuple[str, ...] = ()
    """What could not be priced, and why; never counted as nothing."""

    @cached_property
    def fixed(self) -> Decimal:
        """Due per :attr:`Tariff.per` whatever is sent; to the cent."""
        return cents(self._sum("fixed"))

    @cached_property
    def usage(self) -> Decimal | None:
        """What the bytes cost, exact; ``None`` where a part of it is not known."""
        known = all(line.amount is not None for line in self.lines if line.kind == "usage")
        return self._sum("usage") if known else None

    @cached_property
    def total(self) -> Decimal:
        """Everything that is known, to the cent: one period's fixed part and this rollout's usage.

        A lower bound where :attr:`complete` is false.
        """
        return cents(self._sum("fixed") + self._sum("usage"))

    @property
    def complete(self) -> bool:
        """Whether every line has an amount."""
        return not self.unknowns

    def to_json(self) -> dict[str, object]:
        """The bill as JSON; ``usage`` is null where it is not known."""
        return {
            "devices": self.devices,
            "bytes_per_device": self.bytes_per_device,
            "included_bytes": self.included_bytes,
            "beyond_bytes": self.beyond_bytes,
            "currency": self.tariff.currency,
            "fixed": _text(self.fixed),
            "usage": None if self.usage is None else _text(cents(self.usage)),
            "total": _text(self.total),
            "complete": self.complete,
            "lines": [line.to_json() for line in self.lines],
            "warnings": list(self.warnings),
            "unknowns": list(self.unknowns),
        }

    def _sum(self, kind: Kind) -> Decimal:
        amounts = (line.amount for line in self.lines if line.kind == kind)
        return sum((amount for amount in amounts if amount is not None), Decimal(0))


def cost(tariff: Tariff, bytes_per_device: int, devices: int) -> CostReport:
    """Price one rollout of ``bytes_per_device`` to ``devices``.

    The origin case: 60 MB to each of 1,000 devices in bundles of 500 at 720 a
    month is two bundles, 1,440, and more than they include.
    """
    terms = tariff.terms
    if isinstance(terms, Metered):
        return _metered(tariff, terms, bytes_per_device, devices)
    return _pooled(tariff, terms, bytes_per_device, devices)


def _metered(tariff: Tariff, terms: Metered, bytes_per_device: int, devices: int) -> CostReport:
    billed = -(-bytes_per_device // terms.step_bytes) * terms.step_bytes
    fixed = CostLine(
        what=f"devices, per {tariff.per}",
        kind="fixed",
        quantity=Decimal(devices),
        unit="device",
        price=terms.price_per_device,
    )
    usage = CostLine(
        what="bytes sent",
        kind="usage",
        quantity=Decimal(billed * devices) / terms.unit_bytes,
        unit=f"{terms.unit_bytes:,} bytes",
        price=terms.price,
    )
    return CostReport(
        tariff=tariff,
        devices=devices,
        bytes_per_device=bytes_per_device,
        lines=(fixed, usage) if terms.price_per_device else (usage,),
    )


def _pooled(tariff: Tariff, terms: Pooled, bytes_per_device: int, devices: int) -> CostReport:
    bundles = -(-devices // terms.devices)
    single = terms.devices == 1
    lines = [
        CostLine(
            what=f"{'devices' if single else 'bundles'}, per {tariff.per}",
            kind="fixed",
            quantity=Decimal(bundles),
            unit="device" if single else f"bundle of {terms.devices:,} devices",
            price=terms.price,
        )
    ]
    over = _over(terms, bytes_per_device, devices)
    pool = None if terms.pool_bytes is None else bundles * terms.pool_bytes
    warnings, unknowns = [], []
    if over and pool is not None:
        lines.append(_overage(terms, over))
        used = bytes_per_device * devices
        warnings.append(
            f"{size(bytes_per_device)} to each of {devices:,} devices is {size(used)}, and "
            f"{size(pool)} are included per {tariff.per}: {size(over)} beyond the pool"
        )
        if terms.overage_price is None:
            unknowns.append(
                f"the price of {size(over)} beyond the pool, which the tariff does not state"
            )
    return CostReport(
        tariff=tariff,
        devices=devices,
        bytes_per_device=bytes_per_device,
        lines=tuple(lines),
        included_bytes=pool,
        beyond_bytes=over,
        warnings=tuple(warnings),
        unknowns=tuple(unknowns),
    )


def _over(terms: Pooled, bytes_per_device: int, devices: int) -> int:
    """Bytes beyond the pools; each bundle has its own, and the last may be part full."""
    if terms.pool_bytes is None:
        return 0
    full, rest = divmod(devices, terms.devices)
    each = max(0, terms.devices * bytes_per_device - terms.pool_bytes)
    return full * each + max(0, rest * bytes_per_device - terms.pool_bytes)


def _overage(terms: Pooled, over: int) -> CostLine:
    return CostLine(
        what="bytes beyond the pool",
        kind="usage",
        quantity=Decimal(over) / terms.overage_unit_bytes,
        unit=f"{terms.overage_unit_bytes:,} bytes",
        price=terms.overage_price,
    )


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:f}"
