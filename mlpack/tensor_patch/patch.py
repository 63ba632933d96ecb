"""Makes patches: tries every way that may be the smallest, and keeps the smallest.

A model may have several files; each is patched from its counterpart in the old model.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlpack.kinds import Effort
from mlpack.runtime.patch import apply_patch
from mlpack.runtime.patch.arrays import ArrayForm
from mlpack.runtime.patch.program import ARRAY, COPY, MASKED, MASKS, TABLES, Operation
from mlpack.tensor_patch import byte_diff
from mlpack.tensor_patch.array_coding import PCODEC_HEADER, ArrayEncoder, CodedSet, best_coding
from mlpack.tensor_patch.byte_diff import ByteDiff, Range
from mlpack.tensor_patch.compression import (
    QUICK,
    SMALL,
    compress,
    patch_file,
    write_index,
)
from mlpack.tensor_patch.equality import equal
from mlpack.tensor_patch.match import ArrayPair, match, numbers
from mlpack.tensor_patch.spans import DESCRIBING, Span, external_spans, find_spans
from mlpack.tensor_patch.spans.guess import guess
from mlpack.tensor_patch.tree_columns import gathered

WHOLE = 1 << 23
"""Bytes of a file up to which a patch without arrays is also tried at the highest effort."""

_ESTIMATED = 1 << 14
"""Bytes of an array from which its size as literal bytes is estimated."""

_TINY = 1 << 18
"""Bytes of a file up to which it always is, at the default effort."""

_ALWAYS = 32
"""Bytes of an array that is always left to the byte diff."""

Contents = Mapping[str, memoryview]
"""The bytes of a model's files, by path."""

_EMPTY = memoryview(b"")


@dataclass(frozen=True, slots=True)
class Arrays:
    """Where the arrays are in an old and a new file."""

    old: Sequence[Span]
    new: Sequence[Span]


def make_patch(
    old: memoryview,
    new: memoryview,
    *,
    arrays: Arrays | None = None,
    effort: Effort = Effort.DEFAULT,
    advance: Callable[[int], object] = lambda _: None,
) -> bytes:
    """Return the patch from ``old`` to ``new``, for :func:`~mlpack.runtime.patch.apply_patch`.

    Both are bytes of whole files; a mapped file (``mmap``) is read and not copied. If ``old`` is
    empty, the patch is the packed model. If ``arrays`` are not given,
    :func:`~mlpack.tensor_patch.spans.find_spans` finds them, which is impossible for external data
    files; in files of unknown formats they are guessed. ``advance`` is called with the number of
    bytes of ``new`` that are done. The same files, mlpack and compression libraries give the same
    patch. Lossless for any files.

    Takes memory for about three times ``new``.
    """
    if len(new) and equal(old, new):
        copied = write_index((), (), b"", [Operation(COPY, len(new))])
        advance(len(new))
        return patch_file(old, new, copied, ())
    given = arrays_of(old, new, arrays)
    before, after = given.old, given.new
    numeric = _Division(old, new, before, match(old, new, before, after), effort, advance)
    bytes_only = _Division(old, new, (), [], effort, lambda _: None)
    first, second = (bytes_only, numeric) if len(old) and few(after, new) else (numeric, bytes_only)
    made = first.patch()
    if len(old) and after and _mostly_equal(made, old, new, effort):
        made = min(made, second.patch(), key=len)
    made = min([made, *_in_columns(old, new, effort)], key=len)
    # Proof, not trust: apply the patch as a device will, which checks the result.
    apply_patch(old, memoryview(made), lambda _: None)
    return made


def _in_columns(old: memoryview, new: memoryview, effort: Effort) -> Iterator[bytes]:
    """Yield the patch that makes a model of trees in columns, if ``new`` is one."""
    # Text is gathered at two to five megabytes a second.
    if len(new) > {Effort.FAST: SMALL, Effort.DEFAULT: QUICK, Effort.MAX: len(new)}[effort]:
        return
    found = gathered(new)
    if found and len(found.packed) <= len(new):
        packed = memoryview(found.packed)
        pairs = match(_EMPTY, packed, (), found.decimals)
        yield _Division(old, packed, (), pairs, effort, lambda _: None, new).patch()


def arrays_of(old: memoryview, new: memoryview, given: Arrays | None) -> Arrays:
    """Return the arrays that are given, found, or guessed."""
    known = given or Arrays(find_spans(old), find_spans(new))
    return Arrays(known.old or guess(old), known.new or guess(new))


def few(spans: Sequence[Span], new: memoryview) -> bool:
    """Whether a file is mostly something else, as of trees, so that arrays only tear it apart."""
    return 4 * sum(each.length for each in spans) < len(new)


def _mostly_equal(patch: bytes, old: memoryview, new: memoryview, effort: Effort) -> bool:
    """Whether a patch without arrays may be smaller: what is copied may cross their borders."""
    size = max(len(old), len(new))
    if effort is Effort.MAX:
        return size <= WHOLE
    if effort is Effort.FAST or size > QUICK:
        return False
    return size <= _TINY or 32 * len(patch) < size


@dataclass
class _Segment:
    """A piece of the new file; ``operation`` is ``None`` if it is left to the byte diff."""

    offset: int
    length: int
    operation: Operation[ArrayForm] | None = None


@dataclass
class _Division:
    """One division of the new file into arrays, copies, and the rest."""

    old: memoryview
    new: memoryview
    old_spans: Sequence[Span]
    pairs: list[ArrayPair]
    effort: Effort
    advance: Callable[[int], object]
    joined: memoryview | None = None
    """The file that ``new`` has in columns."""

    _scale: float = 1.0
    _encoder: ArrayEncoder = field(init=False)

    def __post_init__(self) -> None:
        self._encoder = ArrayEncoder(self.effort)

    def patch(self) -> bytes:
        """Return the smallest patch over the ways to code the rest."""
        segments = list(self._segments())
        sets = self._sets(segments)
        rest = [(each.offset, each.length) for each in segments if each.operation is None]
        found = [self._file(segments, sets, diff) for diff in self._byte_diffs(rest)]
        return min(found, key=len)

    def _sets(self, segments: Sequence[_Segment]) -> list[CodedSet]:
        """Code the arrays, and tell their operations which set has their numbers."""
        numbers, sets = self._encoder.coded()
        coded = [each for each in segments if each.operation and each.operation.form]
        for each, number in zip(coded, numbers, strict=True):
            operation = each.operation
            if operation and operation.form:
                each.operation = replace(operation, form=replace(operation.form, set=number))
        return sets

    def _file(
        self, segments: Sequence[_Segment], sets: Sequence[CodedSet], diff: ByteDiff
    ) -> bytes:
        found = iter(diff.operations)
        operations = joined(
            operation
            for each in segments
            for operation in ([each.operation] if each.operation else next(found))
        )
        parts = [each for each in diff.parts if each.part.size]
        for stream, content in ((TABLES, self._encoder.tables), (MASKS, self._encoder.masks)):
            parts += [compress(stream, content, self.effort)] if content else []
        index = write_index(parts, sets, PCODEC_HEADER, operations)
        bodies = [each.stored for each in parts]
        bodies += [body for each in sets for body in each.bodies]
        if self.joined is None:
            return patch_file(self.old, self.new, index, bodies)
        return patch_file(self.old, self.joined, index, bodies, len(self.new))

    def _segments(self) -> Iterator[_Segment]:
        at = 0
        for pair in self.pairs:
            if at < pair.new.offset:
                yield _Segment(at, pair.new.offset - at)
            operation = self._operation(pair)
            yield _Segment(pair.new.offset, pair.new.length, operation)
            at = pair.new.offset + pair.new.length
            self.advance(pair.new.length)
        if at < len(self.new):
            yield _Segment(at, len(self.new) - at)
            self.advance(len(self.new) - at)

    def _operation(self, pair: ArrayPair) -> Operation[ArrayForm] | None:
        """Encode an array; return ``None`` if its bytes are smaller with the rest."""
        source = pair.old.offset if pair.old else 0
        if pair.same:
            return Operation(COPY, pair.new.length, source)
        if pair.new.length <= _ALWAYS:
            return None
        after = numbers(self.new, pair.new)
        before = numbers(self.old, pair.old) if pair.old else None
        coding = best_coding(pair.kind, before, after, pair.new.shape, self._scale)
        if self._literal_cost(pair.new) < coding.cost:
            return None
        form = self._encoder.add(coding, before, after)
        self._scale = form.scale if form.delta else self._scale
        code = MASKED if coding.masked else ARRAY
        return Operation(code, pair.new.length, source if form.delta else 0, form)

    def _literal_cost(self, span: Span) -> float:
        """Estimate what an array takes as literal bytes."""
        length = min(span.length, _ESTIMATED)
        start = span.offset + (span.length - length) // 2
        piece = self.new[start : start + length]
        return compress(0, piece, Effort.FAST).length * span.length / length

    def _byte_diffs(self, rest: Sequence[Range]) -> Iterator[ByteDiff]:
        known = list(self._known())
        found = byte_diff.with_dictionary(self.old, self.new, known, rest, self.effort)
        yield found
        sizes = [sum(length for _, length in ranges) for ranges in (known, rest)]
        if min(sizes) and byte_diff.pays(found, max(sizes), self.effort):
            yield byte_diff.aligned(self.old, self.new, known, rest, self.effort)

    def _known(self) -> Iterator[Range]:
        """Yield the ranges of the old file outside the arrays that new ones are coded against."""
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


def joined(operations: Iterable[Operation[ArrayForm]]) -> list[Operation[ArrayForm]]:
    """Join adjacent operations that do the same with adjacent bytes."""
    made: list[Operation[ArrayForm]] = []
    for each in operations:
        last = made[-1] if made else None
        if last is None or each.code != last.code or each.form or last.form:
            made.append(each)
        elif not each.has_source or each.source == last.source + last.length:
            made[-1] = Operation(each.code, last.length + each.length, last.source)
        else:
            made.append(each)
    return made


def within(spans: Sequence[Span], size: int) -> tuple[Span, ...]:
    """Return the spans that are inside a file of ``size`` bytes."""
    return tuple(each for each in spans if each.offset + each.length <= size)


def spans_by_file(contents: Contents) -> dict[str, tuple[Span, ...]]:
    """Return the arrays in each file; some files describe those of others in their folder.

    If several describe a file, the first counts.
    """
    found = {path: find_spans(content) for path, content in contents.items()}
    for path in sorted(path for path in contents if path.endswith(DESCRIBING)):
        for location, spans in external_spans(contents[path], path).items():
            data = posixpath.join(posixpath.dirname(path), location)
            if data in contents and not found[data]:
                found[data] = within(spans, len(contents[data]))
    return found


def counterparts(old: Contents, new: Contents) -> dict[str, str]:
    """Return the path in ``old`` for each path of ``new`` that has a counterpart.

    It is the same path; if both models are one file, these are counterparts whatever their names.
    """
    if len(old) == len(new) == 1:
        return {next(iter(new)): next(iter(old))}
    return {path: path for path in new if path in old}


def patch_bytes(old: Contents, new: Contents) -> int:
    """Return the total bytes of the patches from the files of ``old`` to those of ``new``."""
    old_spans, new_spans = spans_by_file(old), spans_by_file(new)
    previous = counterparts(old, new)
    total = 0
    for path, content in new.items():
        before = previous.get(path)
        patch = make_patch(
            old[before] if before else _EMPTY,
            content,
            arrays=Arrays(old_spans[before] if before else (), new_spans[path]),
        )
        total += len(patch)
    return total
