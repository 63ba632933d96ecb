"""What a pickle would be loaded as: its objects as names, arguments, items and states.

Keys are never hashed and objects never compared, so a small pickle cannot ask for much work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from mlpack.delta.spans.span import MAX_NAME

MAX_DEPTH = 100
"""Of objects in objects, as far as they are looked into."""

_FEW = 32
"""A large dictionary that is given to many objects would be gone through for each."""


@dataclass(frozen=True, slots=True)
class Global:
    """What would be imported."""

    path: str


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes in the pickle."""

    start: int
    end: int


@dataclass(slots=True, eq=False)
class Made:
    """A list, a set, a dictionary or an object that would be made.

    ``leaf`` is what a reader of this pickle found it to be, an array for example.
    """

    what: object = None
    args: object = None
    items: list[tuple[object, object]] = field(default_factory=list)
    states: list[object] = field(default_factory=list)
    leaf: object = None

    def get(self, key: str) -> object:
        """What a key stands for in a dictionary of few keys."""
        few = islice(self.items, _FEW)
        return next((value for name, value in few if name == key), None)


def called(what: object) -> str:
    """The path of what would be called, or none."""
    return what.path if isinstance(what, Global) else ""


def leaves(root: object) -> Iterator[tuple[str, object]]:
    """What readers found in a pickle, by the keys and places that lead to it: ``layers.0.weight``.

    Each once, by the first way to it.
    """
    ways, seen = [iter([("", root)])], set[int]()
    while ways:
        step = next(ways[-1], None)
        if step is None:
            ways.pop()
            continue
        name, value = step
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Made) and value.leaf is not None:
            yield name, value.leaf
        elif len(ways) < MAX_DEPTH:
            ways.append(_within(name, value))


def _within(name: str, value: object) -> Iterator[tuple[str, object]]:
    """What may hold something, in a tuple or what would be made."""
    steps: Iterable[tuple[object, object]] = ()
    if isinstance(value, tuple):
        steps = enumerate(value)
    elif isinstance(value, Made):
        yield from ((name, each) for each in (value.args, *value.states) if each is not None)
        steps = value.items
    for key, inner in steps:
        if isinstance(inner, Made | tuple) and isinstance(key, str | int):
            yield f"{name}.{key}".removeprefix(".")[-MAX_NAME:], inner
