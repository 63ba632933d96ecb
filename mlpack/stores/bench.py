"""Rounded models, made one after the other and run beside the exact one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mlpack.delta.agreement import Agreement, Bounds, compare
from mlpack.delta.files import Contents, patch_bytes
from mlpack.delta.rounding import NothingToRound, round_files
from mlpack.model.check import Check
from mlpack.stores.checks import Answers, answers
from mlpack.stores.variants import laid_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A rounded model, and how it compares with the exact one."""

    keep_bits: int
    found: Agreement
    broken: str
    """The bound it breaks; empty where it keeps them."""

    patch: int | None
    """Bytes of its patch; ``None`` where it was of no interest."""

    def to_json(self) -> dict[str, object]:
        """One of ``attempts`` of the document of ``mlpack --json round``."""
        return {
            "keep_bits": self.keep_bits,
            "patch": self.patch,
            **self.found.to_json(),
            "broken": self.broken or None,
        }


class Bench:
    """Makes rounded models and compares them: ``exact_patch`` is bytes of the lossless patch."""

    def __init__(
        self,
        old: Contents,
        new: Contents,
        check: Check,
        bounds: Bounds,
        advance: Callable[[int], object],
    ) -> None:
        self._old = old
        self._new = new
        self._check = check
        self._bounds = bounds
        self._advance = advance
        self._exact = self._answers({})
        self.rows = self._exact.rows
        self.exact_patch = patch_bytes(old, new)

    def attempt(self, keep_bits: int, *, measured: bool) -> tuple[Attempt, Mapping[str, bytes]]:
        """The model that keeps so many bits, and the files of it that are not the exact one's."""
        files = round_files(self._old, self._new, keep_bits)
        if not files:
            raise NothingToRound("no array of floats changed that the anchor has as well")
        outputs = self._answers(files).outputs
        found = compare(self._exact.outputs, outputs, self._check.labels)
        broken = self._bounds.broken(found)
        patch = self._patch(files) if measured or not broken else None
        return Attempt(keep_bits=keep_bits, found=found, broken=broken, patch=patch), files

    def chosen(self, tried: Sequence[int]) -> tuple[list[Attempt], Mapping[str, bytes] | None]:
        """Attempts up to the first within the bounds, and its files; else all, and ``None``."""
        attempts = []
        for each in tried:
            made, files = self.attempt(each, measured=False)
            attempts.append(made)
            if made.patch is not None:
                if made.patch >= self.exact_patch:
                    raise NothingToRound(f"rounding to {each} bits saves nothing")
                return attempts, files
        return attempts, None

    def _answers(self, files: Mapping[str, bytes]) -> Answers:
        with laid_out(self._with(files)) as folder:
            return answers(folder, self._check, advance=self._advance)

    def _patch(self, files: Mapping[str, bytes]) -> int:
        return patch_bytes(self._old, self._with(files))

    def _with(self, files: Mapping[str, bytes]) -> Contents:
        return {**self._new, **{path: memoryview(each) for path, each in files.items()}}
