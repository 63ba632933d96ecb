"""Facts about tensors, one node of a graph, and the table of rules that follow it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from onnx import NodeProto

ROWS = "mlpack.rows"
"""The name of the dimension of the rows in shape inference."""

SMALL = 1024
"""Elements of a constant up to which its value is kept, as those of shapes, axes and indices."""

ML = "ai.onnx.ml"
Shape = tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class Constant:
    """The same in every run."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """A function of the number of rows; ``elements`` are those of a vector of sizes, if known."""

    elements: Shape | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """Slice i along ``axis`` depends on row i alone, and there is one for each row."""

    axis: int


Fact = Constant | Sizes | Rows
CONSTANT = Constant()


class NotProved(Exception):
    """The proof ends; the message is the reason."""


@dataclass(frozen=True)
class Node:
    """One node, and what is known of its inputs."""

    proto: NodeProto
    opset: int
    facts: tuple[Fact, ...]
    shapes: Mapping[str, Shape]
    values: Mapping[str, np.ndarray]

    @property
    def op(self) -> str:
        """The operator."""
        return self.proto.op_type

    @property
    def domain(self) -> str:
        """The operator's domain; empty for ONNX's own."""
        return self.proto.domain

    @property
    def name(self) -> str:
        """Return the operator, and the node's name if it has one."""
        named = f" {self.proto.name!r}" if self.proto.name else ""
        return f"operator {self.op}{named}"

    @cached_property
    def attributes(self) -> Mapping[str, Any]:
        """The attributes' values by name."""
        from onnx import helper

        return {each.name: helper.get_attribute_value(each) for each in self.proto.attribute}

    @property
    def has_graphs(self) -> bool:
        """Whether it runs graphs of its own, as If and Loop do."""
        return any(each.HasField("g") or each.graphs for each in self.proto.attribute)

    def has(self, place: int) -> bool:
        """Return whether the node has the optional input."""
        return place < len(self.proto.input) and bool(self.proto.input[place])

    def shape(self, place: int) -> Shape:
        """Return the shape of an input; raise if not even its rank is known."""
        return self._shape(self.proto.input[place])

    @property
    def result(self) -> Shape:
        """Return the shape of the first output."""
        return self._shape(self.proto.output[0])

    def rank(self, place: int = 0) -> int:
        """Return the number of an input's axes; raise if it is unknown."""
        return len(self.shape(place))

    def value(self, place: int) -> np.ndarray:
        """Return the value of a small constant input."""
        found = self.values.get(self.proto.input[place])
        if found is None:
            raise self.mixes("with an input that is not constant")
        return found

    def rows(self, place: int = 0) -> int:
        """Return the axis of the rows of an input; raise if it has none."""
        fact = self.facts[place]
        if not isinstance(fact, Rows):
            raise self.mixes("with rows elsewhere than in its data")
        return fact.axis

    def need_constants(self, *places: int) -> None:
        """Raise if one of these inputs is there and not constant."""
        if any(self.has(place) and self.facts[place] != CONSTANT for place in places):
            raise self.mixes("with parameters that depend on the rows")

    def mixes(self, how: str = "") -> NotProved:
        """Return the error for an operator used in a way that is not followed."""
        return NotProved(f"{self.name} {how}".rstrip() + " is not known to keep rows apart")

    def need(self, kept: bool) -> None:
        """Raise unless the operator keeps rows apart."""
        if not kept:
            raise NotProved(f"{self.name} mixes rows, or chooses among them")

    def _shape(self, tensor: str) -> Shape:
        found = self.shapes.get(tensor)
        if found is None:
            raise NotProved(f"the rank of {tensor!r} is unknown")
        return found


Rule = Callable[[Node], Fact | tuple[Fact, ...]]
"""Returns one fact about all outputs, or one about each."""

RULES: dict[tuple[str, str], Rule] = {}
"""By domain and operator, for nodes of which an input has rows or, in a few, is sizes."""

RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
"""Operators whose outputs differ from run to run."""


def rule(names: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Add a rule for the operators of ``names``, which spaces separate."""

    def keep(rule: Rule) -> Rule:
        RULES.update({(domain, name): rule for name in names.split()})
        return rule

    return keep


def is_rows(fact: Fact) -> bool:
    """Return whether the fact is :class:`Rows`."""
    return isinstance(fact, Rows)


def size_from_right(shape: Shape, axis: int) -> int | str | None:
    """Return a size counted from the right; 1 beyond the left end, as in broadcasting."""
    return shape[axis] if -axis <= len(shape) else 1


def product(sizes: Shape) -> int | None:
    """Return the number of elements, if all sizes are known."""
    known = [each for each in sizes if isinstance(each, int)]
    return math.prod(known) if len(known) == len(sizes) else None
