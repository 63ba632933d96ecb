"""JSON values as numpy arrays, exactly: no number wraps around, and no whole number is rounded.

orjson reads whole numbers beyond 64 bits, and all decimals, as float64. Where that loses a whole
number, :func:`reading` reads the request's text again with exact decimals.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

import numpy as np
import orjson

from .http_errors import BadRequest
from .scorer import Array

ALLOW = "the module takes missing values with MLPACK_ALLOW_NAN=1"

_Result = TypeVar("_Result")

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""Half of a character, which Python's parser takes alone and orjson does not."""

_EXACT = 2.0**53
"""Whole numbers below it are the same as float64."""


class Inexact(Exception):
    """The numbers as read may not be those of the text."""


class Constant(float):
    """NaN or Infinity, written as such: an infinite ``float`` is a number that is too large."""


class Unfit(Exception):
    """The values are not those of the element type; the text is the reason."""


def reading(
    content: bytes | memoryview, read: Callable[[object], _Result], *, allow_nan: bool = False
) -> _Result:
    """Return what ``read`` returns for the document; call it again if numbers were not exact.

    Numbers that are not finite may be written as Python does (NaN, Infinity) if ``allow_nan``.
    Raises :class:`BadRequest` if ``content`` is not JSON.
    """
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        document = _with_constants(bytes(content), error, allow_nan=allow_nan)
    try:
        return read(document)
    except Inexact:
        return read(_loads(bytes(content), parse_float=_decimal))


def array_of(value: object, dtype: np.dtype[np.generic], *, allow_nan: bool = False) -> Array:
    """Return ``value`` as an array of ``dtype``; null is NaN if ``allow_nan``.

    Raises :class:`Unfit`, and :class:`Inexact` if the text has to be read again.
    """
    held = np.asarray(value, dtype=object)
    flat = held.ravel().tolist()
    values = _Flat(flat, set(map(type, flat)), held.shape)
    make = _MAKE.get(dtype.kind, _wholes)
    if dtype.kind == "f" and not allow_nan:
        values.require_present()
    return make(values, dtype).reshape(held.shape)


_NAMES = {
    bool: "true or false",
    dict: "an object",
    Constant: "not finite",
    str: "a text",
    type(None): "null",
}
"""What messages call JSON's values other than numbers."""


class _Flat:
    """All elements in row-major order, and their types."""

    __slots__ = ("kinds", "shape", "values")

    def __init__(self, values: list[Any], kinds: set[type], shape: tuple[int, ...]) -> None:
        self.values = values
        self.kinds = kinds
        self.shape = shape

    def require(self, *allowed: type, problem: str) -> None:
        """Raise :class:`Unfit` if an element has another type."""
        if self.kinds <= set(allowed):
            return
        others = self.kinds - set(allowed)
        place = next(n for n, each in enumerate(self.values) if type(each) in others)
        kind = type(self.values[place])
        if kind is list:
            raise Unfit("rows differ in length")
        reason = f"{self.at(place)} is {_NAMES.get(kind, 'a number')}, {problem}"
        raise Unfit(reason)

    def require_present(self) -> None:
        """Raise :class:`Unfit` if an element is null."""
        if type(None) in self.kinds:
            raise Unfit(f"{self.at(self.values.index(None))} is null; {ALLOW}")

    def at(self, place: int) -> str:
        """Return the index of an element for a message."""
        index = np.unravel_index(place, self.shape) if self.shape else ()
        return f"[{', '.join(str(int(each)) for each in index)}]" if index else "it"


def _texts(flat: _Flat, dtype: np.dtype[np.generic]) -> Array:
    flat.require(str, problem="not all are texts")
    found: Array = np.empty(len(flat.values), dtype=dtype)
    found[:] = flat.values
    return found


def _truths(flat: _Flat, dtype: np.dtype[np.generic]) -> Array:
    flat.require(bool, problem="not all are true or false")
    return np.array(flat.values, dtype=dtype)


def _decimals(flat: _Flat, dtype: np.dtype[np.generic]) -> Array:
    """Return floats, rounded to the nearest; null is NaN."""
    flat.require(int, float, Decimal, Constant, type(None), problem="not all are numbers")
    try:
        wide = np.array(flat.values, dtype=np.float64)
    except OverflowError as error:
        place = next(n for n, each in enumerate(flat.values) if _exceeds_floats(each))
        raise Unfit(f"{flat.at(place)} is too large") from error
    with np.errstate(over="ignore"):
        found: Array = wide.astype(dtype, copy=False)
    for place in np.flatnonzero(np.isinf(found)).tolist():
        if type(flat.values[place]) is not Constant:
            raise Unfit(f"{flat.at(place)} is too large")
    return found


def _exceeds_floats(value: object) -> bool:
    return isinstance(value, int) and abs(value) > sys.float_info.max


def _wholes(flat: _Flat, dtype: np.dtype[np.generic]) -> Array:
    """Return whole numbers, which may be written as decimals such as 2.0."""
    flat.require(int, float, Decimal, problem="not all are whole numbers")
    values = flat.values
    if flat.kinds - {int}:
        values = [_whole(each, flat, place) for place, each in enumerate(values)]
    limits = np.iinfo(str(dtype))
    low, high = int(limits.min), int(limits.max)
    if values and (max(values) > high or min(values) < low):
        place = next(n for n, each in enumerate(values) if not low <= each <= high)
        least = "least" if values[place] < low else "most"
        raise Unfit(
            f"{flat.at(place)} is too {'small' if least == 'least' else 'large'}: "
            f"{dtype} holds at {least} {low if least == 'least' else high}"
        )
    return np.array(values, dtype=dtype)


def _whole(value: float | Decimal, flat: _Flat, place: int) -> int:
    if type(value) is int:
        return value
    if isinstance(value, float):
        if _EXACT <= abs(value) < math.inf:
            raise Inexact
        value = Decimal(value)
    if not -(2**64) < value < 2**64:
        # Not made a Python integer, which may need more memory than there is.
        raise Unfit(f"{flat.at(place)} is too {'large' if value > 0 else 'small'}")
    if value % 1:
        raise Unfit(f"{flat.at(place)} is not a whole number")
    return int(value)


_MAKE = {"O": _texts, "b": _truths, "f": _decimals}
"""The makers of arrays by numpy's kind of element type; of all others, :func:`_wholes`."""


def _with_constants(
    content: bytes, error: orjson.JSONDecodeError, *, allow_nan: bool
) -> Mapping[str, object]:
    """Return a document with NaN or Infinity, which JSON lacks, or with a number above float64."""
    problem = BadRequest(f"the request is not JSON ({error})")
    constants = b"NaN" in content or b"Infinity" in content or "infinity" in str(error)
    if not constants or _SURROGATE.search(content):
        raise problem from error
    found: list[str] = []

    def constant(text: str) -> Constant:
        found.append(text)
        return Constant(text)

    try:
        document: Mapping[str, object] = _loads(content, parse_constant=constant)
    except BadRequest:
        raise problem from error
    if found and not allow_nan:
        raise BadRequest(f"the request is not JSON: it has {found[0]}; {ALLOW}") from error
    return document


def _loads(content: bytes, **how: Callable[[str], object]) -> Any:  # noqa: ANN401
    how.setdefault("parse_constant", Constant)
    try:
        return json.loads(content.decode(), **how)  # type: ignore[arg-type]
    except RecursionError as error:
        raise BadRequest("the request is nested too deeply") from error
    except ValueError as error:
        raise BadRequest(f"the request is not JSON ({error})") from error


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent beyond all limits
        return Decimal(float(text))
