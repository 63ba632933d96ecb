"""Where arrays of numbers lie in a model's file, read from its bytes and no framework.

A file that is of no known format, or is damaged or made to harm, has no spans: it is one opaque
run of bytes. Nothing a file says is followed further than the file itself goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from mlpack.delta.spans import onnx
from mlpack.delta.spans.span import Buffer, Damaged, Kind, Span, settled

__all__ = ["Buffer", "Kind", "Span", "external_spans", "find_spans"]

_BESIDE = 2**63


def find_spans(content: Buffer) -> tuple[Span, ...]:
    """The arrays in a file: sorted by offset, disjoint, within it. Empty where it is opaque."""
    with memoryview(content) as given, given.cast("B") as view:
        try:
            return settled(_finder(view)(view), len(view))
        except Damaged:
            return ()


def external_spans(model: Buffer) -> Mapping[str, tuple[Span, ...]]:
    """The arrays in the files an ONNX model names beside it, by location.

    A location is relative, with ``/`` and no ``..``; tensors that name another kind are left
    out. Offsets are in that file, whose size is not known here: the caller drops what goes
    beyond.
    """
    with memoryview(model) as given, given.cast("B") as view:
        try:
            _, beside = onnx.find(view)
            return {location: settled(beside[location], _BESIDE) for location in sorted(beside)}
        except Damaged:
            return {}


def _finder(view: memoryview) -> Callable[[memoryview], Iterable[Span]]:
    """The format by its magic."""
    return _onnx


def _onnx(view: memoryview) -> Iterable[Span]:
    return onnx.find(view)[0]
