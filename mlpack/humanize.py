"""Numbers as people read them (bytes, counts and money), and words they mistyped."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Context, Decimal

CENT = Decimal("0.01")

_EXACT = Context(prec=80, rounding=ROUND_HALF_UP)
"""Wide enough for the dearest tariff, the largest blob and the largest fleet at once."""


def size(count: int) -> str:
    """Bytes; decimal units, as network bills use them.

    >>> [size(999), size(12_706), size(60_000_000)]
    ['999 B', '12.7 KB', '60.0 MB']
    """
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("KB", "MB", "GB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:,.1f} TB"


def money(amount: Decimal) -> str:
    """An amount to the cent; what is more than nothing never reads as nothing.

    >>> [money(Decimal(x)) for x in ("1440", "0.655", "0.0007", "0")]
    ['1,440.00', '0.66', 'under 0.01', '0.00']
    """
    shown = cents(amount)
    return "under 0.01" if amount > 0 and not shown else f"{shown:,}"


def cents(amount: Decimal) -> Decimal:
    """Round to the cent, halves up: the one rounding of a sum of money."""
    return amount.quantize(CENT, context=_EXACT)


def times(large: int, small: int) -> str:
    """How many times ``small`` goes into ``large``.

    >>> [times(30, 20), times(150, 10), times(1_334_900, 1)]
    ['1.5 times', '15 times', '1,334,900 times']
    """
    ratio = large / small
    return f"{ratio:,.1f} times" if ratio < 10 else f"{ratio:,.0f} times"


def share(part: int, whole: int) -> str:
    """A part of a whole in per cent.

    >>> [share(1, 3), share(22, 1_000_000), share(0, 5)]
    ['33.3 %', 'under 0.1 %', '0.0 %']
    """
    percent = 100 * part / whole
    return "under 0.1 %" if 0 < percent < 0.1 else f"{percent:,.1f} %"


def nearest(word: str, known: Iterable[str], *, alike: float = 0.6) -> str:
    """The known word closest to a mistyped one, as the end of a sentence; empty for none.

    ``alike`` is how much of both must agree, from 0 to 1 (:mod:`difflib`).

    >>> nearest("bsae", ["base", "model"]), nearest("x", ["base"])
    (" (did you mean 'base'?)", '')
    """
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=alike)
    return f" (did you mean {close[0]!r}?)" if close else ""


def counted(count: int, noun: str) -> str:
    """A number of things.

    >>> [counted(1, "layer"), counted(1000, "device")]
    ['1 layer', '1,000 devices']
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
