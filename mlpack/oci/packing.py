"""Which bytes a layer gets: everything that is a choice and not an input, in one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mlpack.oci.document import Node

Compression = Literal["none", "gzip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How layers are written; recorded in the lock and in every release's identity.

    Raise ``revision`` whenever the same files would give other bytes than before:
    header fields, order, thresholds, the compressor or a parameter of it.
    """

    revision: int
    compressor: str
    """Name and version of what deflates (``zlib 1.2.13``)."""

    level: int
    """Its level for layers that compress."""

    def to_json(self) -> dict[str, object]:
        """For the lock and the identity record."""
        return {"revision": self.revision, "compressor": self.compressor, "level": self.level}

    @classmethod
    def from_json(cls, node: Node) -> Packing:
        """Read what :meth:`to_json` wrote."""
        return cls(
            revision=node.need("revision").integer(minimum=1),
            compressor=node.need("compressor").text(),
            level=node.need("level").integer(),
        )
