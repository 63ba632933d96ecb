"""JSON documents: one canonical way to write them, one checked way to read them.

Reading collects the path to the offending value as it goes down, so a message
names ``manifest.layers[3].digest`` and not just "digest".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mlpack.errors import MlpackError

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
"""Larger manifests, indexes and configs are refused, as registries refuse them
(distribution-spec, *Pushing Manifests*)."""


MAX_INTEGER = 2**63 - 1
"""What other tools read: image-spec's sizes are int64."""


class InvalidContent(MlpackError, ValueError):
    """A document that does not say what it must; ``where`` is the path inside it."""

    def __init__(self, where: str, problem: str, *, hint: str = "") -> None:
        super().__init__(f"{where}: {problem}", hint=hint)
        self.where = where
        self.problem = problem


def canonical(value: object) -> bytes:
    """Write JSON in the one form mlpack hashes: sorted keys, no spaces, UTF-8.

    >>> canonical({"b": 1, "a": [True, None]})
    b'{"a":[true,null],"b":1}'
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


@dataclass(frozen=True, slots=True)
class Node:
    """A value inside a document, and where it stands."""

    value: object
    where: str

    def get(self, key: str) -> Node | None:
        """The member ``key`` of this object, or ``None`` where it is absent or null."""
        found = self.mapping().get(key)
        return None if found is None else Node(found, f"{self.where}.{key}")

    def need(self, key: str) -> Node:
        """The member ``key``; raise :class:`InvalidContent` where it is absent."""
        found = self.get(key)
        if found is None:
            raise InvalidContent(self.where, f"{key!r} is missing")
        return found

    def mapping(self) -> Mapping[str, object]:
        """This value as an object."""
        if not isinstance(self.value, dict):
            raise InvalidContent(self.where, "is not an object")
        return self.value

    def items(self) -> Iterator[tuple[str, Node]]:
        """The members of this object, each with its own place."""
        for key, value in self.mapping().items():
            yield key, Node(value, f"{self.where}.{key}")

    def elements(self) -> Iterator[Node]:
        """The elements of this array, each with its own place."""
        if not isinstance(self.value, list):
            raise InvalidContent(self.where, "is not an array")
        for number, value in enumerate(self.value):
            yield Node(value, f"{self.where}[{number}]")

    def text(self) -> str:
        """This value as a string."""
        if not isinstance(self.value, str):
            raise InvalidContent(self.where, "is not a string")
        return self.value

    def integer(self, *, minimum: int = 0, maximum: int = MAX_INTEGER) -> int:
        """This value as a whole number from ``minimum`` to ``maximum``."""
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            raise InvalidContent(self.where, "is not a whole number")
        if self.value < minimum:
            raise InvalidContent(self.where, f"is {self.value}, less than {minimum}")
        if self.value > maximum:
            raise InvalidContent(self.where, f"is {self.value}, more than {maximum}")
        return self.value

    def texts(self) -> tuple[str, ...]:
        """This array of strings."""
        return tuple(element.text() for element in self.elements())

    def text_map(self) -> dict[str, str]:
        """This object of strings."""
        return {key: value.text() for key, value in self.items()}


def parse(content: bytes, where: str) -> Node:
    """Read a JSON object; ``where`` names it in messages."""
    if len(content) > MAX_DOCUMENT_BYTES:
        raise InvalidContent(where, f"is {len(content)} bytes, more than {MAX_DOCUMENT_BYTES}")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidContent(where, f"is not JSON ({error})") from error
    node = Node(value, where)
    node.mapping()
    return node
