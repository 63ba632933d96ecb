"""Version 1 of the format, which is read and no longer written.

A residual has low bits, stored unchanged, and above them a symbol of one byte. How many bits are
low is computed as the sizes of version 2 are. docs/reference/patch-format.md has the rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from . import container
from .arrays import KINDS, Array, Factor, NumberType, exponents, ordered, scaled
from .container import BadPatch, Header, StreamPart, StreamReader, Varints, read_header
from .program import (
    ARRAY,
    DELTA,
    MAX_INDEX,
    Operation,
    codes_and_lengths,
    placed,
    read_factors,
    read_widths,
)

PROGRAM, TABLES, LOW, ESCAPES, MASK, ADDED, LITERALS = range(7)
"""The streams of bytes."""

SYMBOLS = 16
"""The first of the symbol streams, one for each class of elements."""

ROUNDED = 4
"""An array whose differences are multiples of two to the power of their width."""

_BLOCK = 1 << 16
"""Elements whose low bits begin with a byte."""

_SCALED, _EXPONENTS, _MASKED, _FACTORS = 16, 32, 64, 128
_ESCAPED = 255
_DIRECT, _STEPS, _STEEP = 64, 32, 6

_EXTRA = np.array([0] * _DIRECT + [1 + each // _STEPS for each in range(192)], np.uint8)
"""Additional low bits, by symbol."""

_HEAD = np.array([*range(_DIRECT)] + [_STEPS + each % _STEPS for each in range(192)], np.uint8)
"""The value above the low bits, by symbol."""


@dataclass(frozen=True, slots=True)
class OldForm:
    """How an array is coded in version 1."""

    kind: NumberType
    delta: bool
    rounded: bool
    masked: bool
    base: int
    scale: float
    lowest: int
    exponents: int
    factors: tuple[Factor, ...]


@dataclass(frozen=True, slots=True)
class OldIndex:
    """The parts of a patch of version 1, and its operations."""

    classes: int
    parts: tuple[StreamPart, ...]
    operations: list[Operation[OldForm]]
    bodies: int
    """Where the parts' bytes begin in the patch."""


def read_old_index(patch: memoryview) -> tuple[Header, OldIndex]:
    """Read header and program of a patch of version 1; raise :class:`BadPatch`."""
    header = read_header(patch)
    if patch[5] > 3:
        raise BadPatch(f"the patch has 2**{patch[5]} classes of elements, the maximum is 8")
    numbers = Varints(patch, header.length)
    parts = numbers.parts(header.old_size)
    if numbers.at + sum(each.stored for each in parts) != len(patch):
        raise BadPatch("the patch is truncated, or something follows it")
    found = container.stored_parts(parts, patch, numbers.at).get(PROGRAM, [])
    size = sum(part.size for part, _ in found)
    if size > min(64 * (header.new_size + 1), MAX_INDEX) or any(part.ranges for part, _ in found):
        raise BadPatch(f"a program of {size} bytes for {header.new_size} bytes")
    program = Varints(StreamReader(found, memoryview(b"")).read(size))
    codes, lengths = codes_and_lengths(program, header.new_size, ROUNDED)
    forms = [_form(program, code == ROUNDED) if code >= ARRAY else None for code in codes]
    steps = zip(codes, lengths, forms, strict=True)
    operations = list(placed(steps, program, header.old_size))
    if program.left:
        raise BadPatch("the patch's program is longer than its operations")
    return header, OldIndex(1 << patch[5], parts, operations, numbers.at)


def _form(numbers: Varints, rounded: bool) -> OldForm:
    flags = numbers.bytes(1)[0]
    kind = KINDS[flags & 7]
    if rounded and not flags & DELTA:
        raise BadPatch("an array is rounded but not a difference")
    if flags & (_SCALED | _EXPONENTS) and not kind.fraction:
        raise BadPatch(f"{kind.name} has no exponents")
    base, scale, lowest, count = read_widths(
        numbers, kind, scaled=bool(flags & _SCALED), table=bool(flags & _EXPONENTS), most=2**20
    )
    return OldForm(
        kind,
        bool(flags & DELTA),
        rounded,
        bool(flags & _MASKED),
        base,
        scale,
        lowest,
        count,
        tuple(read_factors(numbers)) if flags & _FACTORS else (),
    )


class OldArrays:
    """Makes the arrays of a patch of version 1."""

    def __init__(self, old: memoryview, streams: dict[int, StreamReader], classes: int) -> None:
        self._old = old
        self._streams = streams
        self._classes = classes

    def pieces(self, step: Operation[OldForm], form: OldForm) -> Iterator[memoryview]:
        """Yield the bytes of one array."""
        size = form.kind.size
        entries = form.exponents + sum(each.size for each in form.factors)
        widths = _Widths(form, self._streams[TABLES].read(entries), self._classes)
        for first in range(0, step.length // size, _BLOCK):
            count = min(_BLOCK, step.length // size - first)
            at = step.source + first * size
            if form.delta:
                old = np.frombuffer(self._old[at : at + count * size], form.kind.unsigned)
            else:
                old = np.zeros(count, form.kind.unsigned)
            yield self._block(form, widths, old, first).view(np.uint8).data

    def _block(self, form: OldForm, widths: _Widths, old: Array, first: int) -> Array:
        if not form.masked:
            return self._numbers(form, widths, old, np.arange(first, first + len(old)))
        bits = self._streams[MASK].read((len(old) + 7) // 8)
        changed = np.flatnonzero(
            np.unpackbits(np.frombuffer(bits, np.uint8), count=len(old), bitorder="little")
        )
        made = old.copy()
        made[changed] = self._numbers(form, widths, old[changed], first + changed)
        return made

    def _numbers(self, form: OldForm, widths: _Widths, old: Array, places: Array) -> Array:
        """Return the new numbers for the old ones at ``places`` in the array."""
        kind = form.kind
        predicted = scaled(kind, old, form.scale)
        width, classes = widths.of(exponents(kind, predicted), places)
        if kind.fraction and not form.delta:
            # All bits of the fraction are low; the width is subtracted from the exponent.
            low = np.full(len(width), kind.fraction, np.uint8)
            residuals = self._residuals(kind, low, classes, steep=False)
            residuals += width.astype(kind.unsigned) << kind.unsigned.type(kind.fraction + 1)
            one, rest = kind.unsigned.type(1), kind.unsigned.type(kind.bits - 1)
            made: Array = (residuals >> one) | (residuals << rest)
            return made
        low = np.zeros_like(width) if form.rounded else width
        residuals = self._residuals(kind, low, classes, steep=kind.size > 1)
        one = kind.unsigned.type(1)
        moves = (residuals >> one) ^ (kind.unsigned.type(0) - (residuals & one))
        if form.rounded:
            moves <<= width.astype(kind.unsigned)
        return ordered(kind, (ordered(kind, predicted).view(kind.unsigned) + moves)).view(
            kind.unsigned
        )

    def _residuals(self, kind: NumberType, low: Array, classes: Array, *, steep: bool) -> Array:
        symbols = np.empty(len(low), np.uint8)
        for each in range(self._classes):
            where = np.flatnonzero(classes == each)
            symbols[where] = np.frombuffer(self._streams[SYMBOLS + each].read(len(where)), np.uint8)
        low = low + _EXTRA.take(symbols) if steep else low
        head = _HEAD.take(symbols) if steep else symbols
        stored = self._streams[LOW].read((int(low.sum(dtype=np.int64)) + 7) >> 3)
        residuals: Array = head.astype(kind.unsigned) << low.astype(kind.unsigned)
        residuals |= _unpack_low(kind, stored, low)
        full = np.flatnonzero(symbols == _ESCAPED)
        written = self._streams[ESCAPES].read(len(full) * kind.size)
        residuals[full] = np.frombuffer(written, kind.unsigned)
        return residuals


def _unpack_low(kind: NumberType, stored: memoryview, widths: Array) -> Array:
    """Read the low bits of each element: ``widths`` bits, from the lowest bit of a byte up."""
    word = np.dtype("<u8" if kind.size == 8 else "<u4")
    starts = np.cumsum(widths, dtype=np.int64) - widths
    padded = np.frombuffer(bytes(stored) + bytes(word.itemsize), np.uint8)
    windows = np.lib.stride_tricks.as_strided(
        padded[: word.itemsize].view(word), (len(padded) - word.itemsize + 1,), (1,)
    )
    # take(), because indexing unaligned words with brackets is six times slower.
    found = windows.take(starts >> 3) >> (starts & 7).astype(word)
    masks = (word.type(1) << widths.astype(word)) - word.type(1)
    made: Array = (found & masks).astype(kind.unsigned)
    return made


class _Widths:
    """Computes low bits per element, and its class: base plus table entries (int8), in eighths."""

    def __init__(self, form: OldForm, entries: memoryview, classes: int) -> None:
        kind, table = form.kind, np.frombuffer(entries, np.int8)
        self._fixed = bool(kind.fraction) and not form.delta
        # Four bytes hold 25 bits that begin anywhere in a byte, eight bytes 57.
        widest = {1: 0, 2: 8, 4: 25 - _STEEP, 8: 57 - _STEEP}[kind.size]
        self._most = kind.exponents - 1 if self._fixed else widest
        self._classes = classes
        eighths = np.full(max(kind.exponents, 1), form.base, np.int32)
        if not self._fixed:
            # A given change is fewer units in the last place of larger numbers.
            eighths -= 8 * np.arange(len(eighths), dtype=np.int32)
        eighths[form.lowest : form.lowest + form.exponents] += table[: form.exponents]
        self._eighths = eighths
        ends = np.cumsum([form.exponents, *(each.size for each in form.factors)])
        self._factors = [
            (each, table[end - each.size : end])
            for each, end in zip(form.factors, ends[1:], strict=True)
        ]

    def of(self, exponents: Array, places: Array) -> tuple[Array, Array]:
        """Return widths and classes of the elements at ``places``, whose predictions these are."""
        eighths = self._eighths.take(np.zeros_like(exponents) if self._fixed else exponents)
        for factor, table in self._factors:
            eighths += table.take(places // factor.stride % factor.size)
        whole = np.clip(eighths >> 3, 0, self._most).astype(
            np.uint16 if self._most > 255 else np.uint8
        )
        return whole, (eighths & 7) * self._classes >> 3
