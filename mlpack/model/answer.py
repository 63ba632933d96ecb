"""What a module's answer says, for people: classes or faults, each with its probability."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

BEST = 5
_SHOWN = 200
_SUM = 0.01
"""How far the probabilities of all classes may be from one, rounded as they are."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """Rows of two cells under headers; of classes the most probable first."""

    headers: tuple[str, str]
    rows: tuple[tuple[str, str], ...]


CLASSES = ("class", "probability")
FAULTS = ("fault", "probability of a fault")


def meaning(document: object) -> Meaning | None:
    """The classes or faults in an answer; ``None`` where it holds neither."""
    if not isinstance(document, Mapping):
        return None
    if "fault" in document:
        return Meaning(FAULTS, (_fault(document),))
    result = document.get("result")
    if isinstance(result, list) and result and all(_is_fault(each) for each in result):
        return Meaning(FAULTS, tuple(_fault(each) for each in result))
    top = document.get("top")
    if isinstance(top, list) and top and all(_is_class(each) for each in top):
        return Meaning(
            CLASSES, tuple((str(e["label"]), percent(e["probability"])) for e in top[:BEST])
        )
    return _classes(result)


def _classes(result: object) -> Meaning | None:
    """Probabilities of all classes, which then have numbers for names."""
    if not isinstance(result, list) or len(result) < 2:
        return None
    if not all(_is_probability(each) for each in result) or abs(sum(result) - 1) > _SUM:
        return None
    best = sorted(range(len(result)), key=lambda number: -result[number])[:BEST]
    return Meaning(CLASSES, tuple((f"number {each}", percent(result[each])) for each in best))


def shown(document: object) -> str:
    """An answer in one line, cut where it is long."""
    text = json.dumps(document, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters; --json)"


def percent(probability: float) -> str:
    """A probability for people.

    >>> percent(0.98765), percent(0.0001)
    ('98.8 %', '0.0 %')
    """
    return f"{100 * probability:.1f} %"


def _fault(document: Mapping[str, object]) -> tuple[str, str]:
    probability = document.get("probability")
    known = isinstance(probability, int | float) and not isinstance(probability, bool)
    return str(document["fault"]), percent(float(str(probability))) if known else ""


def _is_fault(value: object) -> bool:
    return isinstance(value, Mapping) and "fault" in value


def _is_class(value: object) -> bool:
    if not isinstance(value, Mapping) or "label" not in value:
        return False
    return _is_probability(value.get("probability"))


def _is_probability(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(float(str(value))) and 0 <= float(str(value)) <= 1
