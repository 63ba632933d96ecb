"""Making a patch: every way that may be the smallest is tried, and the smallest is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from mlpack.delta import rest
from mlpack.delta.guess import guessed_spans
from mlpack.delta.law import best_fit
from mlpack.delta.match import Pair, match, numbers
from mlpack.delta.numbers import Numbers
from mlpack.delta.rest import Range, Written
from mlpack.delta.spans import Span, find_spans
from mlpack.delta.squeeze import QUICK, Pack, squeeze
from mlpack.delta.streams import pack_program, patch_file
from mlpack.delta.trial import sample
from mlpack.runtime.patch import apply_patch, container
from mlpack.runtime.patch.program import ARRAY, COPY, ROUNDED, Operation

WHOLE = 1 << 23
"""Bytes of a file up to which it is also tried as one that holds no arrays."""

_ESTIMATED = 1 << 16
"""Bytes of an array by which it is estimated what it takes as bytes."""


def make_patch(
    old: memoryview,
    new: memoryview,
    *,
    old_spans: Sequence[Span] | None = None,
    new_spans: Sequence[Span] | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> bytes:
    """The patch that makes ``new`` of ``old``; :func:`~mlpack.runtime.patch.apply_patch` undoes it.

    Both are bytes of whole files; a mapped file (``mmap``) is read and not copied. Spans are
    arrays of numbers in them, found by :func:`~mlpack.delta.spans.find_spans` where they are not
    given, as those of external data files, which say nothing of themselves. ``advance`` is told
    how many bytes of ``new`` are done. The same files, mlpack and compression libraries give the
    same patch. Lossless whatever the files hold.

    Takes memory for about twice ``new``, and up to about ten times files of less than 8 MiB.
    """
    before = find_spans(old) if old_spans is None else old_spans
    after = find_spans(new) if new_spans is None else new_spans
    ways = []
    guessed = () if before or after else guessed_spans(old, new)
    if guessed:
        before = after = guessed
    if after:
        ways.append(_Way(old, new, before, match(old, new, before, after), advance))
    if not after or guessed or max(len(old), len(new)) <= WHOLE:
        ways.append(_Way(old, new, (), [], advance if not after else lambda _: None))
    made = min((way.patch() for way in ways), key=len)
    # Proof, not trust: what a device will do is done once here, and its result is checked.
    apply_patch(old, memoryview(made), lambda _: None)
    return made


@dataclass
class _Step:
    """A piece of the new file: operations that are known, or ``None`` for what is left over."""

    offset: int
    length: int
    operation: Operation | None = None


@dataclass
class _Way:
    """One division of the new file into arrays, copies, and the rest."""

    old: memoryview
    new: memoryview
    old_spans: Sequence[Span]
    pairs: list[Pair]
    advance: Callable[[int], object]
    _numbers: Numbers = field(default_factory=Numbers)
    _scale: float = 1.0

    def patch(self) -> bytes:
        """The smallest patch, over the ways of writing the rest."""
        steps = list(self._steps())
        classes, packs = self._numbers.packs(slow=self._thorough)
        wanted = [(each.offset, each.length) for each in steps if each.operation is None]
        ways = [self._packs(steps, written) for written in self._rest(wanted)]
        best = min(ways, key=lambda way: sum(each.length for each in way))
        return patch_file(self.old, self.new, classes, [*best, *packs])

    @property
    def _thorough(self) -> bool:
        """Whether so little changed that coders which unpack slowly are fast enough."""
        return sum(pair.new.length for pair in self.pairs if not pair.same) <= QUICK

    @staticmethod
    def _packs(steps: Sequence[_Step], written: Written) -> list[Pack]:
        """The program, and what its operations on the rest read."""
        found = iter(written.operations)
        operations = [
            operation
            for each in steps
            for operation in ([each.operation] if each.operation else next(found))
        ]
        return [pack_program(joined(operations)), *written.packs]

    def _steps(self) -> Iterator[_Step]:
        at, thorough = 0, self._thorough
        for pair in self.pairs:
            if at < pair.new.offset:
                yield _Step(at, pair.new.offset - at)
            operation = self._operation(pair, thorough)
            yield _Step(pair.new.offset, pair.new.length, operation)
            at = pair.new.offset + pair.new.length
            self.advance(pair.new.length)
        if at < len(self.new):
            yield _Step(at, len(self.new) - at)
            self.advance(len(self.new) - at)

    def _operation(self, pair: Pair, thorough: bool) -> Operation | None:
        """How an array is written; ``None`` where its bytes are better off with the rest."""
        source = pair.old.offset if pair.old else 0
        if pair.same:
            return Operation(COPY, pair.new.length, source)
        after = numbers(self.new, pair.new)
        before = numbers(self.old, pair.old) if pair.old else None
        of = sample(pair.kind, before, after, pair.new.shape, tables=thorough)
        fit = best_fit(of, paired=before is not None, tables=thorough, usual=self._scale)
        if self._as_bytes(pair.new) < fit.cost:
            return None
        self._numbers.add(fit, before if fit.form.delta else None, after)
        self._scale = fit.form.scale if fit.form.delta else self._scale
        code = ROUNDED if fit.form.rounded else ARRAY
        return Operation(code, pair.new.length, source if fit.form.delta else 0, fit.form)

    def _as_bytes(self, span: Span) -> float:
        """About what an array takes as literal bytes."""
        length = min(span.length, _ESTIMATED)
        start = span.offset + (span.length - length) // 2
        piece = self.new[start : start + length]
        return squeeze(container.LITERAL, piece, slow=False).length * span.length / length

    def _rest(self, wanted: Sequence[Range]) -> Iterator[Written]:
        known = list(self._known())
        sizes = [sum(length for _, length in ranges) for ranges in (known, wanted)]
        yield rest.with_dictionary(self.old, self.new, known, wanted)
        if sizes[0] and sizes[1] and max(sizes) <= rest.ALIGNED:
            yield rest.aligned(self.old, self.new, known, wanted)

    def _known(self) -> Iterator[Range]:
        """What of the old file is no array that a new one comes of."""
        used = {id(pair.old) for pair in self.pairs if pair.old}
        at = 0
        for span in self.old_spans:
            if id(span) not in used:
                continue
            if at < span.offset:
                yield at, span.offset - at
            at = span.offset + span.length
        if at < len(self.old):
            yield at, len(self.old) - at


def joined(operations: Sequence[Operation]) -> list[Operation]:
    """Neighbours that do the same with what lies side by side, as one."""
    made: list[Operation] = []
    for each in operations:
        last = made[-1] if made else None
        if last is None or each.code != last.code or each.form or last.form:
            made.append(each)
        elif not each.has_source or each.source == last.source + last.length:
            made[-1] = Operation(each.code, last.length + each.length, last.source)
        else:
            made.append(each)
    return made
