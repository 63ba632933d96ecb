"""What an ONNX file says and onnxruntime does not, read without the onnx package.

Which inputs have no shape, and the categories that a model's encoders know: a model that was
trained with ``pro`` and ``free`` may fail on any other text, so the page's first request needs one
of them. Source: onnx.proto, *ModelProto*, and ONNX's ML operators.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MOST_CATEGORIES = 1000

_KEYS = ("cats_strings", "cats_int64s", "keys_strings", "keys_int64s")
_SAME = ("Identity", "Reshape", "Cast", "Squeeze", "Unsqueeze", "Flatten", "Imputer")
"""Operators whose result has the first input's values, in the same order."""
_JOIN = "Concat"
_COLUMNS = ("ArrayFeatureExtractor", "Gather")
_MOST_STEPS = 32
_BYTES = 2
_VARINT = 0
_WIDTHS = {1: 8, 5: 4}

Categories = Mapping[tuple[str, int], Sequence[str | int]]
"""By the name of an input and the number of a column."""


@dataclass(slots=True)
class _Node:
    operator: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    keys: list[str | int] = field(default_factory=list)


def read_categories(path: Path) -> Categories:
    """Return the categories of the model's inputs; empty if the file is not understood."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
            return _categories(held)
    except (OSError, ValueError, IndexError):
        return {}


def read_unranked_inputs(path: Path) -> frozenset[str]:
    """Return the inputs that have no shape; none if the file is not understood."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
            return frozenset(_unranked(held))
    except (OSError, ValueError, IndexError):
        return frozenset()


def _unranked(model: mmap.mmap) -> Iterator[str]:
    for start, end in _parts(model, 0, len(model), 7):
        for each in _parts(model, start, end, 11):
            kinds = [kind for kind in _parts(model, *each, 2)]
            held = [tensor for kind in kinds for tensor in _parts(model, *kind, 1)]
            if held and not any(True for tensor in held for _ in _parts(model, *tensor, 2)):
                yield _text(model, *each, 1)


def _categories(model: mmap.mmap) -> Categories:
    nodes: list[_Node] = []
    inputs: set[str] = set()
    constants: dict[str, list[int]] = {}
    for start, end in _parts(model, 0, len(model), 7):
        nodes += [_node(model, *each) for each in _parts(model, start, end, 1)]
        inputs |= {_text(model, *each, 1) for each in _parts(model, start, end, 11)}
        constants |= dict(_constant(model, *each) for each in _parts(model, start, end, 5))
    makers = {name: node for node in nodes for name in node.outputs}
    found: dict[tuple[str, int], Sequence[str | int]] = {}
    for node in nodes:
        place = _source(node.inputs[0], makers, constants) if node.keys and node.inputs else None
        if place is not None and place[0] in inputs:
            found.setdefault(place, node.keys[:MOST_CATEGORIES])
    return found


def _source(
    name: str, makers: Mapping[str, _Node], constants: Mapping[str, Sequence[int]]
) -> tuple[str, int] | None:
    """Return the value, and its column, whose values ``name`` has; ``None`` if not known."""
    column = 0
    for _ in range(_MOST_STEPS):
        node = makers.get(name)
        if node is None:
            return name, column
        step = _step(node, column, constants)
        if step is None:
            return None
        name, column = step
    return None


def _step(
    node: _Node, column: int, constants: Mapping[str, Sequence[int]]
) -> tuple[str, int] | None:
    """Return the input, and its column, that a column of the node's result is."""
    if node.operator in _SAME:
        return node.inputs[0], column
    if node.operator == _JOIN and column < len(node.inputs):
        return node.inputs[column], 0  # named columns have one value each
    picked = constants.get(node.inputs[1], ()) if node.operator in _COLUMNS else ()
    return (node.inputs[0], picked[column]) if column < len(picked) else None


def _node(model: mmap.mmap, start: int, end: int) -> _Node:
    node = _Node(operator=_text(model, start, end, 4))
    node.inputs = [_decoded(model, *each) for each in _parts(model, start, end, 1)]
    node.outputs = [_decoded(model, *each) for each in _parts(model, start, end, 2)]
    for first, last in _parts(model, start, end, 5):
        if _text(model, first, last, 1) in _KEYS:
            node.keys += [_decoded(model, *each) for each in _parts(model, first, last, 9)]
            node.keys += _integers(model, first, last, 8)
    return node


def _constant(model: mmap.mmap, start: int, end: int) -> tuple[str, list[int]]:
    """Return a tensor's name, and its elements if they are a few numbers of 64 bits."""
    found = _integers(model, start, end, 7)
    for first, last in _parts(model, start, end, 9):
        if last - first <= 8 * MOST_CATEGORIES and _integers(model, start, end, 2) == [7]:
            found = [
                int.from_bytes(model[at : at + 8], "little", signed=True)
                for at in range(first, last, 8)
            ]
    return _text(model, start, end, 8), found


def _text(model: mmap.mmap, start: int, end: int, number: int) -> str:
    return next((_decoded(model, *each) for each in _parts(model, start, end, number)), "")


def _decoded(model: mmap.mmap, start: int, end: int) -> str:
    return model[start:end].decode("utf-8", "replace")


def _integers(model: mmap.mmap, start: int, end: int, number: int) -> list[int]:
    """Return a repeated field of whole numbers, packed or not."""
    found: list[int] = []
    for key, kind, first, last in _fields(model, start, end):
        if key == number and kind == _VARINT:
            found.append(_signed(first))
        elif key == number and kind == _BYTES:
            while first < last and len(found) < MOST_CATEGORIES:
                value, first = _varint(model, first)
                found.append(_signed(value))
    return found


def _parts(model: mmap.mmap, start: int, end: int, number: int) -> Iterator[tuple[int, int]]:
    for key, kind, first, last in _fields(model, start, end):
        if key == number and kind == _BYTES:
            yield first, last


def _fields(model: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, wire type, and the place of the content, or the value of a varint."""
    while start < end:
        tag, start = _varint(model, start)
        kind = tag & 7
        if kind == _VARINT:
            value, start = _varint(model, start)
            yield tag >> 3, kind, value, start
            continue
        length = _WIDTHS.get(kind, 0)
        if kind == _BYTES:
            length, start = _varint(model, start)
        elif not length:
            raise ValueError(f"wire type {kind}")
        if start + length > end:
            raise ValueError("cut short")
        yield tag >> 3, kind, start, start + length
        start += length


def _varint(model: mmap.mmap, start: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = model[start]
        value |= (byte & 127) << shift
        start, shift = start + 1, shift + 7
        if byte < 128:
            return value, start
    raise ValueError("not a number")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
