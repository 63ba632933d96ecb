"""Rounding what a model changed by: another model, of which a patch takes a fraction.

Each difference to the old model becomes a multiple of a step, one step for each array, so the
patch needs no bits below it. What comes out is another model: what it is worth has to be
measured (:mod:`mlpack.delta.agreement`), and that very model shipped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mlpack.delta.files import Contents, counterparts, spans_by_file
from mlpack.delta.logs import Array, whole
from mlpack.delta.match import match, numbers
from mlpack.delta.spans import Span, find_spans
from mlpack.errors import MlpackError
from mlpack.runtime.patch.arrays import (
    BF16,
    BLOCK,
    Kind,
    exponents,
    ordered,
    unordered,
)

MOST_BITS = 16
"""Beyond, next to nothing is saved."""

SMALL = 1024
"""Elements below which an array is kept finer: a bias acts on a whole channel, and costs little."""

FINER = 4
"""Bits that small arrays keep more."""


class NothingToRound(MlpackError):
    """A model that rounding does not make smaller."""

    hint = "ship the exact version: its patch is as small"


def round_model(
    old: memoryview,
    new: memoryview,
    *,
    keep_bits: int,
    old_spans: Sequence[Span] | None = None,
    new_spans: Sequence[Span] | None = None,
) -> bytes:
    """``new`` with the changes of its arrays of floats rounded: as many bytes, the same layout.

    ``keep_bits`` (0 to :data:`MOST_BITS`) is about how many bits of a usual difference a patch
    of the result to ``old`` takes. Spans are as for :func:`~mlpack.delta.make_patch`. Arrays of
    integers and those that come of no old one stay what they are, and so do numbers that are,
    or would come of, an infinity or no number. The same files give the same bytes everywhere.
    """
    before = find_spans(old) if old_spans is None else old_spans
    after = find_spans(new) if new_spans is None else new_spans
    made = bytearray(new)
    for pair in match(old, new, before, after):
        if pair.old is None or pair.same or not pair.kind.fraction:
            continue
        first, second = numbers(old, pair.old), numbers(new, pair.new)
        finer = FINER if len(second) < SMALL else 0
        step = usual_step(pair.kind, first, second, keep_bits + finer)
        if step is not None:
            rounded = round_array(pair.kind, first, second, step)
            made[pair.new.offset : pair.new.offset + pair.new.length] = rounded.tobytes()
    return bytes(made)


def round_files(old: Contents, new: Contents, keep_bits: int) -> dict[str, bytes]:
    """The files of ``new`` that rounding changes, by path; see :func:`round_model`."""
    old_spans, new_spans = spans_by_file(old), spans_by_file(new)
    made = {}
    for path, before in counterparts(old, new).items():
        rounded = round_model(
            old[before],
            new[path],
            keep_bits=keep_bits,
            old_spans=old_spans[before],
            new_spans=new_spans[path],
        )
        if rounded != new[path]:
            made[path] = rounded
    return made


def usual_step(kind: Kind, old: Array, new: Array, keep_bits: int) -> int | None:
    """The power of two to which differences of two arrays (bits of floats) are rounded.

    The one next below the root of their mean square, times ``2**(2 - keep_bits)``: normal
    numbers in steps as wide as their deviation take two bits. ``None`` where nothing differs.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        differences = values(kind, new) - values(kind, old)
    differences = differences[np.isfinite(differences)]
    sizes = whole(differences)  # integers of 16 bits, whose sums are the same everywhere
    squares = int((sizes * sizes).sum())
    if not squares:
        return None
    largest = math.frexp(float(np.abs(differences).max()))[1]
    return _half_log2(squares, len(sizes)) + largest - 15 + 2 - keep_bits


def _half_log2(squares: int, count: int) -> int:
    """The largest ``n`` with ``count * 4**n <= squares``."""
    found = (squares.bit_length() - count.bit_length()) // 2 + 1
    while count << 2 * max(found, 0) > squares << 2 * max(-found, 0):
        found -= 1
    return found


def round_array(kind: Kind, old: Array, new: Array, step: int) -> Array:
    """``new`` with its differences to ``old`` (bits of floats) rounded to multiples of ``2**step``.

    Rounded are the distances in the floats' order, as patches write them: to ``2**step`` in
    units of the old number's last place, and as many bits as a patch can leave out at most.
    Halves go away from zero. A number that would round to an infinity is rounded towards the
    old one, and what moves by half a step or less not at all.
    """
    made = np.empty_like(new)
    for first in range(0, len(new), BLOCK):
        here = slice(first, first + BLOCK)
        made[here] = _rounded(kind, old[here], new[here], step)
    return made


def _rounded(kind: Kind, old: Array, new: Array, step: int) -> Array:
    widths = low_widths(kind, old, step)
    keys = ordered(kind, old)
    differences = (ordered(kind, new) - keys).view(f"<i{kind.size}")
    sizes = np.abs(differences).view(kind.unsigned)
    half = (kind.unsigned.type(1) << widths) >> kind.unsigned.type(1)
    down = sizes >> widths << widths
    up = (sizes + half) >> widths << widths
    made = _moved(kind, keys, differences < 0, up)
    beyond = ~_finite(kind, made)
    made[beyond] = _moved(kind, keys, differences < 0, down)[beyond]
    with np.errstate(invalid="ignore", over="ignore"):
        moved = np.abs(values(kind, made) - values(kind, old))
    # The step of a small number has to be finer than what its change is worth.
    made = np.where(moved <= math.ldexp(1.0, step - 1), old, made)
    exact = ~_finite(kind, old) | ~_finite(kind, new) | _far(kind, keys, ordered(kind, new))
    return np.where(exact, new, made)


def low_widths(kind: Kind, old: Array, step: int) -> Array:
    """How many of the lowest bits of each difference are zero after rounding."""
    # A unit in the last place of a float is 2**(exponent - bias - fraction).
    biased = step + kind.exponents // 2 - 1 + kind.fraction
    clipped = np.clip(biased - exponents(kind, old).astype(np.int64), 0, kind.widest)
    widths: Array = clipped.astype(kind.unsigned)
    return widths


def _moved(kind: Kind, keys: Array, down: Array, sizes: Array) -> Array:
    return unordered(kind, np.where(down, keys - sizes, keys + sizes))


def _far(kind: Kind, old: Array, new: Array) -> Array:
    """Where keys are half of all keys apart or more: their difference has the wrong sign."""
    apart: Array = np.where(new >= old, new - old, old - new)
    far: Array = apart >= kind.unsigned.type(1 << (kind.bits - 1))
    return far


def _finite(kind: Kind, numbers: Array) -> Array:
    finite: Array = exponents(kind, numbers) < kind.exponents - 1
    return finite


def values(kind: Kind, bits: Array) -> Array:
    """The floats that ``bits`` are, as float64."""
    floats = (bits.astype("<u4") << np.uint32(16)).view("<f4") if kind == BF16 else bits
    # A signalling NaN becomes a quiet one, of which numpy warns.
    with np.errstate(invalid="ignore"):
        found: Array = floats.view(kind.scalar or "<f4").astype(np.float64)
    return found
