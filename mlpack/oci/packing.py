"""Which bytes a layer gets: everything that is a choice and not an input, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from mlpack.oci.document import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How layers are written; recorded in the lock and in every release's identity.

    Raise ``revision`` whenever the same files would give other bytes than before:
    header fields, order, thresholds, levels.
    """

    revision: int
    compressor: str
    """Package and version of what deflates (``deflate 0.9.0``)."""

    def to_json(self) -> dict[str, object]:
        """For the lock and the identity record."""
        return {"revision": self.revision, "compressor": self.compressor}

    @classmethod
    def from_json(cls, node: Node) -> Packing:
        """Read what :meth:`to_json` wrote."""
        return cls(
            revision=node.need("revision").integer(minimum=1),
            compressor=node.need("compressor").text(),
        )

    def __str__(self) -> str:
        return f"layer format {self.revision}, {self.compressor}"
