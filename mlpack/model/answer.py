"""A module's answer for people: classes or faults, each with its probability."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

BEST = 5
_SHOWN = 200
_SUM = 0.01
"""How far the probabilities of all classes may be from one, rounded as they are."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """Rows of two cells under headers; of classes the most probable first."""

    headers: tuple[str, str]
    rows: tuple[tuple[str, str], ...]
    label: str = ""
    """The class that a classifier decides for, if its probabilities have numbers, not names.

    Not always the most probable one: ``SVC``, for example, decides without its probabilities.
    """

    @property
    def answer(self) -> tuple[str, str]:
        """The first row, with the label."""
        name, probability = self.rows[0]
        return f"{self.label} ({name})" if self.label else name, probability


CLASSES = ("class", "probability")
FAULTS = ("fault", "probability of a fault")


def meaning(document: object) -> Meaning | None:
    """Return the classes or faults in an answer; ``None`` if it has neither."""
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
    outputs = tuple(result.values()) if isinstance(result, Mapping) else ()
    found = next(filter(None, map(_classes, (result, *outputs))), None)
    label = next(filter(None, map(_label, outputs)), "")
    numbered = found is not None and found.rows[0][0].startswith(_NUMBERED)
    return replace(found, label=label) if found and numbered and label else found


_NUMBERED = "number "


def _label(output: object) -> str:
    """Read the label of one row, a text or a whole number."""
    while isinstance(output, list) and len(output) == 1:
        output = output[0]
    known = isinstance(output, str | int) and not isinstance(output, bool)
    return str(output) if known else ""


def _classes(result: object) -> Meaning | None:
    """Read the probabilities of all classes of one row, by name or by number."""
    while isinstance(result, list) and len(result) == 1:
        result = result[0]
    if isinstance(result, list):
        result = {f"{_NUMBERED}{each}": share for each, share in enumerate(result)}
    if not isinstance(result, Mapping) or len(result) < 2:
        return None
    if not all(map(_is_probability, result.values())) or abs(sum(result.values()) - 1) > _SUM:
        return None
    best = sorted(result, key=lambda name: -result[name])[:BEST]
    return Meaning(CLASSES, tuple((str(each), percent(result[each])) for each in best))


def shown(document: object) -> str:
    """Return an answer in one line, cut if it is long."""
    text = json.dumps(document, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters; --json)"


def percent(probability: float) -> str:
    """Write a probability for people.

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
