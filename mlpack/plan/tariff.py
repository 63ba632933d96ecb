"""Tariffs: how bytes become money, read from a file with its source and date.

There is no price in this code. mlpack ships a few tariffs in ``templates/tariffs/``;
a user's own is a file of the same form.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date as Date
from datetime import datetime
from decimal import Decimal

from mlpack.errors import MlpackError
from mlpack.oci.document import InvalidContent, Node

MAX_PRICE = 10**12
MAX_DECIMALS = 20
"""Prices beyond these are slips of the pen, and would make sums of absurd length."""


class InvalidTariff(MlpackError):
    """A tariff file that cannot be used; the message names the entry."""

    hint = "docs/bytes-and-money.md shows a tariff file of each kind"


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
    """How many devices one price covers; a bundle that is begun is paid whole."""

    pool_bytes: int | None = None
    """Volume those devices share; ``None`` where there is no limit."""

    overage_price: Decimal | None = None
    """Per :attr:`overage_unit_bytes` beyond the pool; ``None`` where the tariff does not say."""

    overage_unit_bytes: int = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """A tariff and where it comes from."""

    name: str
    """What the user calls it: a shipped tariff or a path."""

    title: str
    currency: str
    source: str
    date: Date
    """When the source said so."""

    per: str
    """What the fixed part is due for: ``month``, ``rollout``, ``10 years``."""

    terms: Metered | Pooled

    @classmethod
    def parse(cls, text: str, name: str) -> Tariff:
        """Read a tariff file; raise :class:`InvalidTariff` naming the entry at fault."""
        where = f"tariff {name}"
        try:
            return _tariff(Node(tomllib.loads(text, parse_float=Decimal), where), name)
        except tomllib.TOMLDecodeError as error:
            raise InvalidTariff(f"{where} is not TOML: {error}") from error
        except InvalidContent as error:
            raise InvalidTariff(str(error)) from error

    def to_json(self) -> dict[str, object]:
        """What a report says about the tariff it used."""
        return {
            "name": self.name,
            "title": self.title,
            "currency": self.currency,
            "source": self.source,
            "date": self.date.isoformat(),
            "per": self.per,
        }


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
            raise InvalidContent(f"{root.where}.{key}", f"is no entry of a {kind} tariff")
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
        terms=_metered(root) if kind == "per-mb" else _pooled(root, kind),
    )


def _metered(root: Node) -> Metered:
    monthly = root.get("price_per_device")
    return Metered(
        price=_amount(root.need("price")),
        unit_bytes=root.need("unit_bytes").integer(minimum=1),
        step_bytes=_count(root, "step_bytes", 1),
        price_per_device=_amount(monthly) if monthly else Decimal(0),
    )


def _pooled(root: Node, kind: str) -> Pooled:
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
    found = root.get(key)
    return found.integer(minimum=1) if found else default


def _amount(node: Node) -> Decimal:
    """A price: exact, finite and not negative."""
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
    """A text that fits a line of a report and carries no terminal codes."""
    node = root.need(key)
    text = node.text()
    if not text.strip() or not text.isprintable():
        raise InvalidContent(node.where, "is empty, or holds a line break or a control character")
    return text


def _date(node: Node) -> Date:
    if isinstance(node.value, datetime) or not isinstance(node.value, Date):
        raise InvalidContent(node.where, "is not a date (write it as 2026-06-21, without quotes)")
    return node.value
