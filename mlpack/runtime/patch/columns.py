"""Files whose numbers are gathered in columns: models of trees as text, JSON or UBJSON.

Such a file has the same short arrays for every tree. Packed, the numbers of one name are one array,
and what is between them is the skeleton. A rule makes exactly the file's bytes from the numbers,
on every processor: digits follow from operations on integers and floats that IEEE 754 defines.
The encoder, ``mlpack.tensor_patch``, keeps a packed file only if :func:`join` undoes it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MAGIC = b"MLPC"
HEAD = struct.Struct("<4sIII")
"""Magic, bytes of the skeleton, runs, columns."""
COLUMN = struct.Struct("<BBI")
"""Rule, separator, numbers."""
RUN = np.dtype("<u4"), np.dtype("<u4"), np.dtype("u1")
"""Of each run: bytes of the skeleton before it, its numbers, its column. One array each."""
SEPARATORS = ("", ",", " ", ", ")

_BLOCK = 4096
"""Numbers whose digits are made at once."""
_ONE = 60
_POWERS = np.array([float(f"1e{each}") for each in range(-_ONE, _ONE + 1)])


def join(packed: memoryview) -> Iterator[bytes]:
    """Yield the file in pieces; raise :class:`ValueError` for bytes that no encoder makes.

    After head and columns, the packed file has the skeleton, the runs, and each column's arrays.
    """
    if len(packed) < HEAD.size or packed[: len(MAGIC)] != MAGIC:
        raise ValueError("not a file of columns")
    _, size, count, columns = HEAD.unpack_from(packed)
    start = HEAD.size + columns * COLUMN.size
    if start > len(packed):
        raise ValueError("a file that ends before its columns")
    heads = list(COLUMN.iter_unpack(packed[HEAD.size : start]))
    if any(rule >= len(RULES) for rule, _, _ in heads):
        raise ValueError("a column of an unknown rule")
    skeleton, at = packed[start : start + size], start + size
    runs, at = _arrays(packed, at, RUN, count)
    takes = list[Callable[[int], bytes]]()
    for rule, separator, length in heads:
        arrays, at = _arrays(packed, at, RULES[rule].forms, length)
        takes.append(RULES[rule].take(arrays, SEPARATORS[separator % len(SEPARATORS)]))
    if count and runs[2].max() >= columns:
        raise ValueError("a run of an unknown column")
    done = 0
    for before, numbers, column in zip(*(each.tolist() for each in runs), strict=True):
        yield bytes(skeleton[done : done + before]) + takes[column](numbers)
        done += before
    yield bytes(skeleton[done:])


def _arrays(
    packed: memoryview, at: int, forms: Sequence[np.dtype[Any]], count: int
) -> tuple[list[Array], int]:
    found = []
    for form in forms:
        found.append(np.frombuffer(packed, form, count, at))
        at += found[-1].nbytes
    return found, at


@dataclass(frozen=True, slots=True)
class Rule:
    """The types of a column's arrays, and what takes the bytes of the next numbers of them."""

    forms: tuple[np.dtype[Any], ...]
    take: Callable[[Sequence[Array], str], Callable[[int], bytes]]


def _binary(stored: str, written: str) -> Rule:
    """Return the rule of big-endian numbers, as UBJSON has them, which may be stored narrower."""

    def take(arrays: Sequence[Array], _: str) -> Callable[[int], bytes]:
        at = 0

        def some(count: int) -> bytes:
            nonlocal at
            at += count
            return arrays[0][at - count : at].astype(written).tobytes()

        return some

    return Rule((np.dtype(stored),), take)


def _written(digits: Callable[..., list[str]], *forms: str) -> Rule:
    """Return the rule of numbers as text."""

    def blocks(arrays: Sequence[Array]) -> Iterator[str]:
        for first in range(0, len(arrays[0]), _BLOCK):
            yield from digits(*(each[first : first + _BLOCK] for each in arrays))

    def take(arrays: Sequence[Array], separator: str) -> Callable[[int], bytes]:
        tokens = blocks(arrays)
        return lambda count: separator.join(islice(tokens, count)).encode()

    return Rule(tuple(map(np.dtype, forms)), take)


def _integers(values: Array) -> list[str]:
    return list(map(str, values.tolist()))


def _longest(values: Array) -> list[str]:
    return [f"{each:.17g}" for each in values.tolist()]


def _usual(values: Array) -> list[str]:
    return list(map(repr, values.tolist()))


@np.errstate(invalid="ignore", over="ignore")
def _shortest(values: Array) -> list[str]:
    """Return the fewest digits that tell each float32 from others: ``-1.25E-3``."""
    exact = np.abs(values.astype(np.float64))
    powers = np.where(exact > 0, np.searchsorted(_POWERS, exact, "right") - 1 - _ONE, 0)
    digits, left = np.zeros(len(values), np.int64), np.flatnonzero(np.isfinite(exact) & (exact > 0))
    for more in range(9):
        scale = _POWERS[more - powers[left] + _ONE]
        digits[left] = found = np.rint(exact[left] * scale)
        left = left[(found / scale).astype(np.float32) != np.abs(values[left])]
    powers += digits == 10  # one digit that was rounded up
    digits[digits == 10] = 1
    signs = np.where(np.signbit(values), "-", "").tolist()
    parts = zip(signs, map(str, digits.tolist()), powers.tolist(), strict=True)
    return [f"{sign}{_pointed(text)}E{power}" for sign, text, power in parts]


def _general(digits: Array, powers: Array) -> list[str]:
    """Return integers times powers of ten as C's ``%g`` does: ``0.0125``, ``1.25e-05``."""
    made = []
    for number, power in zip(digits.tolist(), powers.tolist(), strict=True):
        text, sign = str(abs(number)), "-" if number < 0 else ""
        exponent = len(text) - 1 + power
        if power > 0 or exponent < -4:
            text = f"{_pointed(text)}e{exponent:+03d}"
        elif power:
            text = text.zfill(1 - power)
            text = f"{text[:power]}.{text[power:]}"
        made.append(sign + text)
    return made


def _pointed(digits: str) -> str:
    return f"{digits[0]}.{digits[1:]}" if len(digits) > 1 else digits


INTEGERS = ("i1", "<i2", "<i4", "<i8")
BINARY = (
    *((stored, f">i{2**place}") for place in (1, 2, 3) for stored in INTEGERS[: place + 1]),
    ("<f4", ">f4"),
    ("<f8", ">f8"),
)
RULES = (
    *(_written(_integers, form) for form in INTEGERS),
    _written(_shortest, "<f4"),
    _written(_longest, "<f8"),
    _written(_usual, "<f8"),
    _written(_general, "<i4", "i1"),
    *(_binary(stored, written) for stored, written in BINARY),
)
"""Integers by width, float32 as XGBoost writes them, float64 with 17 and with the fewest digits,
decimal numbers, and big-endian numbers."""
