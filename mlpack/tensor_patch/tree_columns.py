"""Gathers the numbers of a model of trees in columns (:mod:`mlpack.runtime.patch.columns`).

The name of a column is the word before its numbers: a key of JSON or UBJSON, or what a line of
LightGBM's text begins with. These are found inside other files, too, such as pickles.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpack.runtime.patch.columns import (
    BINARY,
    COLUMN,
    HEAD,
    INTEGERS,
    MAGIC,
    RULES,
    RUN,
    SEPARATORS,
    join,
)
from mlpack.tensor_patch.spans import Kind, Span

Array = NDArray[Any]

MOST = 1 << 25
"""Bytes of a file whose numbers are gathered: this takes memory for about ten times as much."""

LEAST = 64
"""Numbers in a column; fewer stay in the skeleton."""

_MOST_COLUMNS = 255
_PROBED = 16
"""Bytes that show whether JSON is text, and numbers on which a rule is tried first."""

_NUMBER = rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_TEXT = re.compile(rb"([A-Za-z_]\w*)|(%b(?:(, ?| )%b(?:\3%b)*)?)" % ((_NUMBER,) * 3))
_TREES = re.compile(rb'tree\nversion=v|\{"learner":\{')
"""How the text of LightGBM and the JSON of XGBoost begin."""
_ARRAY = re.compile(rb"\[\$([IlLdD])#L(.{8})", re.DOTALL)
"""In UBJSON: the type and the number of the numbers that follow."""
_NAME = re.compile(rb"[A-Za-z_]\w*\Z")
_MAX_NAME = 64
_WRITTEN = {b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}

_INTEGER = re.compile(rb"0|-?[1-9]\d{0,17}")
_DECIMAL = re.compile(rb"(-?\d+)(?:\.(\d+))?(?:e([-+]\d+))?")

_MAX_DIGITS = 32

_SHORTEST, _FLOATS, _GENERAL = 4, (5, 6), 7
_FIRST_BINARY = len(RULES) - len(BINARY)
_KINDS = {
    "f4": Kind.F32,
    "f8": Kind.F64,
    **{f"i{kind.width}": kind for kind in Kind if "i" in kind},
}


@dataclass(frozen=True, slots=True)
class _Run:
    """``count`` adjacent numbers of a column, and their bytes."""

    start: int
    end: int
    count: int
    form: bytes
    """The separator of text, the type of UBJSON."""


@dataclass(frozen=True, slots=True)
class _Column:
    rule: int
    separator: int
    arrays: tuple[Array, ...]


@dataclass(frozen=True, slots=True)
class Gathered:
    """A file with its numbers in columns, and where these are."""

    packed: bytes
    spans: tuple[Span, ...]
    decimals: tuple[Span, ...]
    """Those whose numbers repeat too rarely for a compressor of bytes."""


def gathered(content: memoryview) -> Gathered | None:
    """Return a file in columns; ``None`` if it has too few numbers in a known form.

    :func:`~mlpack.runtime.patch.columns.join` returns the file again, which is checked.
    """
    if len(content) > MOST:
        return None
    data = bytes(content)
    start = _text_start(data)
    text = start is not None
    groups: dict[str, list[_Run]] = defaultdict(list)
    for key, run in _binary_runs(data) if start is None else _text_runs(data, start):
        groups[key].append(run)
    columns = dict[str, _Column]()
    for key, runs in groups.items():
        if sum(each.count for each in runs) >= LEAST and len(columns) < _MOST_COLUMNS:
            pieces = [data[each.start : each.end] for each in runs]
            form = max(each.form for each in runs)  # a single number has no separator
            column = _text_column(pieces, form) if text else _binary_column(pieces, form)
            if column:
                columns[key] = column
    packed, spans = _packed(data, {key: groups[key] for key in columns}, columns)
    if not columns or b"".join(join(memoryview(packed))) != data:
        return None
    general = {f"{key}.0" for key, column in columns.items() if column.rule == _GENERAL}
    return Gathered(packed, spans, tuple(each for each in spans if each.name in general))


def _text_start(data: bytes) -> int | None:
    """Return where text begins: the whole file, or the trees of a library in a pickle."""
    if data.startswith((b"{", b"[")) and b"\0" not in data[:_PROBED]:
        return 0
    found = _TREES.search(data)
    return found.start() if found else None


def _text_runs(data: bytes, start: int) -> Iterator[tuple[str, _Run]]:
    """Yield the runs of numbers after each word; all of one word have one separator."""
    key, forms = "", dict[str, bytes]()
    for token in _TEXT.finditer(data, start):
        if token[1]:
            key = token[1].decode()
        elif token[3] is None:
            yield key, _Run(token.start(), token.end(), 1, b"")
        elif forms.setdefault(key, token[3]) == token[3]:
            yield key, _Run(token.start(), token.end(), token[2].count(token[3]) + 1, token[3])


def _binary_runs(data: bytes) -> Iterator[tuple[str, _Run]]:
    """Yield the arrays of UBJSON; all of one name have one type."""
    forms, last = dict[str, bytes](), 0
    for found in _ARRAY.finditer(data):
        name = _NAME.search(data[max(0, found.start() - _MAX_NAME) : found.start()])
        key, count = name[0].decode() if name else "", int.from_bytes(found[2], "big")
        end = found.end() + count * np.dtype(_WRITTEN[found[1]]).itemsize
        same = forms.setdefault(key, found[1]) == found[1]
        if count and same and last <= found.start() and end <= len(data):
            yield key, _Run(found.end(), end, count, found[1])
            last = end


def _text_column(pieces: Sequence[bytes], separator: bytes) -> _Column | None:
    tokens = [token for piece in pieces for token in piece.split(separator or None)]
    if max(map(len, tokens)) > _MAX_DIGITS:
        return None
    place = SEPARATORS.index(separator.decode())
    if all(map(_INTEGER.fullmatch, tokens)):
        values = np.array(tokens).astype(np.int64)
        return next(
            _Column(rule, place, (values.astype(form),))
            for rule, form in enumerate(INTEGERS)
            if np.array_equal(values.astype(form), values)
        )
    for rule in (_SHORTEST, _GENERAL, *_FLOATS):
        if _made(rule, tokens[:_PROBED]) and (arrays := _made(rule, tokens)):
            return _Column(rule, place, arrays)
    return None


def _made(rule: int, tokens: list[bytes]) -> tuple[Array, ...] | None:
    """Return the arrays from which a rule makes exactly these tokens."""
    if rule == _GENERAL:
        arrays = _decimals(tokens)
    else:
        with np.errstate(over="ignore"):
            arrays = (np.array(tokens).astype(np.float64).astype(RULES[rule].forms[0]),)
    same = arrays and RULES[rule].take(arrays, ",")(len(tokens)) == b",".join(tokens)
    return arrays if same else None


def _decimals(tokens: list[bytes]) -> tuple[Array, ...] | None:
    """Return all digits of each number as an integer, and the power of ten of the last one."""
    parts = [each for each in map(_DECIMAL.fullmatch, tokens) if each]
    digits = [int(each[1] + (each[2] or b"")) for each in parts]
    powers = [int(each[3] or 0) - len(each[2] or b"") for each in parts]
    if len(parts) < len(tokens) or max(map(abs, digits)) >= 2**31 or max(map(abs, powers)) > 127:
        return None
    return np.array(digits, "<i4"), np.array(powers, "i1")


def _binary_column(pieces: Sequence[bytes], form: bytes) -> _Column:
    data = b"".join(pieces)
    values = np.frombuffer(data, _WRITTEN[form])
    return next(
        _Column(_FIRST_BINARY + place, 0, (values.astype(stored),))
        for place, (stored, written) in enumerate(BINARY)
        if written == _WRITTEN[form] and values.astype(stored).astype(written).tobytes() == data
    )


def _packed(
    data: bytes, groups: Mapping[str, Sequence[_Run]], columns: Mapping[str, _Column]
) -> tuple[bytes, tuple[Span, ...]]:
    placed = [(place, run) for place, runs in enumerate(groups.values()) for run in runs]
    placed.sort(key=lambda each: each[1].start)
    starts = [each.start for _, each in placed]
    ends = [0, *(each.end for _, each in placed)]
    literals = [data[end:start] for end, start in zip(ends, [*starts, len(data)], strict=True)]
    skeleton = b"".join(literals)
    rows = (
        [len(each) for each in literals[:-1]],
        [each.count for _, each in placed],
        [place for place, _ in placed],
    )
    arrays = {f"run.{place}": np.array(row, RUN[place]) for place, row in enumerate(rows)}
    for key, column in columns.items():
        arrays |= {f"{key}.{place}": array for place, array in enumerate(column.arrays)}
    heads = [
        COLUMN.pack(each.rule, each.separator, len(each.arrays[0])) for each in columns.values()
    ]
    made = [HEAD.pack(MAGIC, len(skeleton), len(placed), len(columns)), *heads, skeleton]
    at, spans = sum(map(len, made)), list[Span]()
    for name, array in arrays.items():
        kind = _KINDS[array.dtype.str[1:].replace("u", "i")]
        spans.append(Span(name, at, array.nbytes, kind, array.shape))
        made.append(array.tobytes())
        at += array.nbytes
    return b"".join(made), tuple(spans)
