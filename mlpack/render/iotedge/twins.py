"""The limits IoT Hub sets to the desired properties of a module (its *twin*).

Numbers: Microsoft Learn, "Understand and use device twins in IoT Hub" (2024-02)
and "IoT Hub quotas and throttling".
"""

from __future__ import annotations

from collections.abc import Iterator

from mlpack.oci.document import Node
from mlpack.render.iotedge.problem import Problem

MAX_TWIN_BYTES = 32 * 1024
MAX_VALUE_BYTES = 4 * 1024
MAX_KEY_BYTES = 1024
MAX_DEPTH = 10
_NUMBER_BYTES = 8
_BOOL_BYTES = 4


def twin_bytes(value: object) -> int:
    """What IoT Hub counts: keys and texts in UTF-8, 8 a number, 4 a boolean.

    >>> twin_bytes({"on": True, "limit": 70, "unit": "rpm"})
    26
    """
    if isinstance(value, dict):
        return sum(len(key.encode()) + twin_bytes(each) for key, each in value.items())
    if isinstance(value, list):
        return sum(twin_bytes(each) for each in value)
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, bool):
        return _BOOL_BYTES
    return 0 if value is None else _NUMBER_BYTES


def check(desired: Node) -> Iterator[Problem]:
    """Check the whole of one module's desired properties."""
    total = twin_bytes(desired.value)
    if total > MAX_TWIN_BYTES:
        yield Problem(desired.where, f"counts {total} bytes, a twin holds {MAX_TWIN_BYTES}")
    yield from _keys(desired)
    yield from _walk(desired, 0)


def _walk(node: Node, depth: int) -> Iterator[Problem]:
    if depth > MAX_DEPTH:
        yield Problem(node.where, f"lies deeper than the {MAX_DEPTH} levels of a twin")
    elif isinstance(node.value, str):
        yield from _text(node)
    else:
        for each in _children(node):
            yield from _walk(each, depth + isinstance(each.value, dict))


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node.value, dict):
        yield from (each for _, each in node.items())
    elif isinstance(node.value, list):
        yield from node.elements()


def _keys(node: Node) -> Iterator[Problem]:
    if isinstance(node.value, dict):
        for key, each in node.items():
            if what := _key_problem(key):
                yield Problem(each.where, what)
    for each in _children(node):
        yield from _keys(each)


def _text(node: Node) -> Iterator[Problem]:
    count = len(node.text().encode())
    if count > MAX_VALUE_BYTES:
        yield Problem(node.where, f"is {count} bytes, a value of a twin {MAX_VALUE_BYTES}")


def _key_problem(key: str) -> str:
    if len(key.encode()) > MAX_KEY_BYTES:
        return f"its name is {len(key.encode())} bytes, a twin takes {MAX_KEY_BYTES}"
    if not key or any(char in ".$ " or not char.isprintable() for char in key):
        return f"{key!r} is no name in a twin (no dot, $, space or control character)"
    return ""
