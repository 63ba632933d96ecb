"""Estimates of patches from samples, so that nobody waits for one that cannot pay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlpack.kinds import Effort
from mlpack.tensor_patch.array_coding import best_coding
from mlpack.tensor_patch.byte_diff import Range, nearby
from mlpack.tensor_patch.compression import compress, compress_with_dictionary, compressible
from mlpack.tensor_patch.cost_estimate import spread
from mlpack.tensor_patch.match import ArrayPair, match, numbers
from mlpack.tensor_patch.patch import Arrays, arrays_of, few

_ARRAYS = 24
"""Arrays that are sampled, the largest first."""

_NUMBERS, _ARRAY_PIECES = 4096, 4
"""Numbers of an array in its sample, and the pieces they are in."""

_PIECES, _PIECE = 16, 1 << 15
"""Pieces of the rest that are compressed, and their bytes."""

_NEAR = 1 << 18
"""Bytes of the old file around the same relative place that each may refer to."""

_WHOLE = 1 << 22
"""Bytes of the rest, and of the old file, that are compressed whole instead."""

_LEVEL = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What patches to a file are expected to take."""

    patch: int | None
    """Bytes of the patch from the old file; ``None`` without one."""

    packed: int
    """Bytes of the packed file: the patch from an empty one."""


def estimate(old: memoryview | None, new: memoryview, arrays: Arrays | None = None) -> Estimate:
    """Estimate the patches from ``old`` and from an empty file to ``new``, in about 0.1 s.

    Both are bytes of whole files; ``arrays`` are as for :func:`~mlpack.tensor_patch.make_patch`.
    """
    before = memoryview(b"") if old is None else old
    # In what cannot be compressed, nobody need look for arrays.
    noise = arrays is None and not compressible(new)
    given = Arrays((), ()) if noise else arrays_of(before, new, arrays)
    alone = [ArrayPair(each, None) for each in given.new]
    pairs = match(before, new, given.old, given.new)
    if len(before) and few(given.new, new):
        pairs = []
    return Estimate(
        patch=None if old is None else _expected(before, new, pairs),
        packed=_expected(memoryview(b""), new, alone),
    )


def _expected(old: memoryview, new: memoryview, pairs: Sequence[ArrayPair]) -> int:
    changed = sorted((each for each in pairs if not each.same), key=lambda each: -each.new.length)
    sampled = changed[:_ARRAYS]
    cost = sum(_array_cost(old, new, each) for each in sampled)
    whole, part = (sum(each.new.length for each in some) for some in (changed, sampled))
    rest, end = list[Range](), 0
    for pair in pairs:
        rest.append((end, pair.new.offset - end))
        end = pair.new.offset + pair.new.length
    rest.append((end, len(new) - end))
    return int(cost * whole / part if part else 0) + _rest_cost(old, new, rest)


def _array_cost(old: memoryview, new: memoryview, pair: ArrayPair) -> float:
    after = numbers(new, pair.new)
    some = spread(after, _NUMBERS, _ARRAY_PIECES)
    before = None
    if pair.old:
        before = spread(numbers(old, pair.old), _NUMBERS, _ARRAY_PIECES)
    cost = best_coding(pair.kind, before, some, (), 1.0).cost * len(after) / len(some)
    return min(cost, pair.new.length)


def _rest_cost(old: memoryview, new: memoryview, rest: Sequence[Range]) -> int:
    """Return what bytes outside arrays take, from pieces that are spread over them."""
    total = sum(length for _, length in rest)
    size, near = (total, len(old)) if total <= _WHOLE and len(old) <= _WHOLE else (_PIECE, _NEAR)
    taken = sampled = 0
    for at in range(0, total, max(size, total // _PIECES, 1)):
        ranges = nearby(rest, at, size)
        piece = b"".join(new[start : start + length] for start, length in ranges)
        cost, sampled = compress(0, piece, Effort.FAST).length, sampled + len(piece)
        first = max(ranges[0][0] * len(old) // max(len(new), 1) - near // 2, 0)
        around = [(first, min(near, len(old) - first))]
        if around[0][1] >= min(_PIECE, len(old)) > 0:
            cost = min(cost, compress_with_dictionary(0, piece, old, around, level=_LEVEL).length)
        taken += cost
    return taken * total // sampled if sampled else 0
