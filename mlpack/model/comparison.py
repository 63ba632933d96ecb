"""How a converted model answers compared with the estimator it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from mlpack.json_document import SORTED
from mlpack.oci.descriptor import InvalidContent, Node

FLOAT32, FLOAT64 = "float32", "float64"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a converted model may be from its estimator."""

    max_error: float = 1e-3
    """Probabilities: the difference. Other numbers: the difference relative to their size."""

    max_unequal: float = 0.0
    """Share of rows (0 to 1) with another label."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest differences between two sets of answers."""

    max_error: float
    """Of probabilities absolute, of other numbers relative; infinite if one is not a number."""

    unequal: float | None
    """Share of rows with another label; ``None`` for a model without labels."""

    def within(self, bounds: Bounds) -> bool:
        """Whether neither exceeds its bound."""
        return self.max_error <= bounds.max_error and (self.unequal or 0.0) <= bounds.max_unequal

    @classmethod
    def from_json(cls, node: Node) -> Difference:
        """Read a member of a document; a null error is infinite."""
        error, unequal = node.get("max_error"), node.get("unequal")
        return cls(
            inf if error is None else number(error),
            None if unequal is None else number(unequal),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A converted model's answers held against its estimator's, on the machine of `register`."""

    rows: int
    check: str = ""
    """sha256 of the user's file of rows, in hexadecimal; empty for rows made by mlpack."""

    inputs: str
    """Element type of the model's numbers: ``float32`` or ``float64``."""

    difference: Difference
    """From the estimator on the very numbers that the model read."""

    rounding: Difference | None = None
    """From the estimator on the numbers before they were rounded to float32."""

    packages: Mapping[str, str] = field(default_factory=dict, metadata=SORTED)
    """Versions of the packages that converted and compared."""

    @property
    def rounding_matters(self) -> bool:
        """Whether rounding the rows to float32 adds a multiple of the other differences."""
        if self.rounding is None:
            return False
        unequal = (self.rounding.unequal or 0.0) > (self.difference.unequal or 0.0)
        return unequal or self.rounding.max_error > max(1e-5, 10 * self.difference.max_error)

    @classmethod
    def from_json(cls, node: Node) -> Comparison:
        """Read the member ``compared`` of a model version."""
        check, rounding = node.get("check"), node.get("rounding")
        return cls(
            rows=node.need("rows").integer(),
            check=check.text() if check else "",
            inputs=node.need("inputs").text(),
            difference=Difference.from_json(node.need("difference")),
            rounding=Difference.from_json(rounding) if rounding else None,
            packages=node.need("packages").text_map(),
        )


def describe(difference: Difference) -> str:
    """Return a difference in words.

    >>> describe(Difference(2e-7, 0.0)), describe(Difference(0.5, None))
    ('labels equal, largest difference 2e-07', 'largest difference 0.5')
    """
    error = f"largest difference {difference.max_error:.2g}"
    if difference.unequal is None:
        return error
    if not difference.unequal:
        return f"labels equal, {error}"
    return f"{100 * difference.unequal:.3g} % of the labels differ, {error}"


def number(node: Node) -> float:
    """Return a member that is a number; raise :class:`~mlpack.oci.descriptor.InvalidContent`."""
    if isinstance(node.value, bool) or not isinstance(node.value, int | float):
        raise InvalidContent(node.where, "is not a number")
    return float(node.value)
