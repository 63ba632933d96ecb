"""Tariffs, and what a rollout costs by one: a fixed part, and a part that follows the bytes.

There is no price in this code. A tariff is a file with its source and date; mlpack ships a few in
``templates/tariffs/``. Amounts are exact :class:`~decimal.Decimal`; only totals are rounded, to
the cent. What a tariff does not state is reported as unknown, never as nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date as Date
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Literal

from mlpack.errors import MlpackError, page
from mlpack.humanize import cents, size
from mlpack.json_document import HIDDEN
from mlpack.oci.descriptor import InvalidContent, Node

MAX_PRICE = 10**12
MAX_DECIMALS = 20
"""Prices beyond these are typing errors, and would make sums of absurd length."""

Kind = Literal["fixed", "usage"]


class InvalidTariff(MlpackError):
    """A tariff file that cannot be used; the message names the entry."""

    hint = f"a tariff file of each kind: {page('concepts/honest-bytes')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """``per-mb``: every byte is billed."""

    price: Decimal
    """Per :attr:`unit_bytes`."""

    unit_bytes: int
    step_bytes: int = 1
    """The volume of one device in one rollout is rounded up to a multiple of this."""

    price_per_device: Decimal = Decimal(0)
    """Due for every device, whatever is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """``flat`` and ``bundle``: a price for so many devices, with a volume they share."""

    price: Decimal
    devices: int = 1
    """How many devices one price covers; a bundle that is begun is due in full."""

    pool_bytes: int | None = None
    """Volume those devices share; ``None`` for no limit."""

    overage_price: Decimal | None = None
    """Per :attr:`overage_unit_bytes` beyond the pool; ``None`` if the tariff states none."""

    overage_unit_bytes: int = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """A tariff and its source."""

    name: str
    """A shipped tariff or a path."""

    title: str
    currency: str
    source: str
    date: Date
    """When the source stated it."""

    per: str
    """What the fixed part is due for: ``month``, ``rollout``, ``10 years``."""

    terms: Metered | Pooled = field(metadata=HIDDEN)

    @classmethod
    def parse(cls, text: str, name: str) -> Tariff:
        """Read a tariff file; raise :class:`InvalidTariff` naming the wrong entry."""
        where = f"tariff {name}"
        try:
            document = tomllib.loads(text, parse_float=Decimal)
        except (ValueError, RecursionError, ArithmeticError) as error:
            raise InvalidTariff(f"{where} is not TOML: {error}") from error
        try:
            return _tariff(Node(document, where), name)
        except InvalidContent as error:
            raise InvalidTariff(str(error)) from error


_HEAD = ("title", "kind", "currency", "source", "date", "price", "per")
_KEYS: Mapping[str, tuple[str, ...]] = {
    "per-mb": ("unit_bytes", "step_bytes", "price_per_device"),
    "flat": ("included_bytes", "overage_price", "overage_unit_bytes"),
    "bundle": ("devices", "pool_bytes", "overage_price", "overage_unit_bytes"),
}


def _tariff(root: Node, name: str) -> Tariff:
    kind = _line(root, "kind")
    if kind not in _KEYS:
        raise InvalidContent(f"{root.where}.kind", f"{kind!r} is none of {', '.join(_KEYS)}")
    for key in root.mapping():
        if key not in (*_HEAD, *_KEYS[kind]):
            raise InvalidContent(f"{root.where}.{key}", f"is not an entry of a {kind} tariff")
    currency = _line(root, "currency")
    if not (len(currency) == 3 and currency.isascii() and currency.isupper()):
        raise InvalidContent(f"{root.where}.currency", f"{currency!r} is not a code like USD")
    return Tariff(
        name=name,
        title=_line(root, "title"),
        currency=currency,
        source=_line(root, "source"),
        date=_date(root.need("date")),
        per=_line(root, "per") if root.get("per") else "month",
        terms=_metered_terms(root) if kind == "per-mb" else _pooled_terms(root, kind),
    )


def _metered_terms(root: Node) -> Metered:
    return Metered(
        price=_amount(root.need("price")),
        unit_bytes=root.need("unit_bytes").integer(minimum=1),
        step_bytes=_count(root, "step_bytes", 1),
        price_per_device=_amount(root.get("price_per_device") or Node(0, root.where)),
    )


def _pooled_terms(root: Node, kind: str) -> Pooled:
    pool = root.need("pool_bytes") if kind == "bundle" else root.get("included_bytes")
    overage = root.get("overage_price")
    return Pooled(
        price=_amount(root.need("price")),
        devices=root.need("devices").integer(minimum=1) if kind == "bundle" else 1,
        pool_bytes=pool.integer(minimum=1) if pool else None,
        overage_price=_amount(overage) if overage else None,
        overage_unit_bytes=_count(root, "overage_unit_bytes", 1_000_000),
    )


def _count(root: Node, key: str, default: int) -> int:
    return (root.get(key) or Node(default, root.where)).integer(minimum=1)


def _amount(node: Node) -> Decimal:
    """Read a price: exact, finite and not negative."""
    value = node.value
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise InvalidContent(node.where, "is not a number")
    amount = Decimal(value)
    if not amount.is_finite() or amount < 0:
        raise InvalidContent(node.where, f"{value} is not a price")
    exponent = amount.as_tuple().exponent
    if amount > MAX_PRICE or (isinstance(exponent, int) and exponent < -MAX_DECIMALS):
        raise InvalidContent(
            node.where, f"is more than {MAX_PRICE:,}, or has more than {MAX_DECIMALS} decimals"
        )
    return amount


def _line(root: Node, key: str) -> str:
    """Read a text that fits a line of a report and has no terminal codes."""
    node = root.need(key)
    text = node.text()
    if not text.strip() or not text.isprintable():
        raise InvalidContent(node.where, "is empty, or has a line break or a control character")
    return text


def _date(node: Node) -> Date:
    if isinstance(node.value, datetime) or not isinstance(node.value, Date):
        raise InvalidContent(node.where, "is not a date (write it as 2026-06-21, without quotes)")
    return node.value


@dataclass(frozen=True, slots=True)
class CostLine:
    """One position of the bill."""

    what: str
    kind: Kind
    quantity: Decimal
    unit: str
    """What :attr:`quantity` counts, and the price is for one of."""

    price: Decimal | None
    """Per unit; ``None`` if the tariff states none."""

    @property
    def amount(self) -> Decimal | None:
        """Exact; ``None`` if it is unknown."""
        return None if self.price is None else self.quantity * self.price

    def json_members(self) -> Mapping[str, object]:
        """Return the line with its amounts as texts."""
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
    """Volume the fixed part includes for these devices; ``None`` for no limit."""

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
        """What the bytes cost, exact; ``None`` if a part of it is unknown."""
        known = all(line.amount is not None for line in self.lines if line.kind == "usage")
        return self._sum("usage") if known else None

    @cached_property
    def total(self) -> Decimal:
        """All known amounts, to the cent: one period's fixed part and this rollout's usage.

        A lower bound unless :attr:`complete`.
        """
        return cents(self._sum("fixed") + self._sum("usage"))

    @property
    def complete(self) -> bool:
        """Whether every line has an amount."""
        return not self.unknowns

    def json_members(self) -> Mapping[str, object]:
        """Return the bill; ``usage`` is null if it is unknown."""
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
            "lines": self.lines,
            "warnings": self.warnings,
            "unknowns": self.unknowns,
        }

    def _sum(self, kind: Kind) -> Decimal:
        amounts = (line.amount for line in self.lines if line.kind == kind)
        return sum((amount for amount in amounts if amount is not None), Decimal(0))


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:f}"


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
    quantity, unit = Decimal(billed * devices) / terms.unit_bytes, f"{terms.unit_bytes:,} bytes"
    lines = [CostLine("bytes sent", "usage", quantity, unit, terms.price)]
    if price := terms.price_per_device:
        what = f"devices, per {tariff.per}"
        lines.insert(0, CostLine(what, "fixed", Decimal(devices), "device", price))
    return CostReport(
        tariff=tariff, devices=devices, bytes_per_device=bytes_per_device, lines=tuple(lines)
    )


def _pooled(tariff: Tariff, terms: Pooled, bytes_per_device: int, devices: int) -> CostReport:
    bundles = -(-devices // terms.devices)
    what, unit = "bundles", f"bundle of {terms.devices:,} devices"
    if terms.devices == 1:
        what, unit = "devices", "device"
    per = f"{what}, per {tariff.per}"
    lines = [CostLine(per, "fixed", Decimal(bundles), unit, terms.price)]
    over = _over(terms, bytes_per_device, devices)
    pool = None if terms.pool_bytes is None else bundles * terms.pool_bytes
    warnings, unknowns = [], []
    if over and pool is not None:
        quantity = Decimal(over) / terms.overage_unit_bytes
        unit = f"{terms.overage_unit_bytes:,} bytes"
        price = terms.overage_price
        lines.append(CostLine("bytes beyond the pool", "usage", quantity, unit, price))
        used = bytes_per_device * devices
        warnings.append(
            f"{size(bytes_per_device)} to each of {devices:,} devices is {size(used)}, and "
            f"{size(pool)} are included per {tariff.per}: {size(over)} beyond the pool"
        )
        if price is None:
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
    """Return the bytes beyond the pools; each bundle has its own, the last may be part full."""
    if terms.pool_bytes is None:
        return 0
    full, rest = divmod(devices, terms.devices)
    each = max(0, terms.devices * bytes_per_device - terms.pool_bytes)
    return full * each + max(0, rest * bytes_per_device - terms.pool_bytes)
