"""Where arrays of numbers are in a model's file, read from its bytes without any framework.

A file of an unknown format, or one that is damaged or malicious, has no spans: it is one opaque
run of bytes. No reader follows an offset beyond the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Protocol, cast

from mlpack.tensor_patch.spans import npy, onnx, tensorflow, tfjs
from mlpack.tensor_patch.spans import zip as archive
from mlpack.tensor_patch.spans.guess import guess
from mlpack.tensor_patch.spans.span import MAX_NAME, Buffer, Damaged, Kind, Span, normalized

__all__ = ["DESCRIBING", "Buffer", "Kind", "Span", "external_spans", "find_spans", "guess"]

DESCRIBING = (onnx.SUFFIX, tensorflow.SUFFIX, tfjs.SUFFIX)
"""How the names of files end that describe arrays in other files."""

MAX_DEPTH = 4
"""Of archives in archives."""

_UNKNOWN_SIZE = 2**63


class Format(Protocol):
    """What a module for one file format defines."""

    def detect(self, view: memoryview) -> int:
        """Return how many bytes at known places say that it is this format; 0 if it is not."""
        ...

    def find(self, view: memoryview) -> Iterable[Span]:
        """Return the arrays in the file; raise :class:`~.span.Damaged`."""
        ...


def find_spans(content: Buffer) -> tuple[Span, ...]:
    """Return the arrays in a file: sorted by offset, disjoint, inside it. Empty if it is opaque."""
    with memoryview(content) as given, given.cast("B") as view:
        try:
            return normalized(_arrays(view, 0), len(view))
        except Damaged:
            return ()


def external_spans(model: Buffer, name: str = onnx.SUFFIX) -> Mapping[str, tuple[Span, ...]]:
    """Return the arrays that a model's file describes in other files, by location.

    ``name`` is the file's: that of an ONNX model, a TensorFlow checkpoint's ``.index``, or a
    TensorFlow.js model's ``.json`` (:data:`DESCRIBING`). A location is a path relative to the
    file's folder with ``/`` and no ``..``; arrays with any other location are left out. Offsets
    are in that file, whose size is not known here: the caller drops spans that end beyond it.
    """
    form = next((each for each in (onnx, tensorflow, tfjs) if name.endswith(each.SUFFIX)), None)
    if form is None:
        return {}
    with memoryview(model) as given, given.cast("B") as view:
        try:
            external = form.find_external(view, name.rpartition("/")[2])
            return {path: normalized(external[path], _UNKNOWN_SIZE) for path in sorted(external)}
        except Damaged:
            return {}


def _arrays(view: memoryview, depth: int) -> Iterable[Span]:
    """Read the format that recognises most of the file; a file that none does is read as ONNX."""
    sure, name, best = max((each.detect(view), name, each) for name, each in _formats().items())
    if sure and name == "zip":
        return _members(view, depth)
    return (best if sure else onnx).find(view)


def _members(view: memoryview, depth: int) -> Iterator[Span]:
    """Yield the arrays in an archive's members, each named after its member."""
    for member in archive.members(view) if depth < MAX_DEPTH else ():
        with view[member.start : member.end] as inner:
            try:
                found = list(_arrays(inner, depth + 1))
            except Damaged:
                continue
        for each in found:
            single = each.name == npy.NAME
            name = member.name.removesuffix(".npy") if single else f"{member.name}/{each.name}"
            yield replace(each, name=name[-MAX_NAME:], offset=member.start + each.offset)


@cache
def _formats() -> Mapping[str, Format]:
    """Return the modules of this package that are formats, by name: those with a ``detect``."""
    found = {each.name: import_module(f"{__name__}.{each.name}") for each in iter_modules(__path__)}
    return {name: cast(Format, each) for name, each in found.items() if hasattr(each, "detect")}
