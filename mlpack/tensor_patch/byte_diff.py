"""Codes the bytes outside arrays: graphs, names, code, and files of unknown formats.

There are two ways: zstandard with the old bytes as its dictionary, and the alignment of
Percival's bsdiff (suffix sorting; "Naive differences of executable code", 2003), which finds
pieces that are nearly equal and whose differences compress. The caller keeps the smaller.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import bsdiff4.core
import numpy as np

from mlpack.kinds import Effort
from mlpack.runtime.patch.arrays import ArrayForm
from mlpack.runtime.patch.program import ADD, ADDED, COPY, LITERAL, LITERALS, Operation
from mlpack.tensor_patch.compression import (
    QUICK,
    SMALL,
    PackedPart,
    compress,
    compress_with_dictionary,
    level_for,
)

Range = tuple[int, int]
"""Offset and length."""

WINDOW = 1 << 22
"""Bytes of the new text that are compared with the old text at once. Sorting the suffixes of the
old text takes fifteen times its bytes, and zstandard's search reaches about twice as far."""

ALIGNED = 1 << 27
"""The longest text that is aligned, in bytes; about two megabytes take a second."""

_HELPS = 0.8
_SAMPLED = 1 << 19
_SAMPLE = 1 << 15
_NEAR = 1 << 18


@dataclass
class ByteDiff:
    """The operations for each range of the new file, and the parts they read."""

    operations: list[list[Operation[ArrayForm]]] = field(default_factory=list)
    parts: list[PackedPart] = field(default_factory=list)


def with_dictionary(
    old: memoryview,
    new: memoryview,
    known: Sequence[Range],
    rest: Sequence[Range],
    effort: Effort,
) -> ByteDiff:
    """Code all as literal bytes, with the ``known`` ranges of the old file as dictionary."""
    made = ByteDiff([[Operation(LITERAL, length)] for _, length in rest])
    content = _joined(new, rest)
    total = sum(length for _, length in known)
    level = level_for(len(content), effort)
    if effort is Effort.DEFAULT and len(content) <= QUICK:
        level = 19
    for first in range(0, len(content), WINDOW):
        piece = content[first : first + WINDOW]
        # The dictionary is around the same relative position in the old text.
        start = total * first // len(content) - WINDOW // 2 if len(content) > WINDOW else 0
        ranges = nearby(known, max(start, 0), 2 * WINDOW)
        tried = []
        middle = total * (2 * first + len(piece)) // (2 * len(content))
        if sum(length for _, length in ranges) >= 8 and _helps(old, known, middle, piece):
            tried.append(_with_ranges(old, ranges, piece, 3))
            # If nearly nothing changed, no level finds much more, and the best aligns the texts.
            if effort is Effort.MAX or len(piece) <= _SAMPLED or not _repeats(tried[0]):
                levels = (level, 22) if effort is Effort.MAX else (level,)
                tried += [_with_ranges(old, ranges, piece, each) for each in levels]
        quick = compress(LITERALS, piece, Effort.FAST)
        # If the dictionary helps much, no coder does as well without it.
        if not tried or min(each.length for each in tried) > _HELPS * quick.length:
            tried.append(compress(LITERALS, piece, effort))
        made.parts.append(min(tried, key=lambda each: each.length))
    return made


def _with_ranges(old: memoryview, ranges: Sequence[Range], piece: bytes, level: int) -> PackedPart:
    return compress_with_dictionary(LITERALS, piece, old, ranges, level=level)


def _repeats(part: PackedPart) -> bool:
    return part.length * 64 < part.part.size


def _helps(old: memoryview, known: Sequence[Range], middle: int, piece: bytes) -> bool:
    """Whether a sample says that a dictionary makes ``piece`` smaller; small pieces are tried.

    ``middle`` is the place in the old text that the middle of the piece is at, if nothing moved.
    """
    if len(piece) <= _SAMPLED:
        return True
    short = sum(length for _, length in known) <= WINDOW
    for place in range(4):
        at = (len(piece) - _SAMPLE) * place // 3
        sample = piece[at : at + _SAMPLE]
        alone = compress(LITERALS, sample, Effort.FAST).length
        # A short text is searched whole: parts of a model may have been left out.
        start = max(middle - len(piece) // 2 + at - _NEAR // 2, 0)
        near = known if short else nearby(known, start, _NEAR)
        if near and _with_ranges(old, near, sample, 3).length < 0.98 * alone:
            return True
    return False


def aligned(
    old: memoryview,
    new: memoryview,
    known: Sequence[Range],
    rest: Sequence[Range],
    effort: Effort,
) -> ByteDiff:
    """Code as pieces of the old file plus differences, and literal bytes between them.

    Long texts are aligned window by window, each with twice as much of the old text around the
    end of the previous match.
    """
    before, after = _joined(old, known), _joined(new, rest)
    steps = _Alignment(known, rest)
    literal = bytearray()
    for first in range(0, len(after), WINDOW):
        start, end = 0, len(before)
        if len(after) > WINDOW:
            start = max(steps.reached - WINDOW // 2, 0)
            end = start + 2 * WINDOW
        control, added, extra = bsdiff4.core.diff(before[start:end], after[first : first + WINDOW])
        steps.begin(start, added)
        for copied, own, moved in _triples(control):
            steps.add(copied, own, moved)
        literal += extra
    made = ByteDiff(steps.operations)
    for stream, content in ((ADDED, steps.added), (LITERALS, literal)):
        if content:
            made.parts.append(compress(stream, content, effort))
    return made


def pays(found: ByteDiff, size: int, effort: Effort) -> bool:
    """Whether to align texts of ``size`` bytes that take ``found`` with a dictionary."""
    if effort is Effort.DEFAULT and size > SMALL:
        stored = sum(each.length for each in found.parts)
        plain = sum(each.part.size for each in found.parts)
        return size <= QUICK and 32 * stored < plain
    return size <= {Effort.FAST: 0, Effort.DEFAULT: SMALL, Effort.MAX: ALIGNED}[effort]


def _joined(content: memoryview, ranges: Sequence[Range]) -> bytes:
    return b"".join(content[at : at + length] for at, length in ranges)


def nearby(ranges: Sequence[Range], start: int, length: int) -> list[Range]:
    """Return the part of ``ranges``, joined, from ``start`` on, at most ``length`` bytes."""
    found = []
    passed = 0
    for at, size in ranges:
        skipped = min(max(start - passed, 0), size)
        taken = min(size - skipped, length)
        if taken > 0:
            found.append((at + skipped, taken))
            length -= taken
        passed += size
    return found


def _triples(control: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield bsdiff's steps: bytes to copy and add to, literal bytes, and the next seek."""
    words = np.frombuffer(control, "<u8")
    sizes = (words & np.uint64(2**63 - 1)).astype(np.int64)
    signed = np.where(words >> np.uint64(63), -sizes, sizes)
    triples: Any = signed.reshape(-1, 3).tolist()
    yield from triples


class _Alignment:
    """Turns steps over the joined texts into operations inside the ranges of both files."""

    def __init__(self, known: Sequence[Range], rest: Sequence[Range]) -> None:
        self._known = known
        self._starts = [0]
        for _, length in known:
            self._starts.append(self._starts[-1] + length)
        self._left = [length for _, length in rest]
        self.operations: list[list[Operation[ArrayForm]]] = [[] for _ in rest]
        self.added = bytearray()
        self.reached = 0
        """Where the last match in the old text ended."""

        self._added = memoryview(b"")
        self._old = self._new = 0

    def begin(self, old: int, added: bytes) -> None:
        """Begin a window at ``old`` in the old text, with the differences ``added``."""
        self._old = old
        self._added = memoryview(added)

    def add(self, copied: int, literal: int, moved: int) -> None:
        """Add one step of bsdiff."""
        while copied:
            range_, at, room = self._place()
            count = min(copied, self._room(), room)
            piece, self._added = self._added[:count], self._added[count:]
            self._copy_or_add(range_ + at, piece)
            self._old += count
            copied -= count
            self.reached = self._old
        while literal:
            count = min(literal, self._room())
            self._put(Operation(LITERAL, count))
            literal -= count
        self._old += moved

    def _place(self) -> tuple[int, int, int]:
        """Return the offset of the current old range, the position in it, and the bytes left."""
        each = bisect.bisect_right(self._starts, self._old) - 1
        offset, length = self._known[each]
        at = self._old - self._starts[each]
        return offset, at, length - at

    def _room(self) -> int:
        while not self._left[self._new]:
            self._new += 1
        return self._left[self._new]

    def _copy_or_add(self, source: int, piece: memoryview) -> None:
        """Copy bytes without differences, add to others."""
        if not any(piece):
            self._put(Operation(COPY, len(piece), source))
            return
        self.added += piece
        self._put(Operation(ADD, len(piece), source))

    def _put(self, step: Operation[ArrayForm]) -> None:
        self.operations[self._new].append(step)
        self._left[self._new] -= step.length
