"""Writing arrays of numbers: the streams of symbols, low bits and the rest that arrays share."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mlpack.delta.logs import Array
from mlpack.delta.squeeze import Pack, squeeze
from mlpack.delta.steps import rounded_residuals
from mlpack.delta.trial import Fit, split
from mlpack.runtime.patch import container
from mlpack.runtime.patch.arrays import (
    BLOCK,
    LAST,
    exponents,
    folded,
    ordered,
    scaled,
    turned,
)
from mlpack.runtime.patch.law import Law
from mlpack.runtime.patch.program import ArrayForm


@dataclass
class Numbers:
    """What arrays take in a patch, in the new file's order."""

    tables: bytearray = field(default_factory=bytearray)
    low: bytearray = field(default_factory=bytearray)
    full: bytearray = field(default_factory=bytearray)
    mask: bytearray = field(default_factory=bytearray)
    symbols: bytearray = field(default_factory=bytearray)
    classes: bytearray = field(default_factory=bytearray)
    """Of each symbol, of the most classes there may be."""

    def add(self, fit: Fit, old: Array | None, new: Array) -> None:
        """Write one array by ``fit``; ``old`` is what it is the difference to."""
        form = fit.form
        law = Law(form, fit.tables)
        self.tables += fit.tables
        for first in range(0, len(new), BLOCK):
            after = new[first : first + BLOCK]
            before = np.zeros_like(after) if old is None else old[first : first + BLOCK]
            places = np.arange(first, first + len(after))
            if form.masked:
                changed = np.flatnonzero(before != after)
                self.mask += np.packbits(before != after, bitorder="little").tobytes()
                before, after, places = before[changed], after[changed], places[changed]
            self._block(form, law, before, after, places)

    def _block(self, form: ArrayForm, law: Law, old: Array, new: Array, places: Array) -> None:
        kind = form.kind
        predicted = scaled(kind, old, form.scale)
        found = law.widths(exponents(kind, predicted), places, container.MAX_CLASSES)
        if not form.delta:
            made = split(kind, turned(kind, new), found)
        else:
            differences = ordered(kind, new) - ordered(kind, predicted)
            if form.rounded:
                residuals = rounded_residuals(kind, differences, found)
                made = split(kind, residuals, found.none_low())
            else:
                made = split(kind, folded(kind, differences), found)
        self.symbols += made.symbols.tobytes()
        if found.classes is not None:
            self.classes += found.classes.tobytes()
        self.low += pack_low(made.shifted, made.low)
        self.full += made.shifted[made.symbols == LAST].tobytes()

    def packs(self, *, slow: bool) -> tuple[int, list[Pack]]:
        """The parts of these streams, and of how many classes their symbols are."""
        shared = [
            (container.TABLES, self.tables),
            (container.LOW, self.low),
            (container.ESCAPES, self.full),
            (container.MASK, self.mask),
        ]
        packs = [squeeze(stream, content, slow=slow) for stream, content in shared if content]
        ways = [(classes, self._symbols(classes, slow)) for classes in ((1, 8) if slow else (1,))]
        classes, symbols = min(ways, key=lambda way: sum(each.length + 8 for each in way[1]))
        return classes, packs + symbols

    def _symbols(self, classes: int, slow: bool) -> list[Pack]:
        if classes == 1:
            parts = [bytes(self.symbols)]
        else:
            symbols = np.frombuffer(self.symbols, np.uint8)
            found = np.frombuffer(self.classes, np.uint8)
            parts = [symbols[found == each].tobytes() for each in range(classes)]
        streams = enumerate(parts, container.SYMBOLS)
        return [squeeze(stream, content, slow=slow) for stream, content in streams if content]


def pack_low(residuals: Array, widths: Array) -> bytes:
    """The lowest ``widths`` bits of each, from the lowest bit of a byte up."""
    ends = np.cumsum(widths, dtype=np.int64)
    size = (int(ends[-1]) + 7) >> 3 if len(ends) else 0
    if not size:
        return b""
    starts = ends - widths
    one, shifts = np.uint64(1), (starts & 63).astype(np.uint64)
    values = residuals.astype(np.uint64) & ((one << widths.astype(np.uint64)) - one)
    # Elements that begin in one word of 64 bits are neighbours; their bits do not overlap, so
    # sums join them. What reaches into the next word is the end of the last of them.
    words = starts >> 6
    first = np.flatnonzero(np.diff(words, prepend=-1))
    packed = np.zeros((size >> 3) + 2, np.uint64)
    packed[words[first]] = np.add.reduceat(values << shifts, first)
    beyond = values >> one >> (np.uint64(63) - shifts)
    packed[words[first] + 1] |= np.add.reduceat(beyond, first)
    return packed.view(np.uint8)[:size].tobytes()
