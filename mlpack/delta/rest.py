"""Writing what is no array of numbers: graphs, names, code, and files of unknown formats.

Two ways, and the smaller is taken: zstandard with the old bytes as its dictionary, or the
alignment of Percival's bsdiff (suffix sorting; "Naive differences of executable code", 2003),
which finds pieces that are nearly the same, and whose differences compress.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import bsdiff4.core
import numpy as np

from mlpack.delta.squeeze import QUICK, Pack, squeeze, squeeze_onto
from mlpack.runtime.patch import container
from mlpack.runtime.patch.program import ADD, COPY, LITERAL, Operation

Range = tuple[int, int]
"""Offset and length."""

WINDOW = 1 << 22
"""Bytes of new text that are compared with the old text at once. Sorting the suffixes of the old
text takes fifteen times its bytes, and zstandard's search reaches about twice as far."""

ALIGNED = 1 << 27
"""Bytes up to which texts are aligned, about two megabytes a second."""

_HELPS = 0.8


@dataclass
class Written:
    """The operations of each range of the new file, and the parts they read."""

    operations: list[list[Operation]] = field(default_factory=list)
    packs: list[Pack] = field(default_factory=list)


def with_dictionary(
    old: memoryview, new: memoryview, known: Sequence[Range], wanted: Sequence[Range]
) -> Written:
    """All as literal bytes, the ``known`` ranges of the old file being the dictionary."""
    written = Written([[Operation(LITERAL, length)] for _, length in wanted])
    content = _joined(new, wanted)
    total = sum(length for _, length in known)
    for first in range(0, len(content), WINDOW):
        piece = content[first : first + WINDOW]
        # Where in the old text the same share of it has passed, and as much again around it.
        start = total * first // len(content) - WINDOW // 2 if len(content) > WINDOW else 0
        ranges = _window(known, max(start, 0), 2 * WINDOW)
        packs = [squeeze(container.LITERAL, piece, slow=False)]
        if sum(length for _, length in ranges) >= 8:
            levels = (19, 22) if len(content) <= WINDOW else (19,)
            packs.append(squeeze_onto(container.LITERAL, piece, old, ranges, levels=levels))
        # Where the old text helps, nothing finds as much in the new one alone.
        if len(content) <= ALIGNED and packs[-1].length > _HELPS * packs[0].length:
            packs.append(squeeze(container.LITERAL, piece, slow=True))
        written.packs.append(min(packs, key=lambda each: each.length))
    return written


def aligned(
    old: memoryview, new: memoryview, known: Sequence[Range], wanted: Sequence[Range]
) -> Written:
    """As pieces of the old file with something added, and literal bytes between them.

    Long texts are aligned window by window, each beside twice as much of the old text around
    where the window before it has ended.
    """
    before, after = _joined(old, known), _joined(new, wanted)
    steps = _Aligned(known, wanted)
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
    written = Written(steps.operations)
    for stream, content in ((container.ADD, steps.added), (container.LITERAL, literal)):
        if content:
            written.packs.append(squeeze(stream, content, slow=len(content) <= QUICK))
    return written


def _joined(content: memoryview, ranges: Sequence[Range]) -> bytes:
    return b"".join(content[at : at + length] for at, length in ranges)


def _window(ranges: Sequence[Range], start: int, length: int) -> list[Range]:
    """The ranges' bytes from ``start`` on, counted through all of them, at most ``length``."""
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
    """bsdiff's: bytes copied with something added, bytes of its own, and where to go on."""
    words = np.frombuffer(control, "<u8")
    sizes = (words & np.uint64(2**63 - 1)).astype(np.int64)
    signed = np.where(words >> np.uint64(63), -sizes, sizes)
    triples: Any = signed.reshape(-1, 3).tolist()
    yield from triples


class _Aligned:
    """Turns steps over the joined texts into operations within each range of both files."""

    def __init__(self, known: Sequence[Range], wanted: Sequence[Range]) -> None:
        self._known = known
        self._starts = [0]
        for _, length in known:
            self._starts.append(self._starts[-1] + length)
        self._left = [length for _, length in wanted]
        self.operations: list[list[Operation]] = [[] for _ in wanted]
        self.added = bytearray()
        self.reached = 0
        """Where in the old text what was found last has ended."""

        self._given = memoryview(b"")
        self._old = self._new = 0

    def begin(self, old: int, added: bytes) -> None:
        """What follows begins at ``old`` in the old text, and adds ``added``."""
        self._old = old
        self._given = memoryview(added)

    def add(self, copied: int, literal: int, moved: int) -> None:
        """One step of bsdiff."""
        while copied:
            range_, at, room = self._place()
            count = min(copied, self._room(), room)
            piece, self._given = self._given[:count], self._given[count:]
            self._aligned(range_ + at, piece)
            self._old += count
            copied -= count
            self.reached = self._old
        while literal:
            count = min(literal, self._room())
            self._put(Operation(LITERAL, count))
            literal -= count
        self._old += moved

    def _place(self) -> tuple[int, int, int]:
        """Where the old text's position is: its range's offset, the place in it, what follows."""
        each = bisect.bisect_right(self._starts, self._old) - 1
        offset, length = self._known[each]
        at = self._old - self._starts[each]
        return offset, at, length - at

    def _room(self) -> int:
        while not self._left[self._new]:
            self._new += 1
        return self._left[self._new]

    def _aligned(self, source: int, piece: memoryview) -> None:
        """Bytes that are the same all along are copied, others are added to."""
        if not any(piece):
            self._put(Operation(COPY, len(piece), source))
            return
        self.added += piece
        self._put(Operation(ADD, len(piece), source))

    def _put(self, step: Operation) -> None:
        self.operations[self._new].append(step)
        self._left[self._new] -= step.length
