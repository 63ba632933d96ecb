"""Content digests, as the OCI image specification writes them (descriptor.md, *Digests*)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol

from mlpack.errors import MlpackError
from mlpack.oci.document import InvalidContent, Node

_SHA256 = re.compile(r"sha256:([0-9a-f]{64})")


class InvalidDigest(MlpackError, ValueError):
    """A text that is not ``sha256:`` and 64 lower-case hex digits."""


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """The sha256 of some bytes.

    Other algorithms are refused by :meth:`parse`: no registry or engine in use
    needs them, and one algorithm means one length to check.
    """

    hex: str
    """64 lower-case hex digits."""

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``sha256:…``; raise :class:`InvalidDigest` for anything else."""
        found = _SHA256.fullmatch(text)
        if found is None:
            raise InvalidDigest(f"{text!r} is not a digest (sha256: and 64 hex digits)")
        return cls(found[1])

    @classmethod
    def from_json(cls, node: Node) -> Digest:
        """Read a member of a document; raise :class:`InvalidContent` with its place."""
        try:
            return cls.parse(node.text())
        except InvalidDigest as error:
            raise InvalidContent(node.where, str(error)) from error

    @classmethod
    def of(cls, content: bytes) -> Digest:
        """Hash ``content``.

        >>> Digest.of(b"").short
        'e3b0c44298fc'
        """
        return cls(hashlib.sha256(content).hexdigest())

    @property
    def short(self) -> str:
        """The first 12 hex digits, as engines show them."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


class Writable(Protocol):
    """Takes bytes."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""
        ...


class Hashed(Writable, Protocol):
    """Takes bytes and knows the digest and the number of all it has taken."""

    @property
    def digest(self) -> Digest:
        """The digest of what was written so far."""
        ...

    @property
    def size(self) -> int:
        """How many bytes that is."""
        ...


class Hashing:
    """Passes what is written on to ``out``, hashed and counted."""

    def __init__(self, out: Writable) -> None:
        self._out = out
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes, /) -> None:
        """Take the next bytes."""
        self._hash.update(data)
        self._size += len(data)
        self._out.write(data)

    @property
    def digest(self) -> Digest:
        """The digest of what was written so far."""
        return Digest(self._hash.hexdigest())

    @property
    def size(self) -> int:
        """How many bytes that is."""
        return self._size
