"""Writing arrays of numbers: the streams of symbols, low bits and the rest that arrays share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from mlpack.delta.law import Fit, split
from mlpack.delta.logs import Array
from mlpack.delta.squeeze import Pack, squeeze
from mlpack.runtime.patch import container
from mlpack.runtime.patch.arrays import (
    BLOCK,
    LAST,
    exponents,
    folded,
    low_bytes,
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
        if form.delta:
            residuals = folded(kind, ordered(kind, new) - ordered(kind, predicted))
        else:
            residuals = turned(kind, new)
        found = law.widths(exponents(kind, predicted), places, container.MAX_CLASSES)
        made = split(kind, residuals, found)
        self.symbols += made.symbols.tobytes()
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
    starts = ends - widths
    masks = (np.uint64(1) << np.arange(64, dtype=np.uint64)) - np.uint64(1)
    values = (residuals.astype(np.uint64) & masks[widths]) << (starts & 7).astype(np.uint64)
    size = low_bytes(widths)
    packed = np.zeros(size + 8, np.uint8)
    most = int(widths.max(initial=0))
    for each in range((most + 14) // 8 if most else 0):
        # The bits of a byte come of several elements, which do not overlap: their sum joins them.
        part = ((values >> np.uint64(8 * each)) & np.uint64(255)).astype(np.uint8)
        sums = np.bincount((starts >> 3) + each, weights=part, minlength=size + 8)
        packed += sums[: size + 8].astype(np.uint8)
    return packed[:size].tobytes()
