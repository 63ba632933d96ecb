"""Arrays in files of unknown formats: where two versions are as long, their numbers may be, too.

HDF5 files, weights dumped as they are in memory, and many engines' own formats keep floats at
places that do not move between versions. Nothing is believed: a guess is kept where the patch
it gives is the smallest.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlpack.delta.law import best_fit
from mlpack.delta.logs import Array
from mlpack.delta.match import kind_of
from mlpack.delta.spans import Span
from mlpack.delta.spans.span import Kind
from mlpack.delta.trial import sample

PIECE = 1 << 16
"""Bytes that are guessed about at once."""

_KINDS = (Kind.F32, Kind.F16, Kind.F64, Kind.BF16)


def guessed_spans(old: memoryview, new: memoryview) -> tuple[Span, ...]:
    """Pieces of two files of one length, each as the kind of number that its changes suit best."""
    if len(old) != len(new):
        return ()
    return tuple(_guesses(old, new))


def _guesses(old: memoryview, new: memoryview) -> Iterator[Span]:
    for at in range(0, len(new) - PIECE + 1, PIECE):
        before, after = (np.frombuffer(each[at : at + PIECE], np.uint8) for each in (old, new))
        if np.array_equal(before, after):
            continue
        spans = [Span(f"at {at}", at, PIECE, kind, (PIECE // kind.width,)) for kind in _KINDS]
        yield min(spans, key=lambda span: _cost(before, after, span))


def _cost(old: Array, new: Array, span: Span) -> float:
    kind = kind_of(span)
    before, after = old.view(kind.unsigned), new.view(kind.unsigned)
    of = sample(kind, before, after, span.shape, tables=False)
    return best_fit(of, paired=True, tables=False).cost
