"""The proof that the rows of an ONNX model are independent: :mod:`.proof`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Independence:
    """Whether the rows of a model are proved to be independent; if not, the reason."""

    proved: bool
    reason: str = ""


NOT_TRIED = Independence(False)
