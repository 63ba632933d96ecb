"""Shares, link speeds and times as a user writes them: ``2%``, ``64 kbit/s``, ``30m``."""

from __future__ import annotations

import re
from decimal import Decimal

from mlpack.errors import UsageError

BUCKETS = 10_000
"""A share of a device group is a whole number of these."""

_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,2})?)\s*%")
_SPEED = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)\s*([kKMG]?)(bit|B)/s")
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)\s*([kKMG]?)(i?)B")
_TIME = re.compile(r"([0-9]{1,9})\s*(s|m|min|h|d)")
_SCALE = {"": 1, "k": 1000, "K": 1000, "M": 1000**2, "G": 1000**3}
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


class InvalidAmount(UsageError):
    """A text that is no share, speed or time."""


def parse_share(text: str) -> Decimal:
    """A share of 0 to 1 from a percentage of at most two decimals.

    >>> parse_share("2%"), parse_share("0.5 %"), parse_share("100%")
    (Decimal('0.02'), Decimal('0.005'), Decimal('1'))
    """
    found = _SHARE.fullmatch(text.strip())
    if found is None or Decimal(found[1]) > 100:
        raise InvalidAmount(f"{text!r} is not a share", hint="write it as 2%, at most 100%")
    return (Decimal(found[1]) / 100).normalize() + 0


def parse_stages(text: str) -> tuple[Decimal, ...]:
    """The shares of the stages of a rollout, rising to all: ``1%,10%,50%,100%``."""
    found = tuple(parse_share(each) for each in text.split(","))
    hint = "write them as 1%,10%,50%,100%"
    if list(found) != sorted(set(found)):
        raise InvalidAmount(f"the stages {text!r} do not rise", hint=hint)
    if found[0] <= 0:
        raise InvalidAmount(f"the first of the stages {text!r} holds no device", hint=hint)
    if found[-1] != 1:
        raise InvalidAmount(f"the stages {text!r} do not end with 100%", hint=hint)
    return found


def share_text(share: Decimal) -> str:
    """A share as a percentage.

    >>> [share_text(Decimal(x)) for x in ("0.02", "1", "0.005")]
    ['2%', '100%', '0.5%']
    """
    return f"{(share * 100).normalize():f}%"


def stages_text(stages: tuple[Decimal, ...]) -> str:
    """The stages as :func:`parse_stages` reads them."""
    return ",".join(share_text(each) for each in stages)


def parse_speed(text: str) -> int:
    """Bytes per second.

    >>> parse_speed("64 kbit/s"), parse_speed("2MB/s")
    (8000, 2000000)
    """
    found = _SPEED.fullmatch(text.strip())
    speed = Decimal(found[1]) * _SCALE[found[2]] / (8 if found[3] == "bit" else 1) if found else 0
    if speed < 1:
        raise InvalidAmount(f"{text!r} is not a speed", hint='write it as "64 kbit/s" or "2 MB/s"')
    return int(speed)


def parse_size(text: str) -> int:
    """Bytes; ``MB`` is a million, ``MiB`` 1024 times 1024.

    >>> parse_size("512 MB"), parse_size("1.5GiB")
    (512000000, 1610612736)
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None or (found[3] and not found[2]):
        raise InvalidAmount(f"{text!r} is not a size", hint='write it as "512 MB" or "1 GiB"')
    power = "kMG".index(found[2].replace("K", "k")) + 1 if found[2] else 0
    return int(Decimal(found[1]) * (1024 if found[3] else 1000) ** power)


def parse_time(text: str) -> int:
    """Seconds.

    >>> parse_time("90s"), parse_time("30m"), parse_time("2h")
    (90, 1800, 7200)
    """
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise InvalidAmount(f"{text!r} is not a time", hint="write it as 90s, 30m, 2h or 1d")
    return int(found[1]) * _SECONDS[found[2]]


def time_text(seconds: float) -> str:
    """A time, in the largest unit that gives it at least 1.5 of them.

    >>> [time_text(x) for x in (0.4, 45, 600, 7300, 200_000)]
    ['under 1 s', '45 s', '10 min', '2.0 h', '2.3 days']
    """
    if seconds < 1:
        return "under 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36 * 3600 else f"{seconds / 86400:.1f} days"
