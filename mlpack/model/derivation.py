"""The record of a model version that was made of two others: what of, how, and what proves it."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite

from mlpack.oci.digest import Digest
from mlpack.oci.document import InvalidContent, Node


@dataclass(frozen=True, slots=True)
class Origin:
    """A version that another was made of: ``NAME:VERSION`` then, and its content digest."""

    version: str
    digest: Digest

    def to_json(self) -> dict[str, object]:
        """The member ``exact`` or ``anchor`` of a derivation."""
        return {"version": self.version, "digest": str(self.digest)}

    @classmethod
    def from_json(cls, node: Node) -> Origin:
        """Read what :meth:`to_json` wrote."""
        return cls(node.need("version").text(), Digest.from_json(node.need("digest")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """How a version was rounded, and how it compares with the exact one (docs/patches.md).

    Shares are 0 to 1. Numbers of the proof are those of the machine it was made on.
    """

    exact: Origin
    anchor: Origin
    """The version that patches are made against: changes to it were rounded."""

    keep_bits: int
    check: str
    """sha256 of the file of check data, in hexadecimal."""

    rows: int
    max_error: float
    """Infinite where an output was no number."""

    max_error_allowed: float | None
    agreement: float | None
    agreement_wanted: float | None
    exact_accuracy: float | None
    rounded_accuracy: float | None
    onnxruntime: str
    """The version that scored."""

    exact_patch: int
    rounded_patch: int
    """Bytes of a patch of the anchor."""

    def to_json(self) -> dict[str, object]:
        """The member ``derived`` of the model version's document (docs/formats.md)."""
        return {
            "exact": self.exact.to_json(),
            "anchor": self.anchor.to_json(),
            "keep_bits": self.keep_bits,
            "check": self.check,
            "rows": self.rows,
            # JSON has no infinity.
            "max_error": self.max_error if isfinite(self.max_error) else None,
            "max_error_allowed": self.max_error_allowed,
            "agreement": self.agreement,
            "agreement_wanted": self.agreement_wanted,
            "exact_accuracy": self.exact_accuracy,
            "rounded_accuracy": self.rounded_accuracy,
            "onnxruntime": self.onnxruntime,
            "exact_patch": self.exact_patch,
            "rounded_patch": self.rounded_patch,
        }

    @classmethod
    def from_json(cls, node: Node) -> Derivation:
        """Read what :meth:`to_json` wrote; raise ``InvalidContent`` with the place."""
        found = _perhaps(node.get("max_error"))
        return cls(
            exact=Origin.from_json(node.need("exact")),
            anchor=Origin.from_json(node.need("anchor")),
            keep_bits=node.need("keep_bits").integer(),
            check=node.need("check").text(),
            rows=node.need("rows").integer(),
            max_error=inf if found is None else found,
            max_error_allowed=_perhaps(node.get("max_error_allowed")),
            agreement=_perhaps(node.get("agreement")),
            agreement_wanted=_perhaps(node.get("agreement_wanted")),
            exact_accuracy=_perhaps(node.get("exact_accuracy")),
            rounded_accuracy=_perhaps(node.get("rounded_accuracy")),
            onnxruntime=node.need("onnxruntime").text(),
            exact_patch=node.need("exact_patch").integer(),
            rounded_patch=node.need("rounded_patch").integer(),
        )


def _perhaps(node: Node | None) -> float | None:
    return None if node is None else _number(node)


def _number(node: Node) -> float:
    if isinstance(node.value, bool) or not isinstance(node.value, int | float):
        raise InvalidContent(node.where, "is not a number")
    return float(node.value)
