"""Patches whose parts are stored as they are, so that what is changed in them is read as such."""

from __future__ import annotations

from mlpack.delta.streams import unsigned
from mlpack.runtime.patch import container
from mlpack.runtime.patch.container import Header, Stream, read_header
from mlpack.runtime.patch.program import Operation, read_program


def unpacked(old: bytes, patch: bytes) -> dict[int, bytes]:
    """The bytes of each stream."""
    header = read_header(memoryview(patch))
    at = header.length
    found: dict[int, bytes] = {}
    for part in header.parts:
        stored = memoryview(patch)[at : at + part.stored]
        at += part.stored
        content = Stream([(part, stored)], memoryview(old)).read(part.size)
        found[part.stream] = found.get(part.stream, b"") + bytes(content)
    return found


def operations(old: bytes, patch: bytes) -> list[Operation]:
    """What a patch does."""
    header = read_header(memoryview(patch))
    program = unpacked(old, patch)[container.PROGRAM]
    return read_program(memoryview(program), header.old_size, header.new_size)


def stored(old: bytes, patch: bytes) -> bytes:
    """The same patch, with every part stored as it is."""
    header = read_header(memoryview(patch))
    streams = unpacked(old, patch)
    return header_of(header, streams) + b"".join(streams.values())


def header_of(header: Header, streams: dict[int, bytes]) -> bytes:
    """A header for streams that are stored as they are."""
    written = container.MAGIC + bytes([container.VERSION, header.classes.bit_length() - 1])
    written += unsigned(header.old_size) + unsigned(header.new_size)
    written += bytes.fromhex(header.old_sha256) + bytes.fromhex(header.new_sha256)
    written += unsigned(len(streams))
    for stream, content in streams.items():
        size = unsigned(len(content))
        written += bytes([stream, container.RAW]) + size + size
    return written
