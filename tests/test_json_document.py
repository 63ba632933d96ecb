"""The one writer of JSON documents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path

import pytest

from mlpack.json_document import (
    HIDDEN,
    IF_SET,
    INLINE,
    OR_NULL,
    document,
    named,
    rounded,
    to_json,
    written,
)
from mlpack.oci.descriptor import Digest, Platform, Reference

NOTHING = Digest.of(b"")


class Kind(Enum):
    PATCH = "patch"


@dataclass(frozen=True)
class Part:
    digest: Digest
    size: int = field(metadata=named("bytes"))


@dataclass(frozen=True, kw_only=True)
class Whole:
    name: str
    parts: tuple[Part, ...]
    secret: str = field(default="", metadata=HIDDEN)
    advice: str = field(default="", metadata=IF_SET)
    onto: str = field(default="", metadata=OR_NULL)
    seconds: float = field(default=0.0, metadata=named("took") | rounded(3))
    share: Decimal = field(default=Decimal(1), metadata=written(lambda share: f"{share} of 1"))


@dataclass(frozen=True)
class Sent:
    whole: Whole = field(metadata=INLINE)
    place: Reference


@dataclass(frozen=True)
class Counted:
    counts: Mapping[Platform, int]

    def json_members(self) -> Mapping[str, object]:
        return {"total": sum(self.counts.values()), "counts": self.counts}


def test_fields_are_members_in_their_order() -> None:
    part = Part(NOTHING, 7)
    assert list(document(part).items()) == [("digest", str(NOTHING)), ("bytes", 7)]


def test_metadata_renames_rounds_and_leaves_out() -> None:
    whole = Whole(name="a", parts=(Part(NOTHING, 7),), secret="s", seconds=1.23456)
    assert document(whole) == {
        "name": "a",
        "parts": [{"digest": str(NOTHING), "bytes": 7}],
        "onto": None,
        "took": 1.235,
        "share": "1 of 1",
    }
    assert document(Whole(name="a", parts=(), advice="b"))["advice"] == "b"


def test_members_of_a_part_can_be_the_documents_own() -> None:
    sent = Sent(Whole(name="a", parts=()), Reference.parse("example.com/a/b:1"))
    assert list(document(sent)) == ["name", "parts", "onto", "took", "share", "place"]
    assert document(sent)["place"] == "example.com/a/b:1"


def test_members_that_are_no_fields() -> None:
    counted = Counted({Platform("linux", "amd64"): 2})
    assert to_json([counted]) == [{"total": 2, "counts": {"linux/amd64": 2}}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (Decimal("1.50"), "1.50"),
        (Path("a/b"), "a/b"),
        (Kind.PATCH, "patch"),
        (datetime(2026, 11, 20, 20, 13, tzinfo=UTC), "2026-11-20T20:13:00+00:00"),
        (date(2026, 11, 20), "2026-11-20"),
        (float("nan"), None),
        ((1, ("a",)), [1, ["a"]]),
    ],
)
def test_values(value: object, expected: object) -> None:
    assert to_json(value) == expected
    json.dumps(to_json(value))


@pytest.mark.parametrize("value", [b"bytes", object(), Part])
def test_what_cannot_be_written_is_a_bug(value: object) -> None:
    with pytest.raises(TypeError):
        to_json(value)
