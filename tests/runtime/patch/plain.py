"""Patches in pieces, and patches whose pieces are stored uncompressed, so mutations reach them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlpack.runtime.patch import container
from mlpack.runtime.patch.arrays import Array, ArrayForm
from mlpack.runtime.patch.container import RAW, StreamPart, StreamReader
from mlpack.runtime.patch.number_sets import NumberReader, NumberSet
from mlpack.runtime.patch.program import Operation, read_index
from mlpack.tensor_patch.array_coding import PCODEC_HEADER, CodedSet
from mlpack.tensor_patch.compression import PackedPart, unsigned, write_index


@dataclass(frozen=True)
class Pieces:
    """A patch of version 2 in pieces: all of it but the header."""

    operations: Sequence[Operation[ArrayForm]]
    streams: dict[int, bytes]
    sets: tuple[CodedSet, ...] = ()

    def index(self) -> bytes:
        """The index, if the streams are stored uncompressed."""
        parts = [PackedPart(each, content) for each, content in self.streams.items()]
        return write_index(parts, self.sets, PCODEC_HEADER, self.operations)

    def patch(self, old: bytes, new: bytes) -> bytes:
        """The patch, with index and streams stored uncompressed."""
        return patch_of(old, new, self.index(), self.bodies())

    def bodies(self) -> bytes:
        """What follows the index."""
        groups = [body for each in self.sets for body in each.bodies]
        return b"".join([*self.streams.values(), *groups])


def patch_of(old: bytes, new: bytes, index: bytes, bodies: bytes = b"") -> bytes:
    """A patch with this index, uncompressed."""
    size = unsigned(len(index))
    return head(old, new) + bytes([RAW]) + size + size + index + bodies


def head(old: bytes, new: bytes, new_size: int | None = None) -> bytes:
    """The header of a patch of version 2."""
    sizes = unsigned(len(old)) + unsigned(len(new) if new_size is None else new_size)
    made = container.MAGIC + bytes([container.VERSION]) + sizes + hashlib.sha256(new).digest()
    return made + (hashlib.sha256(old).digest()[: container.OLD_DIGEST] if old else b"")


def pieces(old: bytes, patch: bytes) -> Pieces:
    """Take a patch apart; groups of numbers stay compressed."""
    _, index = read_index(memoryview(patch))
    at, streams = index.bodies, dict[int, bytes]()
    for part in index.parts:
        stored = memoryview(patch)[at : at + part.stored]
        content = StreamReader([(part, stored)], memoryview(old)).read(part.size)
        streams[part.stream] = streams.get(part.stream, b"") + bytes(content)
        at += part.stored
    sets = []
    for of in index.sets:
        bodies = []
        for part in of.groups:
            bodies.append(patch[at : at + part.stored])
            at += part.stored
        sets.append(CodedSet(of, tuple(bodies)))
    return Pieces(index.operations, streams, tuple(sets))


def operations(patch: bytes) -> list[Operation[ArrayForm]]:
    """What a patch does."""
    return read_index(memoryview(patch))[1].operations


def forms(patch: bytes) -> list[ArrayForm]:
    """The forms of a patch's arrays."""
    return [each.form for each in operations(patch) if each.form]


def numbers(of: CodedSet) -> list[Array]:
    """The numbers of each group of a set."""
    return [
        NumberReader(part, memoryview(body), of.set.size, PCODEC_HEADER).read(part.size)
        for part, body in zip(of.set.groups, of.bodies, strict=True)
    ]


def plain_set(groups: Sequence[Array], bounds: Sequence[int] = ()) -> CodedSet:
    """A set whose numbers are stored uncompressed."""
    bodies = tuple(each.tobytes() for each in groups)
    parts = tuple(
        StreamPart(0, RAW, len(each), len(body)) for each, body in zip(groups, bodies, strict=True)
    )
    return CodedSet(NumberSet(groups[0].itemsize, tuple(bounds), parts), bodies)


def stored(old: bytes, new: bytes, patch: bytes, *, numbers_too: bool = True) -> bytes:
    """The same patch, with index, streams and, if wanted, numbers stored uncompressed."""
    found = pieces(old, patch)
    if numbers_too:
        sets = tuple(plain_set(numbers(each), each.set.bounds) for each in found.sets)
        found = replace(found, sets=sets)
    return found.patch(old, new)
