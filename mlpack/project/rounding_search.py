"""Search for the smallest patch to a rounded model whose answers agree with the exact one's.

How much each group of arrays matters is measured first, two runs of the model for each group.
Then roundings are compared with the exact model on all rows, at most some 250.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mlpack.json_document import document
from mlpack.model.validation_data import InvalidValidationData, ValidationData
from mlpack.model.version import ModelVersion
from mlpack.project.directory import blob
from mlpack.project.validation_data import Answers, answers
from mlpack.stores.files import temporary_folder
from mlpack.stores.layout import LayoutStore
from mlpack.stores.patch_files import mapped
from mlpack.stores.store import verify
from mlpack.tensor_patch.output_comparison import (
    Agreement,
    Bounds,
    Outputs,
    compare,
    mean_square,
)
from mlpack.tensor_patch.patch import Contents, patch_bytes
from mlpack.tensor_patch.rounding import NothingToRound, changed_arrays, rounded_files
from mlpack.tensor_patch.step_choice import by_worth, choose, groups

MOST_BITS = 16
"""More bits for each number save almost nothing."""

_LEAST_BITS = 1 / 64
_FINE = 3
"""Bits by which the step that is measured first is below a usual difference."""

_ROWS = 32
"""Rows by which the influence of a group is measured."""

_HALVINGS = 8
_REFINEMENTS = 3
_CLOSER = (0.98, 0.96, 0.94, 0.92, 0.9, 0.87, 0.84, 0.8)
"""Shares of the bytes found that are tried, since errors do not grow evenly."""

_APART = 1.1
"""How much larger the patch of each point of a curve is than that of the last, at least."""

Choice = tuple[int, ...]
"""A step for each group."""


FAILED = Agreement(max_error=math.inf, agreement=0.0, exact_accuracy=None, rounded_accuracy=0.0)
"""Of a rounded model that cannot run."""


@contextmanager
def contents(layout: LayoutStore, version: ModelVersion) -> Iterator[Contents]:
    """Yield the content of the files of ``version``, each verified.

    Raises :class:`~mlpack.stores.store.Corrupt` and :class:`~mlpack.stores.store.NotFound`.
    """
    with ExitStack() as opened:
        made = {}
        for file in version.files:
            verify(layout, blob(file))
            made[file.path] = opened.enter_context(mapped(layout.path(blob(file))))
        yield made


@contextmanager
def laid_out(files: Contents) -> Iterator[Path]:
    """Yield a folder with ``files``, which is removed when the block ends."""
    with temporary_folder("mlpack-round-") as folder:
        for path, content in files.items():
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        yield folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A rounded model and its comparison with the exact one."""

    choice: Choice
    patch: int
    """Bytes of its patch; estimated, except those of the one that is registered."""

    found: Agreement
    broken: str
    """The bound it breaks; empty if it keeps all."""

    def to_json(self) -> dict[str, object]:
        """One of ``attempts`` of the document of ``mlpack --json round``."""
        return {"patch_bytes": self.patch, **document(self.found), "broken": self.broken or None}


class RoundingSearch:
    """Rounds a model and compares it with the exact one.

    Raises :class:`~mlpack.tensor_patch.rounding.NothingToRound`.
    """

    def __init__(self, old: Contents, new: Contents, check: ValidationData, bounds: Bounds) -> None:
        self._old = old
        self._new = new
        self._check = check
        self._bounds = bounds
        self._groups = groups(changed_arrays(old, new))
        if not self._groups:
            raise NothingToRound("no array of floats changed that the anchor has as well")
        self._numbers = sum(len(each.new) for group in self._groups for each in group.arrays)
        self._harms = [dict[int, float]() for _ in self._groups]
        self._attempts = dict[Choice, Attempt]()
        self.measurements = 1 + 2 * len(self._groups)
        """Runs of the model that :meth:`measure` makes."""

    def measure(self, advance: Callable[[int], object]) -> None:
        """Score the exact model, and measure what the change of each group is worth."""
        self._advance = advance
        self._exact = self._answers({})
        self.rows = self._exact.rows
        self._measure(tuple(each.last for each in self._groups))
        self._measure(tuple(max(min(each.sizes), each.usual - _FINE) for each in self._groups))

    def with_bits(self, bits: float, advance: Callable[[int], object]) -> Attempt:
        """Return the best rounding of about ``bits`` for each number."""
        self._advance = advance
        self._measure(self._choice(bits))
        return self._at(bits)

    def smallest(self, advance: Callable[[int], object]) -> Attempt:
        """Return the smallest rounding within the bounds; the finest if none is."""
        self._advance = advance
        finest = self._at(MOST_BITS)
        if finest.broken:
            return finest
        most = math.log2(MOST_BITS)
        level = self._bisected(math.log2(_LEAST_BITS), most, _HALVINGS)
        for _ in range(_REFINEMENTS):
            if not self._measure(self._choice(2**level)):
                break
            level = self._bisected(level - 1, min(level + 1, most), _HALVINGS - 3)
        for share in _CLOSER:
            self._at(share * 2**level)
        kept = (each for each in self._attempts.values() if not each.broken)
        return self._coarsened(min(kept, key=lambda each: each.patch))

    def curve(self, chosen: Attempt, patch: int) -> tuple[Attempt, ...]:
        """Return the attempts that no smaller one beats, the smallest first.

        ``patch`` is what a patch to ``chosen`` takes, with all that is not rounded; the bytes of
        the others are estimated from it.
        """
        rest, least, last = patch - chosen.patch, math.inf, 0.0
        made = []
        for each in sorted(self._attempts.values(), key=lambda each: each.patch):
            better = each.found.max_error < least and each.patch > _APART * last
            if better or each == chosen:
                made.append(replace(each, patch=max(each.patch + rest, 1)))
                least, last = min(least, each.found.max_error), each.patch
        return tuple(made)

    def files(self, attempt: Attempt) -> Mapping[str, bytes]:
        """Return the files that differ from the exact model's."""
        return self._rounded(dict(enumerate(attempt.choice)))

    def patch(self, files: Mapping[str, bytes], advance: Callable[[int], object]) -> int:
        """Return the bytes of a patch to the model with ``files`` instead of the exact ones."""
        made = patch_bytes(self._old, self._with(files))
        advance(1)
        return made

    def _choice(self, bits: float) -> Choice:
        return choose(self._groups, self._harms, bits * self._numbers / 8)

    def _at(self, bits: float) -> Attempt:
        return self._attempt(self._choice(bits))

    def _bisected(self, low: float, high: float, times: int) -> float:
        """Return the logarithm of the fewest bits within the bounds."""
        for _ in range(times):
            middle = (low + high) / 2
            low, high = (middle, high) if self._at(2**middle).broken else (low, middle)
        return high

    def _coarsened(self, best: Attempt) -> Attempt:
        """Double the step of one group after the other while the bounds are kept."""
        for place in by_worth(self._groups, self._harms, best.choice):
            coarser = best.choice[place] + 1
            tried = self._attempt((*best.choice[:place], coarser, *best.choice[place + 1 :]))
            best = min(best, tried, key=lambda each: (bool(each.broken), each.patch))
        return best

    def _attempt(self, choice: Choice) -> Attempt:
        made = self._attempts.get(choice)
        if made is None:
            outputs = self._outputs(dict(enumerate(choice)))
            found = compare(self._exact.outputs, outputs, self._check.labels) if outputs else FAILED
            size = sum(each.sizes[step] for each, step in zip(self._groups, choice, strict=True))
            broken = self._bounds.broken(found)
            made = Attempt(choice=choice, patch=size, found=found, broken=broken)
            self._attempts[choice] = made
        return made

    def _measure(self, choice: Choice) -> bool:
        """Measure the harm of each group's step by itself; return whether any was new."""
        new = False
        for place, step in enumerate(choice):
            if step not in self._harms[place]:
                found = self._outputs({place: step}, rows=_ROWS)
                exact = self._exact.outputs[: len(found)]
                self._harms[place][step] = mean_square(exact, found) if found else math.inf
                new = True
        return new

    def _outputs(self, steps: Mapping[int, int], rows: int | None = None) -> tuple[Outputs, ...]:
        """Return what the model answers with groups rounded; nothing if it cannot run then."""
        try:
            return self._answers(self._rounded(steps), rows).outputs
        except InvalidValidationData:
            return ()

    def _answers(self, files: Mapping[str, bytes], rows: int | None = None) -> Answers:
        with laid_out(self._with(files)) as folder:
            made = answers(folder, self._check, rows=rows)
        self._advance(1)
        return made

    def _rounded(self, steps: Mapping[int, int]) -> dict[str, bytes]:
        """Return the files that change if groups, by their place, are rounded."""
        arrays = [(each, step) for at, step in steps.items() for each in self._groups[at].arrays]
        return rounded_files(self._new, arrays)

    def _with(self, files: Mapping[str, bytes]) -> Contents:
        return {**self._new, **{path: memoryview(each) for path, each in files.items()}}
