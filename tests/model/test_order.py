"""The orders of versions: total, by value where they are numbered, by age for the newest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.model.order import (
    age_order,
    is_numbered,
    moment,
    moment_after,
    precedence,
    predecessor,
    reaches,
    version_order,
)

NUMBERED = st.from_regex(
    r"v?[0-9]{1,2}(\.[0-9]{1,2}){0,2}(-(rc|beta|alpha)?(\.?[0-9]{1,2})?)?", fullmatch=True
).filter(lambda text: not text.endswith("-"))
WORDS = st.from_regex(r"[a-z0-9]{1,8}([._-][a-z0-9]{1,8}){0,2}", fullmatch=True)
VERSIONS = NUMBERED | WORDS
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)

SEMVER = (
    "0.9.9",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.9.0",
    "1.10.0-rc.1",
    "1.10.0",
    "2",
    "10",
    "2024-06-01",
    "2024-10-01",
    "beta2",
    "beta10",
)
"""In order; those of 1.0.0 are the example of semver.org, item 11."""


def test_versions_are_ordered_as_semantic_versions_are() -> None:
    for one, other in pairwise(SEMVER):
        assert precedence(one) < precedence(other), (one, other)
    assert sorted(reversed(SEMVER), key=version_order) == list(SEMVER)


@pytest.mark.parametrize(
    ("one", "other"),
    [("1.0", "1.0.0"), ("v1.2", "1.2"), ("1.0.0-rc1", "1.0.0-rc.1"), ("1.0rc1", "1.0-rc1")],
)
def test_ways_to_write_one_version_are_equal_but_have_an_order(one: str, other: str) -> None:
    assert precedence(one) == precedence(other)
    assert version_order(one) != version_order(other)


@given(VERSIONS, VERSIONS, VERSIONS)
def test_the_order_is_total(first: str, second: str, third: str) -> None:
    for one, other, last in permutations((first, second, third)):
        assert (version_order(one) == version_order(other)) == (one == other)
        assert (version_order(one) < version_order(other)) != (
            version_order(one) >= version_order(other)
        )
        if version_order(one) <= version_order(other) <= version_order(last):
            assert version_order(one) <= version_order(last)


@given(st.lists(VERSIONS, unique=True))
def test_the_order_does_not_depend_on_the_start(versions: list[str]) -> None:
    assert sorted(versions, key=version_order) == sorted(versions[::-1], key=version_order)


@pytest.mark.parametrize("text", ["7f3a2c1", "3d-model", "champion", "1e10beef", "rc1"])
def test_words_and_commits_are_not_numbers(text: str) -> None:
    assert not is_numbered(text)


@pytest.mark.parametrize(
    ("version", "least", "expected"),
    [
        ("1.9.0", "1.10.0", False),
        ("1.10.0", "1.10.0", True),
        ("1.10", "1.10.0", True),
        ("1.10.1", "1.10.0", True),
        ("1.10.0-rc.1", "1.10.0", False),
        ("1.10.0", "1.10.0-rc.1", True),
        ("10", "9", True),
        ("9", "10", False),
        ("alpha", "beta", True),
        ("beta", "alpha", False),
        ("gamma", "beta", True),
        ("3", "beta", True),
    ],
)
def test_what_reaches_a_version(version: str, least: str, expected: bool) -> None:
    registered = ["beta", "alpha", "3", "9", "10", "1.9.0"]
    assert reaches(version, least, registered) is expected


@pytest.mark.parametrize(
    ("version", "made", "expected"),
    [
        ("2", ["1", "2"], "1"),
        ("1.10.0", ["1.9.0", "1.10.0"], "1.9.0"),
        ("1.9.1", ["1.9.0", "2.0.0", "1.9.1"], "1.9.0"),
        ("1.9.0", ["1.10.0", "1.9.0"], "1.10.0"),
        ("alpha", ["beta", "alpha", "gamma"], "beta"),
        ("1", ["1", "2"], None),
        ("7", ["1"], None),
    ],
)
def test_what_devices_had_before(version: str, made: list[str], expected: str | None) -> None:
    assert predecessor(version, made) == expected


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8))
def test_what_is_made_later_is_newer_whatever_the_clock_shows(seconds: list[int]) -> None:
    times: list[str] = []
    for each in seconds:
        times.append(moment_after(NOON + timedelta(seconds=each), times))
    assert [moment(each) for each in times] == sorted({moment(each) for each in times})
    assert times[0] == (NOON + timedelta(seconds=seconds[0])).isoformat()


def test_what_has_no_time_is_older_and_in_the_order_of_versions() -> None:
    made = [(NOON.isoformat(), "1"), ("", "10"), ("", "9"), ("then", "2"), ("2026-11-20", "3")]
    ordered = sorted(made, key=lambda each: age_order(*each))
    assert [version for _, version in ordered] == ["2", "9", "10", "3", "1"]
