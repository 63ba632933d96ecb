"""``[budget]``: what an update may take at most; more, and mlpack ends with status 3."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from mlpack.model import amounts
from mlpack.model.table import parsed, table
from mlpack.oci.document import InvalidContent, Node

_MONEY = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,2})?)\s+([A-Z]{3})")


@dataclass(frozen=True, slots=True)
class Money:
    """An amount, and what it is counted in."""

    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRecipe:
    """Bounds of one update; ``None`` where there is none."""

    layer: int | None = None
    """Bytes of the layers a device fetches."""

    device: int | None = None
    """Bytes over the wire per device, with requests, headers and handshakes."""

    rollout: Money | None = None
    """What the bytes cost the whole fleet, once; not what is due whatever is sent."""

    @property
    def empty(self) -> bool:
        """Whether nothing is bounded."""
        return self == BudgetRecipe()


def read_budget(root: Node) -> BudgetRecipe:
    """Read ``[budget]`` of a whole ``mlpack.toml``."""
    node = table(root, "budget", "layer", "device", "rollout")
    layer, device, rollout = (node.get(key) for key in ("layer", "device", "rollout"))
    return BudgetRecipe(
        layer=parsed(layer, amounts.parse_size) if layer else None,
        device=parsed(device, amounts.parse_size) if device else None,
        rollout=_money(rollout) if rollout else None,
    )


def _money(node: Node) -> Money:
    found = _MONEY.fullmatch(node.text().strip())
    if found is None:
        raise InvalidContent(
            node.where,
            f"{node.value!r} is not an amount of money",
            hint='write it as "50 USD" or "0.50 EUR", in the currency of the tariff',
        )
    return Money(Decimal(found[1]), found[2])
