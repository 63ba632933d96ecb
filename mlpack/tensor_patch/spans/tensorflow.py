"""The variables of a TensorFlow checkpoint or SavedModel, which its ``.index`` file describes.

The index is a table as LevelDB writes it (tensorflow/core/lib/io/format.h), from names to
``BundleEntryProto`` (tensor_bundle.proto); the numbers are in ``NAME.data-00000-of-00001``.
"""

from __future__ import annotations

from collections.abc import Iterator

from mlpack.tensor_patch.spans.protobuf import Message, Wire
from mlpack.tensor_patch.spans.span import (
    MAX_NAME,
    MAX_RANK,
    Damaged,
    External,
    Kind,
    array_span,
)

SUFFIX = ".index"

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48
_TRAILER = 5
"""Bytes after a block: how it is compressed, and a checksum."""
_MAX_BLOCKS = 100_000

# Field numbers of BundleHeaderProto, BundleEntryProto and TensorShapeProto.
_SHARDS = 1
_TYPE, _SHAPE, _SHARD, _OFFSET, _SIZE = 1, 2, 3, 4, 5
_DIM, _DIM_SIZE = 2, 1

_KINDS = {
    1: Kind.F32,
    2: Kind.F64,
    3: Kind.I32,
    5: Kind.I16,
    8: Kind.F32,
    9: Kind.I64,
    14: Kind.BF16,
    17: Kind.I16,
    18: Kind.F64,
    19: Kind.F16,
    22: Kind.I32,
    23: Kind.I64,
}
"""Of ``DataType``; the others are bytes."""
_COMPLEX = {8, 18}
_STRING = 7


def find_external(view: memoryview, name: str) -> External:
    """Return the variables by the files that they are in. Raises :class:`Damaged`."""
    if len(view) < _FOOTER or view[-len(_MAGIC) :] != _MAGIC:
        return {}
    wire = Wire(view)
    found: External = {}
    shards = 1
    for key, start, end in _entries(wire, view):
        if not key:
            shards = wire.message(start, end).number(_SHARDS) or 1
            continue
        entry = wire.message(start, end)
        code, shard = entry.number(_TYPE), entry.number(_SHARD)
        if code != _STRING:
            place = f"{name.removesuffix(SUFFIX)}.data-{shard:05d}-of-{shards:05d}"
            kind = _KINDS.get(code, Kind.I8)
            shape = _shape(wire, entry) + ((2,) if code in _COMPLEX else ())
            offset, size = entry.number(_OFFSET), entry.number(_SIZE)
            found.setdefault(place, []).extend(array_span(key, offset, size, kind, shape))
    return found


def _shape(wire: Wire, entry: Message) -> tuple[int, ...]:
    dims = list[int]()
    for part in entry.parts(_SHAPE):
        for dim in wire.message(*part).parts(_DIM):
            dims.append(wire.message(*dim).number(_DIM_SIZE))
    return tuple(dims[: MAX_RANK + 1])


def _entries(wire: Wire, view: memoryview) -> Iterator[tuple[str, int, int]]:
    """Yield the keys of the table and where their values are."""
    at = len(view) - _FOOTER
    for _ in range(2):  # the handle of another index is before that of the blocks
        _, at = wire.varint(at, len(view))
    for blocks, (_, start, end) in enumerate(_block(wire, view, at)):
        if blocks == _MAX_BLOCKS:
            raise Damaged(f"more than {_MAX_BLOCKS} blocks")
        if start < end:
            yield from _block(wire, view, start)


def _block(wire: Wire, view: memoryview, handle: int) -> Iterator[tuple[str, int, int]]:
    """Yield the entries of the block at a handle: keys share their beginnings."""
    at, after = wire.varint(handle, len(view))
    size, _ = wire.varint(after, len(view))
    if size < 4 or at + size + _TRAILER > len(view) or view[at + size]:
        raise Damaged(f"a block at byte {at} that is compressed or outside the file")
    restarts = int.from_bytes(view[at + size - 4 : at + size], "little")
    end = at + size - 4 - 4 * restarts
    key = b""
    while at < end:
        shared, at = wire.varint(at, end)
        more, at = wire.varint(at, end)
        length, at = wire.varint(at, end)
        start = at + more
        if start + length > end:
            raise Damaged(f"an entry at byte {at} ends after its block")
        key = (key[:shared] + bytes(view[at : min(start, at + MAX_NAME)]))[:MAX_NAME]
        yield key.decode("utf-8", "replace"), start, start + length
        at = start + length
