"""Content digests, as the OCI image specification writes them (descriptor.md, *Digests*)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

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
