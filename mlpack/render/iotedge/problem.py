"""What is wrong with a deployment manifest, and the way every check is run."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from mlpack.errors import MlpackError
from mlpack.oci.document import InvalidContent, Node
from mlpack.words import nearest


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing a device or IoT Hub would refuse: its JSON path and what it is."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


class InvalidDeployment(MlpackError, ValueError):
    """A deployment manifest that must not be sent; ``problems`` holds every reason."""

    hint = "correct what is named above: a device would refuse it, or never run it"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(each) for each in self.problems))


_HALF = re.compile("[\ud800-\udfff]")
MAX_LEVELS = 64
"""How deep a manifest may nest: far more than a twin's 10 levels and all around them."""

Check = Callable[[Node], Iterator[Problem]]
"""Looks at one value and yields what is wrong with it; may raise ``InvalidContent``."""


def require_readable(value: object, where: str) -> None:
    """Refuse what JSON can say and those who walk the document could not read.

    That is one that nests beyond :data:`MAX_LEVELS`, or a text with half a character in it.
    """
    level, levels = [value], 0
    while level:
        if levels > MAX_LEVELS:
            raise InvalidContent(where, f"nests deeper than {MAX_LEVELS} levels")
        _require_whole_characters(level, where)
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in ((*each, *each.values()) if isinstance(each, dict) else each)
        ]
        levels += 1


def _require_whole_characters(values: Iterable[object], where: str) -> None:
    for each in values:
        # Only an escape of JSON can make one: "\\ud800" without the half that belongs to it.
        if isinstance(each, str) and not each.isascii() and _HALF.search(each):
            raise InvalidContent(where, f"holds half a character: {each[:20]!a}")


def run(node: Node, *checks: Check) -> Iterator[Problem]:
    """Run every check on ``node``; one that cannot go on is a problem, and the next still runs."""
    for check in checks:
        try:
            yield from check(node)
        except InvalidContent as error:
            yield Problem(error.where, error.problem)


def members(required: Collection[str], optional: Collection[str] = ()) -> Check:
    """Check that an object has the ``required`` members and none beyond the ``optional`` ones."""
    known = (*required, *optional)

    def check(node: Node) -> Iterator[Problem]:
        for key in required:
            if node.get(key) is None:
                yield Problem(node.where, f"{key!r} is missing")
        for key, value in node.items():
            if key not in known:
                yield Problem(value.where, f"is not a known member{nearest(key, known)}")

    return check


def member(key: str, check: Check) -> Check:
    """Check the member ``key`` with ``check`` where it is there."""

    def inner(node: Node) -> Iterator[Problem]:
        found = node.get(key)
        if found is not None:
            yield from run(found, check)

    return inner


def one_of(allowed: Collection[str], refused: str = "") -> Check:
    """Check that a text is one of ``allowed``; ``refused`` says more about the others."""

    def check(node: Node) -> Iterator[Problem]:
        text = node.text()
        if text not in allowed:
            yield Problem(node.where, f"is {text!r}, not {' or '.join(allowed)}{refused}")

    return check


def whole_number(minimum: int, maximum: int) -> Check:
    """Check that a value is a whole number from ``minimum`` to ``maximum``."""

    def check(node: Node) -> Iterator[Problem]:
        node.integer(minimum=minimum, maximum=maximum)
        yield from ()

    return check


def text(node: Node) -> Iterator[Problem]:
    """Check that a value is a string."""
    node.text()
    yield from ()
