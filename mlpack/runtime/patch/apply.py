"""Makes the new file from the old one and a patch, from its first byte to its last."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np

from . import columns, container, format1
from .arrays import BLOCK, Array, ArrayForm, Groups, exponents, mirrored, ordered, scaled, stepped
from .container import BadPatch, Header, StreamReader, read_header
from .number_sets import SetReader
from .program import (
    ADD,
    ADDED,
    COPY,
    LITERALS,
    MASKED,
    MASKS,
    TABLES,
    F,
    Index,
    Operation,
    read_index,
)

PIECE = 1 << 20
"""Bytes that are copied or added at once."""


def apply_patch(old: memoryview, patch: memoryview, write: Callable[[memoryview], object]) -> None:
    """Pass the new file to ``write``, piece by piece.

    Takes memory for a piece, for the windows of the patch's decompressors (128 MiB at most each),
    for a page of each group of numbers, and for the parts of ``old`` that are dictionaries. Raises
    :class:`BadPatch` if ``old`` is not the file the patch is for, or the patch is damaged; what
    was written is then invalid, so rename it to its final name only after this returns.
    """
    header = read_header(patch)
    if len(old) != header.old_size:
        raise BadPatch(f"the old file has {len(old)} bytes, the patch is for {header.old_size}")
    sha256 = hashlib.sha256()
    _keep_memory()
    try:
        for piece in (_pieces if header.version > 1 else _pieces_of_version_1)(old, patch):
            sha256.update(piece)
            write(piece)
    except BadPatch:
        _require_old(old, header)
        raise
    if sha256.hexdigest() != header.new_sha256:
        _require_old(old, header)
        raise BadPatch(f"the result has sha256 {sha256.hexdigest()}, not {header.new_sha256}")


def _keep_memory() -> None:
    """Make the C library reuse freed memory for the next block.

    glibc returns memory to the system, page by page, unless an allocation of this size was freed
    before; that took two fifths of the time.
    """
    held = np.empty(2 * PIECE, np.uint8)
    del held


def _require_old(old: memoryview, header: Header) -> None:
    """Raise :class:`BadPatch` if the old file is the cause of an error."""
    found = hashlib.sha256(old).hexdigest()
    if not header.is_for(found):
        raise BadPatch(f"the old file has sha256 {found}, the patch is for {header.old_sha256}")


def _pieces_of_version_1(old: memoryview, patch: memoryview) -> Iterator[memoryview]:
    _, index = format1.read_old_index(patch)
    stored = container.stored_parts(index.parts, patch, index.bodies)
    known = [*range(format1.SYMBOLS), *(format1.SYMBOLS + i for i in range(index.classes))]
    streams = {each: StreamReader(stored.get(each, []), old) for each in known}
    arrays = format1.OldArrays(old, streams, index.classes)
    plain = _Bytes(old, streams[format1.ADDED], streams[format1.LITERALS])
    for step in index.operations:
        yield from arrays.pieces(step, step.form) if step.form else plain.pieces(step)


def _pieces(old: memoryview, patch: memoryview) -> Iterator[memoryview]:
    header, index = read_index(patch)
    made = _made(old, patch, index)
    return _joined(made, header.new_size) if index.columns else made


def _joined(made: Iterator[memoryview], size: int) -> Iterator[memoryview]:
    """Yield the new file of ``size`` bytes of which ``made`` has the numbers in columns."""
    packed, left, ready = memoryview(b"".join(made)), size, bytearray()
    try:
        for piece in columns.join(packed):
            left -= len(piece)
            ready += piece
            if left < 0:
                raise BadPatch(f"columns make more than the {size} bytes of the new file")
            if len(ready) >= PIECE:
                yield memoryview(bytes(ready))
                ready.clear()
    except ValueError as error:
        raise BadPatch(f"the columns are damaged: {error}") from None
    yield memoryview(bytes(ready))


def _made(old: memoryview, patch: memoryview, index: Index) -> Iterator[memoryview]:
    stored = container.stored_parts(index.parts, patch, index.bodies)
    streams: dict[int, StreamReader] = defaultdict(lambda: StreamReader((), old))
    streams |= {each: StreamReader(parts, old) for each, parts in stored.items()}
    at, sets = index.bodies + sum(each.stored for each in index.parts), list[SetReader]()
    for each in index.sets:
        bodies = list[memoryview]()
        for part in each.groups:
            bodies.append(patch[at : at + part.stored])
            at += part.stored
        sets.append(SetReader(each, bodies, index.pcodec))
    plain = _Bytes(old, streams[ADDED], streams[LITERALS])
    for step in index.operations:
        if not step.form:
            yield from plain.pieces(step)
            continue
        numbers = sets[step.form.set]
        groups = Groups(step.form, streams[TABLES].read(step.form.entries), numbers.bounds)
        for before, first in _old_numbers(old, step, step.form):
            if step.code == MASKED:
                mask = np.frombuffer(streams[MASKS].read((len(before) + 7) // 8), np.uint8)
                bits = np.unpackbits(mask, count=len(before), bitorder="little")
                changed = np.flatnonzero(bits)
                made = before.copy()
                made[changed] = _block(step.form, groups, numbers, before[changed], first)
            else:
                made = _block(step.form, groups, numbers, before, first)
            yield made.view(np.uint8).data


class _Bytes:
    """Makes the bytes outside arrays."""

    def __init__(self, old: memoryview, added: StreamReader, literals: StreamReader) -> None:
        self._old = old
        self._added = added
        self._literals = literals

    def pieces(self, step: Operation[F]) -> Iterator[memoryview]:
        """Yield the bytes of one operation."""
        for done in range(0, step.length, PIECE):
            count = min(PIECE, step.length - done)
            at = step.source + done
            if step.code == COPY:
                yield self._old[at : at + count]
            elif step.code == ADD:
                added = np.frombuffer(self._added.read(count), np.uint8)
                yield (np.frombuffer(self._old[at : at + count], np.uint8) + added).data
            else:
                yield self._literals.read(count)


def _old_numbers(
    old: memoryview, step: Operation[ArrayForm], form: ArrayForm
) -> Iterator[tuple[Array, int]]:
    """Yield the bits of the old numbers, or zeros, and the number of the first, block by block."""
    kind = form.kind
    for first in range(0, step.length // kind.size, BLOCK):
        count = min(BLOCK, step.length // kind.size - first)
        at = step.source + first * kind.size
        if form.delta:
            yield np.frombuffer(old[at : at + count * kind.size], kind.unsigned), first
        else:
            yield np.zeros(count, kind.unsigned), first


def _block(form: ArrayForm, groups: Groups, numbers: SetReader, old: Array, first: int) -> Array:
    """Return the bits of the new numbers that a block of old ones becomes."""
    kind, before = form.kind, scaled(form.kind, old, form.scale)
    if groups.single is not None:
        values = numbers.read(groups.single, len(before))
    else:
        field = exponents(kind, before) if form.by_exponent else before
        values = numbers.sorted(groups.of(field, first))
    if form.step is not None:
        return stepped(kind, before, values, form.step)
    if not form.delta:
        return mirrored(kind, values.view(kind.unsigned)).view(kind.unsigned)
    values = ordered(kind, before) + values
    return ordered(kind, values.view(kind.unsigned)).view(kind.unsigned)
