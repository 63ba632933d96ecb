"""``mlpack round``: a model version of which patches are small, with the proof that it will do."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import BinaryIO

from mlpack.api.register import Elsewhere, Registered, keep
from mlpack.delta.agreement import Bounds
from mlpack.delta.rounding import MOST_BITS, NothingToRound
from mlpack.errors import MlpackError, UsageError
from mlpack.model.check import Check
from mlpack.model.derivation import Derivation, Origin
from mlpack.model.version import ModelFile, ModelVersion, parse_name
from mlpack.oci.digest import Digest
from mlpack.stores.bench import Attempt, Bench
from mlpack.stores.checks import onnxruntime_version, read_check
from mlpack.stores.models import ModelStore
from mlpack.stores.project import Project
from mlpack.stores.variants import contents

LISTED = range(9)
"""Kept bits that a dry run shows, where none are asked for."""


class TooRough(MlpackError):
    """A model that no rounding keeps within the stated bounds."""

    exit_status = 3
    hint = "see what each number of bits does with --dry-run, allow more, or ship the exact version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """What ``mlpack round`` found, and what it registered unless it only looked."""

    exact: ModelVersion
    anchor: ModelVersion
    check: str
    """sha256 of the file of check data."""

    rows: int
    exact_patch: int
    """Bytes of the lossless patch."""

    attempts: tuple[Attempt, ...]
    registered: Registered | None

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json round``."""
        return {
            "exact": str(self.exact),
            "anchor": str(self.anchor),
            "check": {"sha256": self.check, "rows": self.rows},
            "exact_patch": self.exact_patch,
            "attempts": [each.to_json() for each in self.attempts],
            "registered": self.registered.to_json() if self.registered else None,
        }


def round_onto(
    project: Project,
    exact: str,
    anchor: str,
    check: Path,
    bounds: Bounds,
    *,
    keep_bits: int | None = None,
    version: str = "",
    dry_run: bool = False,
    advance: Callable[[int], object] = lambda _: None,
    now: datetime,
) -> Rounding:
    """Round what ``exact`` (``NAME[:VERSION]``) changed since ``anchor``, and register it.

    The fewest bits within ``bounds`` are kept, or ``keep_bits`` exactly. Both models answer
    the rows in ``check`` (.npz); the very files that were scored are registered, as ``version``
    or the next number, with the record of it. ``dry_run`` compares all and registers nothing.
    ``advance`` is told how many rows are scored. Raises :class:`TooRough` where the bounds
    cannot be kept, :class:`NothingToRound`, and what reading either raises.
    """
    _require(bounds, keep_bits, dry_run=dry_run)
    store = ModelStore(project.layout)
    pair = store.get(*parse_name(exact)), store.get(*parse_name(anchor))
    _require_pair(*pair)
    runs_on = onnxruntime_version()
    data = read_check(check)
    with contents(project.layout, pair[0]) as new, contents(project.layout, pair[1]) as old:
        bench = Bench(old, new, data, bounds, advance)
        tried = [keep_bits] if keep_bits is not None else list(LISTED)
        if dry_run:
            attempts = [bench.attempt(each, measured=True)[0] for each in tried]
            return _rounding(pair, data, bench, attempts, None)
        attempts, files = bench.chosen(tried if keep_bits is not None else range(MOST_BITS + 1))
        chosen = attempts[-1]
        if files is None:
            why = f"with {chosen.keep_bits} bits of each difference kept, {chosen.broken}"
            raise TooRough(f"{pair[0]} cannot be rounded: {why}")
        record = _record(pair, data, bench, chosen, bounds, runs_on)
        kept = _keep(project, store, pair[0], files, record, version, now)
        return _rounding(pair, data, bench, attempts, kept)


def _require(bounds: Bounds, keep_bits: int | None, *, dry_run: bool) -> None:
    if bounds == Bounds() and not dry_run:
        raise UsageError(
            "it is not said how far the rounded model may be from the exact one",
            hint="say --max-error 0.01, --min-agreement 99.9%, or look first with --dry-run",
        )
    if bounds.max_error is not None and not (isfinite(bounds.max_error) and bounds.max_error >= 0):
        raise UsageError(f"--max-error {bounds.max_error} is no bound", hint="write 0.01")
    if keep_bits is not None and not 0 <= keep_bits <= MOST_BITS:
        raise UsageError(f"{keep_bits} bits cannot be kept: 0 to {MOST_BITS} can")


def _require_pair(exact: ModelVersion, anchor: ModelVersion) -> None:
    if exact.digest == anchor.digest:
        raise NothingToRound(f"{exact} and {anchor} have the same content")
    if exact.derived:
        raise UsageError(
            f"{exact} was rounded already, from {exact.derived.exact.version}",
            hint=f"round that one: mlpack round {exact.derived.exact.version}",
        )


def _rounding(
    pair: tuple[ModelVersion, ModelVersion],
    check: Check,
    bench: Bench,
    attempts: Sequence[Attempt],
    registered: Registered | None,
) -> Rounding:
    return Rounding(
        exact=pair[0],
        anchor=pair[1],
        check=check.sha256,
        rows=bench.rows,
        exact_patch=bench.exact_patch,
        attempts=tuple(attempts),
        registered=registered,
    )


def _record(
    pair: tuple[ModelVersion, ModelVersion],
    check: Check,
    bench: Bench,
    chosen: Attempt,
    bounds: Bounds,
    runs_on: str,
) -> Derivation:
    found = chosen.found
    return Derivation(
        exact=Origin(str(pair[0]), pair[0].digest),
        anchor=Origin(str(pair[1]), pair[1].digest),
        keep_bits=chosen.keep_bits,
        check=check.sha256,
        rows=bench.rows,
        max_error=found.max_error,
        max_error_allowed=bounds.max_error,
        agreement=found.agreement,
        agreement_wanted=bounds.min_agreement,
        exact_accuracy=found.exact_accuracy,
        rounded_accuracy=found.rounded_accuracy,
        onnxruntime=runs_on,
        exact_patch=bench.exact_patch,
        rounded_patch=chosen.patch or 0,
    )


def _keep(
    project: Project,
    store: ModelStore,
    exact: ModelVersion,
    changed: Mapping[str, bytes],
    record: Derivation,
    version: str,
    now: datetime,
) -> Registered:
    """Register the files that were scored; tags and metrics are the exact version's, not its."""
    files = tuple(
        ModelFile(each.path, len(changed[each.path]), Digest.of(changed[each.path]))
        if each.path in changed
        else each
        for each in exact.files
    )
    candidate = replace(
        exact,
        files=files,
        tags={},
        metrics={},
        created=now.isoformat(timespec="seconds"),
        derived=record,
    )

    def open_file(file: ModelFile) -> AbstractContextManager[BinaryIO]:
        if file.path in changed and file != exact.scoring:
            return nullcontext(io.BytesIO(changed[file.path]))
        return store.open_file(file)

    made, before = keep(project, candidate, version, lambda _: open_file, elsewhere=Elsewhere())
    notes = (f"the same content is {made} already",) if before else ()
    return Registered(version=made, already=before is not None, notes=notes)
