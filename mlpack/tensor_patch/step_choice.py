"""Chooses the steps to which arrays are rounded: the least harm for the bytes.

Arrays of like influence are a group and have one step. What it does to the outputs is measured
group by group (:mod:`mlpack.project.rounding_search`), at a few steps; harms of groups add up,
since errors of rounding are independent. The best steps for any number of bytes are those at
which one more byte saves as much harm in every group (a Lagrange multiplier, as in video coders:
Shoham and Gersho 1988, "Efficient bit allocation for an arbitrary set of quantizers").
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlpack.runtime.patch.arrays import Array
from mlpack.tensor_patch.rounding import ChangedArray
from mlpack.tensor_patch.steps import STEPS, steps, values

SMALL = 1024
"""Arrays with fewer elements are grouped among themselves: most are biases and scales."""

_LARGE_GROUPS = 40
_SMALL_GROUPS = 8

_SAMPLE = 1 << 17
"""Elements by which the bytes of a group are estimated."""

_FINEST = 16
"""Bits by which the finest step is below a usual difference."""

_LEAST = 2.0**-1000
_HALVINGS = 48


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Arrays that are rounded to one step."""

    arrays: tuple[ChangedArray, ...]
    usual: int
    """The power of two below the root of the differences' mean square."""

    sizes: Mapping[int, int]
    """Estimated bytes by step, the finest first; with the last all old numbers are kept."""

    @property
    def last(self) -> int:
        """The step that leaves nothing of the change."""
        return max(self.sizes)


def groups(arrays: Sequence[ChangedArray]) -> list[Group]:
    """Group arrays by what their names have in common, as finely as the limits allow."""
    large = [each for each in arrays if len(each.new) >= SMALL]
    small = [each for each in arrays if len(each.new) < SMALL]
    found = _grouped(large, _LARGE_GROUPS) + _grouped(small, _SMALL_GROUPS)
    return [made for each in found if (made := _group(each))]


_KEYS: tuple[Callable[[ChangedArray], object], ...] = (
    lambda each: (each.path, each.offset),
    lambda each: re.sub(r"\d", "", each.name),
    lambda each: re.sub(r"\d", "", re.split("[./:]", each.name)[-1]),
    lambda each: None,
)
"""From every array by itself, and layers of a kind together, to all as one."""


def _grouped(arrays: Sequence[ChangedArray], most: int) -> list[list[ChangedArray]]:
    for key in _KEYS:
        found = dict[object, list[ChangedArray]]()
        for each in arrays:
            found.setdefault(key(each), []).append(each)
        if len(found) <= most:
            break
    return list(found.values())


def _group(arrays: Sequence[ChangedArray]) -> Group | None:
    """Return a group with its sizes; ``None`` if no finite number changed."""
    stride = -(-sum(len(each.new) for each in arrays) // _SAMPLE)
    some = [(each.kind, each.old[::stride], each.new[::stride]) for each in arrays]
    with np.errstate(invalid="ignore", over="ignore"):
        moved = np.concatenate([values(kind, new) - values(kind, old) for kind, old, new in some])
    moved = moved[np.isfinite(moved)]
    largest = float(np.abs(moved).max(initial=0.0))
    if not largest:
        return None
    usual = math.frexp(largest * math.sqrt(float(np.mean((moved / largest) ** 2))))[1] - 1
    last = math.frexp(largest)[1] + 1
    sizes = {
        step: _coded(np.concatenate([steps(*each, step) for each in some])) * stride
        for step in range(max(usual - _FINEST, STEPS[0]), min(last, STEPS[-1]) + 1)
    }
    return Group(tuple(arrays), usual, sizes) if sizes else None


def _coded(multiples: Array) -> int:
    from pcodec import ChunkConfig
    from pcodec.standalone import simple_compress

    return len(simple_compress(multiples, ChunkConfig(compression_level=8)))


def choose(
    found: Sequence[Group], measured: Sequence[Mapping[int, float]], budget: float
) -> tuple[int, ...]:
    """Return a step for each group: those of least harm that take ``budget`` bytes or less.

    ``measured`` has for each group its harm by step, at one step at least. If all that can be
    chosen takes more, the result is the smallest.
    """
    sizes = [np.array(list(each.sizes.values()), np.float64) for each in found]
    harms = [_harms(each, known) for each, known in zip(found, measured, strict=True)]

    def at(price: float) -> list[int]:
        each = zip(sizes, harms, strict=True)
        return [int(np.argmin(harm + 2.0**price * size)) for size, harm in each]

    low, high = -1000.0, 1000.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        taken = sum(size[place] for size, place in zip(sizes, at(middle), strict=True))
        low, high = (low, middle) if taken <= budget else (middle, high)
    return tuple(list(each.sizes)[place] for each, place in zip(found, at(high), strict=True))


def by_worth(
    found: Sequence[Group], measured: Sequence[Mapping[int, float]], choice: Sequence[int]
) -> list[int]:
    """Return the places of groups that can be coarser, those first that save most for the harm."""
    worth = dict[int, float]()
    for place, (group, known, step) in enumerate(zip(found, measured, choice, strict=True)):
        if step < group.last:
            harms = dict(zip(group.sizes, _harms(group, known), strict=True))
            saved = group.sizes[step] - group.sizes[step + 1]
            worth[place] = saved / max(harms[step + 1] - harms[step], _LEAST)
    return sorted(worth, key=lambda place: -worth[place])


def _harms(group: Group, measured: Mapping[int, float]) -> Array:
    """Return the harm of each step, from those measured: of half a step it is a quarter."""
    known = sorted(measured)
    logs = [math.log2(min(max(measured[each], _LEAST), 1 / _LEAST)) for each in known]
    places = np.array(list(group.sizes))
    harms: Array = np.exp2(np.interp(places, known, logs) + 2 * np.minimum(places - known[0], 0))
    return harms
