"""How many of an element's bits are low ones: what an array's form and its tables say."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .arrays import Array
from .program import ArrayForm


@dataclass(frozen=True, slots=True)
class Widths:
    """For each element of a block: bits that are low, what is taken off first, and its class."""

    low: Array
    shift: Array | None
    classes: Array | None
    """``None`` where there is but one."""

    steep: bool
    """Whether symbols from 64 on are steps; else all are numbers themselves."""

    def none_low(self) -> Widths:
        """The same without low bits, but for those of a symbol's step."""
        return replace(self, low=np.zeros_like(self.low))


class Law:
    """The widths of an array's elements: in eighths of a bit, a base and table entries (int8)."""

    def __init__(self, form: ArrayForm, entries: bytes | memoryview) -> None:
        self._form = form
        kind, table = form.kind, np.frombuffer(entries, np.int8)
        self._centred = bool(kind.fraction) and not form.delta
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
        # Without tables over axes, all follows from the exponent.
        self._whole, self._eighth = self._parts(eighths)

    def widths(self, exponents: Array, places: Array, classes: int) -> Widths:
        """Of the elements at ``places`` of the array, whose predictions have ``exponents``.

        Floats that nothing predicts have a fixed number of low bits: the sign and all of the
        fraction but its first bit. What their width says is taken off their exponent instead.
        """
        kind = self._form.kind
        index = np.zeros_like(exponents) if self._centred else exponents
        if self._factors:
            eighths = self._eighths.take(index)
            for factor, table in self._factors:
                eighths += table.take(places // factor.stride % factor.size)
            whole, eighth = self._parts(eighths)
        else:
            whole = self._whole.take(index)
            eighth = self._eighth.take(index) if classes > 1 else self._eighth
        classed = eighth * np.uint8(classes) >> np.uint8(3) if classes > 1 else None
        if not self._centred:
            return Widths(whole, None, classed, steep=kind.size > 1)
        low = np.full(len(index), kind.fraction, np.uint8)
        shift = whole.astype(kind.unsigned) << kind.unsigned.type(kind.fraction + 1)
        return Widths(low, shift, classed, steep=False)

    def _parts(self, eighths: Array) -> tuple[Array, Array]:
        """Whole bits, as many as there may be, and the eighths beyond."""
        kind = self._form.kind
        most = kind.exponents - 1 if self._centred else kind.widest
        whole = np.clip(eighths >> 3, 0, most).astype(np.uint16 if most > 255 else np.uint8)
        return whole, (eighths & 7).astype(np.uint8)
