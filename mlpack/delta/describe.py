"""What a patch is made of: its header, its streams, and its operations by kind, as values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mlpack.errors import MlpackError
from mlpack.runtime.patch import container
from mlpack.runtime.patch.container import BadPatch, Header, Part, Stream, read_header
from mlpack.runtime.patch.program import (
    ADD,
    COPY,
    LITERAL,
    ROUNDED,
    Operation,
    read_program,
)

CODERS = {
    container.RAW: "raw",
    container.ZSTD: "zstd",
    container.ZSTD_OLD: "zstd on the old file",
    container.LZMA_TEXT: "lzma",
    container.LZMA_SYMBOLS: "lzma for symbols",
    container.BZIP2: "bzip2",
}
STREAMS = {
    container.PROGRAM: "program",
    container.TABLES: "tables",
    container.LOW: "low bits",
    container.ESCAPES: "escapes",
    container.MASK: "mask",
    container.ADD: "added",
    container.LITERAL: "literal",
}
KINDS = ("copied", "differences", "rounded differences", "numbers", "added", "literal")
"""What makes bytes of the new file: bytes of the old one; differences of arrays, any or
multiples of a step; arrays that nothing predicts; differences of bytes; bytes of the patch."""

_PROGRAM = 1 << 26
"""Bytes of a program that are read: a million arrays take ten of these sixty-four MiB."""


class InvalidPatch(MlpackError):
    """A patch that is damaged, or was made for another file."""

    hint = "copy it again from where it was made, or make it again with: mlpack patch make"


@dataclass(frozen=True, slots=True)
class Named:
    """A file by its content: its size in bytes and its sha256 in hexadecimal."""

    size: int
    sha256: str

    def to_json(self) -> dict[str, object]:
        """The member ``old`` or ``new`` of a description."""
        return {"bytes": self.size, "sha256": self.sha256}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a stream: ``stored`` bytes in the patch that unpack to ``size``."""

    stream: str
    coder: str
    size: int
    stored: int
    dictionary: int
    """Bytes of the old file that it is packed onto."""

    def to_json(self) -> dict[str, object]:
        """One of ``streams`` of a description."""
        return {
            "stream": self.stream,
            "coder": self.coder,
            "bytes": self.size,
            "stored": self.stored,
            "dictionary": self.dictionary,
        }


@dataclass(frozen=True, slots=True)
class Made:
    """How much of the new file operations of one kind make."""

    kind: str
    operations: int
    size: int

    def to_json(self) -> dict[str, object]:
        """One of ``operations`` of a description."""
        return {"kind": self.kind, "operations": self.operations, "bytes": self.size}


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A patch of ``size`` bytes; ``header`` is the bytes of its header, which are among them."""

    version: int
    size: int
    header: int
    old: Named
    new: Named
    classes: int
    """Classes of elements whose symbols are apart: 1 to 8."""

    streams: tuple[Piece, ...]
    operations: tuple[Made, ...]
    """Kinds that there are, in the order of :data:`KINDS`."""

    def made(self, *kinds: str) -> int:
        """Bytes of the new file that operations of these kinds make."""
        return sum(each.size for each in self.operations if each.kind in kinds)

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json patch inspect``."""
        return {
            "version": self.version,
            "bytes": self.size,
            "header": self.header,
            "old": self.old.to_json(),
            "new": self.new.to_json(),
            "classes": self.classes,
            "streams": [each.to_json() for each in self.streams],
            "operations": [each.to_json() for each in self.operations],
        }


def describe(patch: memoryview) -> Description:
    """What ``patch`` (the bytes of a whole file) is made of, without the old file.

    Reads its header and its program; that all the rest unpacks only applying it shows.
    Raises :class:`InvalidPatch`.
    """
    try:
        header = read_header(patch)
        operations = _operations(header, patch)
    except BadPatch as error:
        raise InvalidPatch(str(error)) from error
    return Description(
        version=container.VERSION,
        size=len(patch),
        header=header.length,
        old=Named(header.old_size, header.old_sha256),
        new=Named(header.new_size, header.new_sha256),
        classes=header.classes,
        streams=tuple(_piece(each) for each in header.parts),
        operations=tuple(_made(operations)),
    )


def _operations(header: Header, patch: memoryview) -> list[Operation]:
    at, stored = header.length, []
    for part in header.parts:
        if part.stream == container.PROGRAM:
            stored.append((part, patch[at : at + part.stored]))
        at += part.stored
    size = sum(part.size for part, _ in stored)
    if size > _PROGRAM:
        raise BadPatch(f"its program has {size} bytes, {_PROGRAM} is the most")
    if any(part.ranges for part, _ in stored):
        raise BadPatch("its program needs the old file")
    program = Stream(stored, memoryview(b"")).read(size)
    return read_program(program, header.old_size, header.new_size)


def _piece(part: Part) -> Piece:
    stream = STREAMS.get(part.stream, f"unknown ({part.stream})")
    if 0 <= part.stream - container.SYMBOLS < container.MAX_CLASSES:
        stream = f"symbols {part.stream - container.SYMBOLS}"
    return Piece(
        stream=stream,
        coder=CODERS.get(part.coder, f"unknown ({part.coder})"),
        size=part.size,
        stored=part.stored,
        dictionary=sum(length for _, length in part.ranges),
    )


def _made(operations: list[Operation]) -> Iterator[Made]:
    for kind in KINDS:
        lengths = [each.length for each in operations if _kind(each) == kind]
        if lengths:
            yield Made(kind, len(lengths), sum(lengths))


def _kind(operation: Operation) -> str:
    if operation.form:
        if operation.code == ROUNDED:
            return "rounded differences"
        return "differences" if operation.form.delta else "numbers"
    return {COPY: "copied", ADD: "added", LITERAL: "literal"}[operation.code]
