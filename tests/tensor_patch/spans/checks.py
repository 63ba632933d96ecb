"""What holds of the spans of any file, and how valid files are damaged."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from hypothesis import strategies as st

from mlpack.tensor_patch.spans import Kind, Span, external_spans, find_spans
from mlpack.tensor_patch.spans.span import MAX_NAME

DTYPES = {
    Kind.F16: "<f2",
    Kind.BF16: "<u2",
    Kind.F32: "<f4",
    Kind.F64: "<f8",
    Kind.I8: "u1",
    Kind.I16: "<i2",
    Kind.I32: "<i4",
    Kind.I64: "<i8",
}


def sound(content: bytes) -> tuple[Span, ...]:
    """The spans of a file, after checking all that is promised of them."""
    spans = find_spans(content)
    disjoint(spans, len(content))
    for beside in external_spans(content).values():
        disjoint(beside, 2**63)
    return spans


def disjoint(spans: tuple[Span, ...], size: int) -> None:
    end = 0
    for span in spans:
        assert end <= span.offset < span.offset + span.length <= size
        assert prod(span.shape) * span.kind.width == span.length
        assert len(span.name) <= MAX_NAME + 10
        end = span.offset + span.length
    assert len({span.name for span in spans}) == len(spans)


def by_name(content: bytes) -> dict[str, Span]:
    return {span.name: span for span in sound(content)}


def values(content: bytes, span: Span) -> np.ndarray[Any, Any]:
    """A span's numbers in its shape."""
    piece = content[span.offset : span.offset + span.length]
    return np.frombuffer(piece, DTYPES[span.kind]).reshape(span.shape)


@st.composite
def damaged(draw: st.DrawFn, valid: list[bytes]) -> bytes:
    """A valid file with a few bytes changed, cut out or put in, and perhaps its end missing."""
    content = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(content)))
        width = draw(st.sampled_from([0, 1, 1, 1, 4, 8]))
        content[at : at + width] = draw(
            st.binary(max_size=4)
            | st.sampled_from([b"\xff" * 4, b"\xff" * 8, b"\0" * 4, b"\x7f", b"\x80" * 9])
        )
    return bytes(content[: draw(st.none() | st.integers(0, len(content)))])
