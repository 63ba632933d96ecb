"""Making the new file of the old one and a patch, in the new file's order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np

from . import container
from .arrays import (
    BLOCK,
    EXTRA,
    HEAD,
    LAST,
    Array,
    Kind,
    exponents,
    low_bytes,
    ordered,
    scaled,
    unfolded,
    unordered,
    unpack_low,
    unturned,
)
from .container import BadPatch, Header, Stream, read_header
from .law import Law, Widths
from .program import ADD, COPY, ArrayForm, Operation, read_program

PIECE = 1 << 20
"""Bytes that are copied or added at once."""


def apply_patch(old: memoryview, patch: memoryview, write: Callable[[memoryview], object]) -> None:
    """Give the new file to ``write``, piece by piece.

    Takes memory for a piece, for what the patch's decompressors keep (128 MiB at most each),
    and for the parts of ``old`` that are their dictionaries. Raises :class:`BadPatch` where
    ``old`` is not the file the patch is for, or the patch is damaged; what was written is
    then worth nothing, so give it a name only after this returns.
    """
    header = read_header(patch)
    if len(old) != header.old_size:
        raise BadPatch(f"the old file has {len(old)} bytes, the patch is for {header.old_size}")
    sha256 = hashlib.sha256()
    _keep_memory()
    try:
        for piece in _Applier(old, patch, header).pieces():
            sha256.update(piece)
            write(piece)
    except BadPatch:
        _require_old(old, header)
        raise
    if sha256.hexdigest() != header.new_sha256:
        _require_old(old, header)
        raise BadPatch(f"the result has sha256 {sha256.hexdigest()}, not {header.new_sha256}")


def _keep_memory() -> None:
    """Have the C library keep what is freed for the next block.

    glibc gives memory back to the system, page by page, unless as much came and went once
    before; that took two fifths of the time.
    """
    held = np.empty(2 * PIECE, np.uint8)
    del held


def _require_old(old: memoryview, header: Header) -> None:
    """Where something is wrong, say that it is the old file if it is."""
    found = hashlib.sha256(old).hexdigest()
    if found != header.old_sha256:
        raise BadPatch(f"the old file has sha256 {found}, the patch is for {header.old_sha256}")


class _Applier:
    def __init__(self, old: memoryview, patch: memoryview, header: Header) -> None:
        at = header.length
        stored: dict[int, list[tuple[container.Part, memoryview]]] = {}
        for part in header.parts:
            stored.setdefault(part.stream, []).append((part, patch[at : at + part.stored]))
            at += part.stored
        self._old = old
        self._header = header
        self._program = sum(part.size for part, _ in stored.get(container.PROGRAM, []))
        known = [*range(container.SYMBOLS), *(container.SYMBOLS + i for i in range(header.classes))]
        self._streams = {each: Stream(stored.get(each, []), old) for each in known}

    def pieces(self) -> Iterator[memoryview]:
        """The new file."""
        header = self._header
        # An operation makes a byte at least, and takes about ten bytes of program at most.
        if self._program > 64 * (header.new_size + 1):
            raise BadPatch(f"a program of {self._program} bytes for {header.new_size} bytes")
        program = self._streams[container.PROGRAM].read(self._program)
        for step in read_program(program, header.old_size, header.new_size):
            yield from self._run(step)

    def _run(self, step: Operation) -> Iterator[memoryview]:
        if step.form is not None:
            yield from self._array(step, step.form)
            return
        for done in range(0, step.length, PIECE):
            count = min(PIECE, step.length - done)
            at = step.source + done
            if step.code == COPY:
                yield self._old[at : at + count]
            elif step.code == ADD:
                added = np.frombuffer(self._streams[container.ADD].read(count), np.uint8)
                yield (np.frombuffer(self._old[at : at + count], np.uint8) + added).data
            else:
                yield self._streams[container.LITERAL].read(count)

    def _array(self, step: Operation, form: ArrayForm) -> Iterator[memoryview]:
        size = form.kind.size
        law = Law(form, self._streams[container.TABLES].read(form.entries))
        for first in range(0, step.length // size, BLOCK):
            count = min(BLOCK, step.length // size - first)
            at = step.source + first * size
            if form.delta:
                old = np.frombuffer(self._old[at : at + count * size], form.kind.unsigned)
            else:
                old = np.zeros(count, form.kind.unsigned)
            yield self._block(form, law, old, first).view(np.uint8).data

    def _block(self, form: ArrayForm, law: Law, old: Array, first: int) -> Array:
        if not form.masked:
            return self._numbers(form, law, old, np.arange(first, first + len(old)))
        bits = self._streams[container.MASK].read((len(old) + 7) // 8)
        changed = np.flatnonzero(
            np.unpackbits(np.frombuffer(bits, np.uint8), count=len(old), bitorder="little")
        )
        made = old.copy()
        made[changed] = self._numbers(form, law, old[changed], first + changed)
        return made

    def _numbers(self, form: ArrayForm, law: Law, old: Array, places: Array) -> Array:
        """The new numbers of the old ones at ``places`` of the array."""
        kind = form.kind
        predicted = scaled(kind, old, form.scale)
        found = law.widths(exponents(kind, predicted), places, self._header.classes)
        if not form.delta:
            return unturned(kind, self._residuals(kind, found))
        if form.rounded:
            steps = unfolded(kind, self._residuals(kind, found.none_low()))
            differences = steps << found.low.astype(kind.unsigned)
        else:
            differences = unfolded(kind, self._residuals(kind, found))
        return unordered(kind, ordered(kind, predicted) + differences)

    def _residuals(self, kind: Kind, found: Widths) -> Array:
        symbols = self._symbols(len(found.low), found.classes)
        low = found.low + EXTRA.take(symbols) if found.steep else found.low
        head = HEAD.take(symbols) if found.steep else symbols
        stored = self._streams[container.LOW].read(low_bytes(low))
        residuals: Array = head.astype(kind.unsigned) << low.astype(kind.unsigned)
        residuals |= unpack_low(kind, stored, low)
        full = np.flatnonzero(symbols == LAST)
        written = self._streams[container.ESCAPES].read(len(full) * kind.size)
        residuals[full] = np.frombuffer(written, kind.unsigned)
        if found.shift is not None:
            residuals += found.shift
        return residuals

    def _symbols(self, count: int, classes: Array | None) -> Array:
        if classes is None:
            return np.frombuffer(self._streams[container.SYMBOLS].read(count), np.uint8)
        made = np.empty(count, np.uint8)
        for each in range(self._header.classes):
            where = np.flatnonzero(classes == each)
            stream = self._streams[container.SYMBOLS + each]
            made[where] = np.frombuffer(stream.read(len(where)), np.uint8)
        return made
