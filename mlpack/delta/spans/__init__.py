"""Where arrays of numbers lie in a model's file, read from its bytes and no framework.

A file that is of no known format, or is damaged or made to harm, has no spans: it is one opaque
run of bytes. Nothing a file says is followed further than the file itself goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mlpack.delta.spans import npy, onnx, pickled, safetensors, tflite, torch, zip
from mlpack.delta.spans.span import Buffer, Damaged, Kind, Span, settled

__all__ = ["Buffer", "Kind", "Span", "external_spans", "find_spans"]

_BESIDE = 2**63


def find_spans(content: Buffer) -> tuple[Span, ...]:
    """The arrays in a file: sorted by offset, disjoint, within it. Empty where it is opaque."""
    with memoryview(content) as given, given.cast("B") as view:
        try:
            return settled(_arrays(view), len(view))
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


def _arrays(view: memoryview) -> Iterable[Span]:
    """The arrays of the format whose magic the file has; of ONNX, which has none, otherwise."""
    if view[: len(npy.MAGIC)] == npy.MAGIC:
        return npy.find(view, 0, len(view), "array")
    if view[: len(zip.MAGIC)] == zip.MAGIC:
        return _members(view)
    if view[4:8] == tflite.IDENTIFIER:
        return tflite.find(view)
    if safetensors.is_one(view):
        return safetensors.find(view)
    if pickled.is_one(view):
        return pickled.find(view)
    return onnx.find(view)[0]


def _members(view: memoryview) -> Iterable[Span]:
    members = zip.members(view)
    if any(member.name.endswith(torch.PICKLE) for member in members):
        return torch.find(view, members)
    return npy.find_members(view, members)
