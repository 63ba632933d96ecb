"""Describes a patch: its header, its streams, and its operations by kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlpack.errors import MlpackError
from mlpack.json_document import named, written
from mlpack.runtime.patch import format1
from mlpack.runtime.patch.arrays import ArrayForm
from mlpack.runtime.patch.container import BadPatch, Header, StreamPart, read_header
from mlpack.runtime.patch.format1 import read_old_index
from mlpack.runtime.patch.program import ADD, COPY, LITERAL, Operation, read_index

CODERS = ("raw", "zstd", "zstd on the old file", "lzma", "lzma for symbols", "bzip2", "pcodec")
"""Names of the coders, by their numbers in a patch."""

STREAMS = {
    1: ("program", "tables", "low bits", "escapes", "mask", "added", "literal"),
    2: ("tables", "added", "literal", "masks"),
}
"""Names of the streams of bytes, by the version and their numbers in a patch."""

KINDS = ("copied", "differences", "rounded differences", "numbers", "added", "literal")
"""How bytes of the new file are made: copied from the old one; differences of arrays, any or
multiples of a step; arrays without a prediction; differences of bytes; bytes of the patch."""


class InvalidPatch(MlpackError):
    """A patch that is damaged, or was made for another file."""

    hint = "copy it again from where it was made, or make it again with: mlpack patch make"


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """A file by its content: its size in bytes and its sha256 in hexadecimal.

    A patch of version 2 has only the first 16 digits of the old file's sha256.
    """

    size: int = field(metadata=named("bytes"))
    sha256: str = field(
        metadata={**named("digest"), **written(lambda value: f"sha256:{value}")},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PartDescription:
    """A part of a stream: ``stored`` bytes in the patch that decompress to ``size``."""

    stream: str
    coder: str
    size: int = field(metadata=named("bytes"))
    stored: int = field(metadata=named("stored_bytes"))
    dictionary: int = field(metadata=named("dictionary_bytes"))
    """Bytes of the old file in its dictionary."""


@dataclass(frozen=True, slots=True)
class OperationTotals:
    """How much of the new file the operations of one kind make."""

    kind: str
    operations: int
    size: int = field(metadata=named("bytes"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A patch of ``size`` bytes, of which ``header`` bytes are its header.

    The document of ``mlpack --json patch inspect``.
    """

    version: int
    size: int = field(metadata=named("bytes"))
    header: int = field(metadata=named("header_bytes"))
    old: FileIdentity
    new: FileIdentity
    streams: tuple[PartDescription, ...]
    operations: tuple[OperationTotals, ...]
    """Without kinds that do not occur; in the order of :data:`KINDS`."""

    def made(self, *kinds: str) -> int:
        """Return the bytes of the new file that operations of these kinds make."""
        return sum(each.size for each in self.operations if each.kind in kinds)


def describe(patch: memoryview) -> Description:
    """Describe ``patch`` (the bytes of a whole file) without the old file.

    Reads header and index; only applying the patch shows whether the rest is valid. Raises
    :class:`InvalidPatch`.
    """
    try:
        found = _version_1(patch) if read_header(patch).version == 1 else _version_2(patch)
    except BadPatch as error:
        raise InvalidPatch(str(error)) from error
    return found


def _version_1(patch: memoryview) -> Description:
    header, index = read_old_index(patch)
    streams = [_part(each, _name(STREAMS[1], each.stream)) for each in index.parts]
    return _description(len(patch), header, index.bodies, streams, index.operations)


def _version_2(patch: memoryview) -> Description:
    header, index = read_index(patch)
    streams = [_part(index.part, "index")]
    streams += [_part(each, _name(STREAMS[2], each.stream)) for each in index.parts]
    for number, of in enumerate(index.sets):
        parts = [replace(each, size=each.size * of.size) for each in of.groups]
        streams += [_part(each, f"numbers {number}") for each in parts]
    start = index.bodies - index.part.stored
    return _description(len(patch), header, start, streams, index.operations)


def _description(
    size: int,
    header: Header,
    length: int,
    streams: Iterable[PartDescription],
    operations: Sequence[Operation[Any]],
) -> Description:
    return Description(
        version=header.version,
        size=size,
        header=length,
        old=FileIdentity(header.old_size, header.old_sha256),
        new=FileIdentity(header.new_size, header.new_sha256),
        streams=tuple(_joined(streams)),
        operations=tuple(_made(operations)),
    )


def _part(part: StreamPart, stream: str) -> PartDescription:
    return PartDescription(
        stream=stream,
        coder=dict(enumerate(CODERS)).get(part.coder, f"unknown ({part.coder})"),
        size=part.size,
        stored=part.stored,
        dictionary=sum(length for _, length in part.ranges),
    )


def _name(names: Sequence[str], stream: int) -> str:
    if stream >= format1.SYMBOLS:
        return f"symbols {stream - format1.SYMBOLS}"
    return dict(enumerate(names)).get(stream, f"unknown ({stream})")


def _joined(parts: Iterable[PartDescription]) -> Iterator[PartDescription]:
    """Join the groups of a number set that have one coder."""
    found = dict[tuple[str, str], PartDescription]()
    for each in parts:
        key, known = (each.stream, each.coder), found.get((each.stream, each.coder))
        if known and each.stream.startswith("numbers"):
            stored, size = known.stored + each.stored, known.size + each.size
            found[key] = replace(known, stored=stored, size=size)
        elif known:
            yield found.pop(key)
            found[key] = each
        else:
            found[key] = each
    yield from found.values()


def _made(operations: Sequence[Operation[Any]]) -> Iterator[OperationTotals]:
    for kind in KINDS:
        lengths = [each.length for each in operations if _kind(each) == kind]
        if lengths:
            yield OperationTotals(kind, len(lengths), sum(lengths))


def _kind(operation: Operation[Any]) -> str:
    form = operation.form
    if form is None:
        return {COPY: "copied", ADD: "added", LITERAL: "literal"}[operation.code]
    rounded = form.step is not None if isinstance(form, ArrayForm) else form.rounded
    if rounded:
        return "rounded differences"
    return "differences" if form.delta else "numbers"
