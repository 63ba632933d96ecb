"""The patch file: its header, its program, and the parts it reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from mlpack.delta.squeeze import Pack, squeeze
from mlpack.runtime.patch import container
from mlpack.runtime.patch.arrays import KINDS
from mlpack.runtime.patch.container import Part
from mlpack.runtime.patch.program import (
    DELTA,
    EXPONENTS,
    FACTORS,
    MASKED,
    SCALED,
    UNIT,
    ArrayForm,
    Operation,
)


def patch_file(old: memoryview, new: memoryview, classes: int, packs: Sequence[Pack]) -> bytes:
    """The patch that makes ``new`` of ``old`` by the program and the streams in ``packs``."""
    kept = [each for each in packs if each.part.size]
    header = bytearray(container.MAGIC)
    header += bytes([container.VERSION, classes.bit_length() - 1])
    header += unsigned(len(old)) + unsigned(len(new))
    header += hashlib.sha256(old).digest() + hashlib.sha256(new).digest()
    header += unsigned(len(kept))
    for each in kept:
        header += _entry(each.part)
    return b"".join([header, *(each.stored for each in kept)])


def _entry(part: Part) -> bytes:
    entry = bytes([part.stream, part.coder]) + unsigned(part.size) + unsigned(part.stored)
    if part.coder != container.ZSTD_OLD:
        return entry
    entry += unsigned(len(part.ranges))
    end = 0
    for offset, length in part.ranges:
        entry += signed(offset - end) + unsigned(length)
        end = offset + length
    return entry


def pack_program(operations: Sequence[Operation]) -> Pack:
    """The operations as a part of a patch."""
    return squeeze(container.PROGRAM, write_program(operations), slow=True)


def write_program(operations: Sequence[Operation]) -> bytes:
    """The operations in columns: codes, lengths, forms of arrays, sources."""
    content = bytearray(unsigned(len(operations)))
    content += bytes(each.code for each in operations)
    content += b"".join(unsigned(each.length) for each in operations)
    content += b"".join(_form(each.form) for each in operations if each.form)
    content += b"".join(_sources(operations))
    return bytes(content)


def _sources(operations: Sequence[Operation]) -> Iterator[bytes]:
    """Where each reads the old file, from where the one before it has ended."""
    end = 0
    for each in operations:
        if each.has_source:
            yield signed(each.source - end)
            end = each.source + each.length


def _form(form: ArrayForm) -> bytes:
    flags = KINDS.index(form.kind)
    flags |= DELTA * form.delta | MASKED * form.masked | SCALED * (form.scale != 1.0)
    flags |= EXPONENTS * bool(form.exponents) | FACTORS * bool(form.factors)
    written = bytes([flags]) + signed(form.base)
    if form.scale != 1.0:
        written += signed(round((form.scale - 1) * UNIT))
    if form.exponents:
        written += unsigned(form.lowest) + unsigned(form.exponents)
    if form.factors:
        written += unsigned(len(form.factors))
        written += b"".join(unsigned(each.stride) + unsigned(each.size) for each in form.factors)
    return written


def unsigned(value: int) -> bytes:
    """A number of seven bits a byte, the lowest first."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def signed(value: int) -> bytes:
    """A number with its sign as the lowest bit."""
    return unsigned(value << 1 if value >= 0 else ((-value - 1) << 1) | 1)
