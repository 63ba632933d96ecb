"""Values of a pickle that is not loaded: objects as names, arguments, items and states.

Keys are never hashed and objects never compared, so a small pickle cannot cause much work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from mlpack.tensor_patch.spans.span import MAX_NAME

MAX_DEPTH = 100
"""Of objects in objects that are searched."""

_FIRST_KEYS = 32
"""A large dictionary that many objects share would be searched for each of them."""


@dataclass(frozen=True, slots=True)
class Global:
    """A class or function that loading would import."""

    path: str


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes of the file."""

    start: int
    end: int


@dataclass(slots=True, eq=False)
class PickledObject:
    """A list, a set, a dictionary or an object that loading would make.

    ``leaf`` is what a reader of this kind of pickle recognised it as, for example an array.
    """

    function: object = None
    args: object = None
    items: list[tuple[object, object]] = field(default_factory=list)
    states: list[object] = field(default_factory=list)
    leaf: object = None

    def get(self, key: str) -> object:
        """Return the value of a key, if it is among a dictionary's first keys."""
        first = islice(self.items, _FIRST_KEYS)
        return next((value for name, value in first if name == key), None)


def global_path(function: object) -> str:
    """Return the path of a class or function; empty for anything else."""
    return function.path if isinstance(function, Global) else ""


def find_leaves(root: object) -> Iterator[tuple[str, object]]:
    """Yield each leaf with the keys and indices that lead to it: ``layers.0.weight``.

    A leaf that several paths lead to has the name of the first.
    """
    stack, seen = [iter([("", root)])], set[int]()
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
            continue
        name, value = step
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, PickledObject) and value.leaf is not None:
            yield name, value.leaf
        elif len(stack) < MAX_DEPTH:
            stack.append(_children(name, value))


def _children(name: str, value: object) -> Iterator[tuple[str, object]]:
    items: Iterable[tuple[object, object]] = ()
    if isinstance(value, tuple):
        items = enumerate(value)
    elif isinstance(value, PickledObject):
        yield from ((name, each) for each in (value.args, *value.states) if each is not None)
        items = value.items
    for key, inner in items:
        if isinstance(inner, PickledObject | tuple) and isinstance(key, str | int):
            yield f"{name}.{key}".removeprefix(".")[-MAX_NAME:], inner
