"""Reading one table of ``mlpack.toml``: known keys only, and messages that name the setting."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mlpack.errors import UsageError
from mlpack.oci.document import MAX_INTEGER, InvalidContent, Node
from mlpack.words import nearest

T = TypeVar("T")


def table(root: Node, name: str, *keys: str) -> Node:
    """The table ``name``, empty where it is not there; refuse a key that is none of ``keys``."""
    found = root.get(name) or Node({}, f"{root.where}.{name}")
    known(found, *keys)
    return found


def known(node: Node, *keys: str) -> None:
    """Refuse a key that is none of ``keys``."""
    for key in node.mapping():
        if key not in keys:
            raise InvalidContent(f"{node.where}.{key}", f"is not a setting{nearest(key, keys)}")


def text(node: Node, key: str, default: str) -> str:
    """The text of ``key``, or ``default``."""
    found = node.get(key)
    return found.text() if found else default


def filled(node: Node, key: str, default: str) -> str:
    """As :func:`text`, for what cannot be empty."""
    found = text(node, key, default)
    if not found.strip():
        raise InvalidContent(f"{node.where}.{key}", "is empty", hint="leave it out, or write one")
    return found


def integer(
    node: Node, key: str, default: int, *, minimum: int = 0, maximum: int = MAX_INTEGER
) -> int:
    """The whole number of ``key``, or ``default``."""
    found = node.get(key)
    return found.integer(minimum=minimum, maximum=maximum) if found else default


def flag(node: Node, key: str, default: bool) -> bool:
    """Whether ``key`` is true, or ``default``."""
    found = node.get(key)
    if found is None:
        return default
    if not isinstance(found.value, bool):
        raise InvalidContent(found.where, "is neither true nor false")
    return found.value


def parsed(node: Node, read: Callable[[str], T]) -> T:
    """What ``read`` makes of a text; where it refuses, the message names the setting too."""
    try:
        return read(node.text())
    except UsageError as error:
        raise InvalidContent(node.where, str(error), hint=error.hint) from error
