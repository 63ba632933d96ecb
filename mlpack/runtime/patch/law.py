"""How many of an element's bits are low ones: what an array's form and its tables say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arrays import Array
from .program import ArrayForm


@dataclass(frozen=True, slots=True)
class Widths:
    """For each element of a block: bits that are low, what is taken off first, and its class."""

    low: Array
    shift: Array | None
    classes: Array
    steep: bool
    """Whether symbols from 64 on are steps; else all are numbers themselves."""


class Law:
    """The widths of an array's elements: in eighths of a bit, a base and table entries (int8)."""

    def __init__(self, form: ArrayForm, entries: bytes | memoryview) -> None:
        self._form = form
        self._centred = bool(form.kind.fraction) and not form.delta
        kind, table = form.kind, np.frombuffer(entries, np.int8)
        eighths = np.full(max(kind.exponents, 1), form.base, np.int32)
        if not self._centred:
            # A change of some size is fewer units in the last place of larger numbers.
            eighths -= 8 * np.arange(len(eighths), dtype=np.int32)
        eighths[form.lowest : form.lowest + form.exponents] += table[: form.exponents]
        self._eighths = eighths
        ends = np.cumsum([form.exponents, *(each.size for each in form.factors)])
        self._factors = [
            (each, table[end - each.size : end])
            for each, end in zip(form.factors, ends[1:], strict=True)
        ]

    def widths(self, exponents: Array, places: Array, classes: int) -> Widths:
        """Of the elements at ``places`` of the array, whose predictions have ``exponents``.

        Floats that nothing predicts have a fixed number of low bits: the sign and all of the
        fraction but its first bit. What their width says is taken off their exponent instead.
        """
        kind = self._form.kind
        if self._centred:
            eighths = np.full(len(places), self._form.base, np.int32)
        else:
            eighths = self._eighths[exponents]
        for factor, table in self._factors:
            eighths += table[places // factor.stride % factor.size]
        whole = np.maximum(eighths >> 3, 0)
        classed = ((eighths & 7) * classes >> 3).astype(np.uint8)
        if not self._centred:
            low = np.minimum(whole, kind.widest).astype(np.uint8)
            return Widths(low, None, classed, steep=kind.size > 1)
        low = np.full(len(places), kind.fraction, np.uint8)
        shift = np.minimum(whole, kind.exponents - 1).astype(kind.unsigned)
        shift = shift << kind.unsigned.type(kind.fraction + 1)
        return Widths(low, shift, classed, steep=False)
