"""The orders of versions: by the numbers in them where two are compared, by age for the newest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

_NUMBERED = re.compile(
    r"v?([0-9]+(?:\.[0-9]+)*)(?:[._-](.+)|((?:a|b|c|rc|alpha|beta|pre|preview|dev)[._-]?[0-9]*))?"
)
_PART = re.compile(r"[0-9]+|[a-z]+")

Precedence = tuple[int, tuple[int, ...], int, tuple[tuple[int, int, str], ...]]


def precedence(version: str) -> Precedence:
    """Return the sort key of semantic versions (semver.org, item 11), for any version.

    Numbers are compared by value, and missing ones are 0: 1.9.0 is before 1.10, and 1.10 equals
    1.10.0. What follows a number and a separator is a pre-release, which is before the release;
    its numbers are compared by value, too. A version that is not numbered is after all that are.

    >>> sorted(["2", "1.10.0", "1.9.0", "1.10.0-rc.1", "beta"], key=precedence)
    ['1.9.0', '1.10.0-rc.1', '1.10.0', '2', 'beta']
    """
    found = _NUMBERED.fullmatch(version)
    if found is None:
        return 1, (), 0, _parts(version)
    numbers = [int(each) for each in found[1].split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    more = _parts(found[2] or found[3] or "")
    return 0, tuple(numbers), 0 if more else 1, more


def _parts(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return the numbers and words of ``text``; numbers are before words."""
    return tuple(
        (0, int(each), "") if each.isdecimal() else (1, 0, each) for each in _PART.findall(text)
    )


def is_numbered(version: str) -> bool:
    """Whether ``version`` is a number or a semantic version, so that its text orders it.

    >>> [is_numbered(text) for text in ("7", "1.10.0", "v2.0-rc1", "7f3a2c1", "champion")]
    [True, True, True, False, False]
    """
    return _NUMBERED.fullmatch(version) is not None


def version_order(version: str) -> tuple[Precedence, str]:
    """Return a sort key that no two versions share: :func:`precedence`, then the text.

    >>> sorted(["10", "9", "beta"], key=version_order)
    ['9', '10', 'beta']
    """
    return precedence(version), version


def reaches(version: str, least: str, known: Sequence[str] = ()) -> bool:
    """Whether ``version`` is ``least`` or a later one of the same model.

    Numbered versions are compared by :func:`precedence`. Of other texts, the one that comes later
    in ``known``, the versions of the model in the order they were made, is the later one.

    >>> reaches("1.9.0", "1.10.0"), reaches("alpha", "beta", ["beta", "alpha"])
    (False, True)
    """
    by_text = is_numbered(version) and is_numbered(least)
    if not by_text and version in known and least in known:
        return known.index(version) >= known.index(least)
    return precedence(version) >= precedence(least)


def predecessor(version: str, made: Sequence[str]) -> str | None:
    """Return what devices had before ``version``, of the versions ``made`` before it, oldest first.

    That is the closest lower number, and the last one made if there is none. ``None`` if
    ``version`` is the first.

    >>> predecessor("1.9.1", ["1.9.0", "2.0.0", "1.9.1"]), predecessor("b", ["z", "b"])
    ('1.9.0', 'z')
    """
    before = made[: made.index(version)] if version in made else ()
    lower = [
        each
        for each in before
        if is_numbered(each) and is_numbered(version) and precedence(each) < precedence(version)
    ]
    return max(lower, key=version_order) if lower else before[-1] if before else None


def next_version(versions: Iterable[str]) -> str:
    """The whole number after the greatest one in ``versions``; other texts do not count.

    >>> next_version(["1", "9", "beta"]), next_version([])
    ('10', '1')
    """
    return str(max((int(each) for each in versions if each.isdecimal()), default=0) + 1)


_NEVER = datetime.min.replace(tzinfo=UTC)


def moment(created: str) -> datetime:
    """Return when something was made; what has no readable time is older than all that has one."""
    try:
        found = datetime.fromisoformat(created)
    except ValueError:
        return _NEVER
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def moment_after(now: datetime, others: Iterable[str]) -> str:
    """Return ``now`` as text, or a microsecond after the last of ``others`` if that is later.

    Things that are made one after the other get times in that order, whatever the clock shows.

    >>> moment_after(datetime(2026, 1, 2, tzinfo=UTC), ["2026-01-02T00:00:00+00:00"])
    '2026-01-02T00:00:00.000001+00:00'
    """
    last = max(map(moment, others), default=_NEVER)
    if now > last:
        return now.isoformat(timespec="auto")
    return (last + timedelta(microseconds=1)).isoformat(timespec="auto")


def age_order(created: str, version: str) -> tuple[datetime, tuple[Precedence, str]]:
    """Return the sort key by which the version made last is the newest.

    Versions without a time, or with the same one, are in the order of :func:`version_order`.
    """
    return moment(created), version_order(version)
