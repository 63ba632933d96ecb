"""``mlpack round``: a model version of which patches are small, with the proof of their quality."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, BinaryIO

from mlpack.api.register import Registered, keep
from mlpack.errors import MlpackError, UsageError
from mlpack.model.validation_data import InvalidValidationData, ValidationData
from mlpack.model.version import (
    Derivation,
    ModelFile,
    ModelVersion,
    RoundingPoint,
    SourceVersion,
    parse_name,
)
from mlpack.oci.descriptor import Digest
from mlpack.project.directory import ModelStore
from mlpack.project.rounding_search import MOST_BITS, Attempt, RoundingSearch, contents
from mlpack.project.validation_data import onnxruntime_version, read_check
from mlpack.tensor_patch.output_comparison import Bounds
from mlpack.tensor_patch.rounding import NothingToRound

if TYPE_CHECKING:
    from decimal import Decimal

    from mlpack.api.requests import Round
    from mlpack.api.session import Session, Step

LISTED = (0.25, 0.5, 1, 2, 4, 8)
"""Bits for each number that a dry run shows, by default."""


class TooRough(MlpackError):
    """A model that no rounding keeps within the stated bounds."""

    exit_status = 3
    hint = "see the patches of other bounds with --dry-run, allow more, or ship the exact version"


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

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json round``."""
        return {
            "exact": str(self.exact),
            "anchor": str(self.anchor),
            "check": {"digest": f"sha256:{self.check}", "rows": self.rows},
            "exact_patch_bytes": self.exact_patch,
            "attempts": self.attempts,
            "registered": self.registered,
        }


@dataclass(frozen=True, slots=True)
class _Pair:
    """The exact version and the anchor, and what they are compared on."""

    exact: ModelVersion
    anchor: ModelVersion
    data: ValidationData
    bounds: Bounds


def round_onto(session: Session, request: Round) -> Rounding:
    """Round what the exact version changed since ``onto``, and register the result.

    The smallest patch within the bounds is searched for, or has about ``keep_bits``. Both models
    answer the rows in ``check`` (.npz); the very files that were scored are registered, as
    ``version`` or the next number, with the record of it. ``dry_run`` compares some sizes and
    registers nothing.
    Raises :class:`TooRough` if the bounds cannot be kept,
    :class:`~mlpack.tensor_patch.rounding.NothingToRound`, and what reading either raises.
    """
    bounds, check = _bounds(request), session.file(request.check)
    layout = session.project.layout
    store = ModelStore(layout)
    exact, anchor = (store.get(*parse_name(each)) for each in (request.exact, request.onto))
    _require_pair(exact, anchor)
    runs_on = onnxruntime_version()
    pair = _Pair(exact, anchor, read_check(check), bounds)
    if bounds.min_accuracy is not None and pair.data.labels is None:
        raise InvalidValidationData(f"{check} has no labels, so accuracy cannot be measured")
    with contents(layout, exact) as new, contents(layout, anchor) as old:
        search = RoundingSearch(old, new, pair.data, bounds)
        with session.step("influence measured", search.measurements, "runs") as step:
            search.measure(step)
        with session.step("roundings compared", unit="runs") as step:
            chosen = _chosen(search, request, step)
        if chosen.broken and not request.dry_run:
            bits = MOST_BITS if request.keep_bits is None else request.keep_bits
            why = f"with {bits:g} bits for each number, {chosen.broken}"
            raise TooRough(f"{exact} cannot be rounded: {why}")
        files = search.files(chosen)
        with session.step("patches measured", 2, "patches") as step:
            sizes = [search.patch(each, step) for each in ({}, files)]
        found = Rounding(
            exact=exact,
            anchor=anchor,
            check=pair.data.sha256,
            rows=search.rows,
            exact_patch=sizes[0],
            attempts=search.curve(chosen, sizes[1]),
            registered=None,
        )
        if request.dry_run:
            return found
        record = _record(pair, found, chosen, runs_on)
        if record.rounded_patch >= record.exact_patch:
            raise NothingToRound("rounding saves nothing within the bounds")
        candidate = _candidate(session, exact, files, record)
        return replace(found, registered=_keep(session, candidate, files, request.version))


def _chosen(search: RoundingSearch, request: Round, step: Step) -> Attempt:
    """The rounding to register; of a dry run, the finest that it shows."""
    if request.keep_bits is None and not request.dry_run:
        return search.smallest(step)
    listed = LISTED if request.keep_bits is None else (request.keep_bits,)
    return [search.with_bits(each, step) for each in listed][-1]


def _bounds(request: Round) -> Bounds:
    """The bounds of the request; raise ``UsageError`` if they bound nothing, or nonsense."""
    bounds = Bounds(
        max_error=request.max_error,
        min_agreement=_share(request.min_agreement),
        min_accuracy=_share(request.min_accuracy),
    )
    if bounds == Bounds() and not request.dry_run:
        raise UsageError(
            "no bound says how far the rounded model may be from the exact one",
            hint="give --max-error 0.01, --min-agreement 99.9% or --min-accuracy 95%, "
            "or look first with --dry-run",
        )
    if bounds.max_error is not None and not (isfinite(bounds.max_error) and bounds.max_error >= 0):
        raise UsageError(
            f"--max-error must be a number of 0 or more, not {bounds.max_error}", hint="write 0.01"
        )
    kept = request.keep_bits
    if kept is not None and not 0 <= kept <= MOST_BITS:
        raise UsageError(f"{kept} bits cannot be kept: 0 to {MOST_BITS} can")
    return bounds


def _share(share: Decimal | float | None) -> float | None:
    return None if share is None else float(share)


def _require_pair(exact: ModelVersion, anchor: ModelVersion) -> None:
    if exact.digest == anchor.digest:
        raise NothingToRound(f"{exact} and {anchor} have the same content")
    if exact.derived:
        raise UsageError(
            f"{exact} was rounded already, from {exact.derived.exact.version}",
            hint=f"round that one: mlpack round {exact.derived.exact.version}",
        )


def _record(pair: _Pair, made: Rounding, chosen: Attempt, runs_on: str) -> Derivation:
    found = chosen.found
    return Derivation(
        exact=SourceVersion(str(pair.exact), pair.exact.digest),
        anchor=SourceVersion(str(pair.anchor), pair.anchor.digest),
        check=pair.data.sha256,
        rows=made.rows,
        max_error=found.max_error,
        max_error_allowed=pair.bounds.max_error,
        agreement=found.agreement,
        agreement_wanted=pair.bounds.min_agreement,
        exact_accuracy=found.exact_accuracy,
        rounded_accuracy=found.rounded_accuracy,
        onnxruntime=runs_on,
        exact_patch=made.exact_patch,
        rounded_patch=next(e.patch for e in made.attempts if e.choice == chosen.choice),
        accuracy_wanted=pair.bounds.min_accuracy,
        curve=tuple(
            RoundingPoint(
                patch=each.patch,
                max_error=each.found.max_error,
                agreement=each.found.agreement,
                accuracy=each.found.rounded_accuracy,
            )
            for each in made.attempts
        ),
    )


def _candidate(
    session: Session, exact: ModelVersion, changed: Mapping[str, bytes], record: Derivation
) -> ModelVersion:
    """The version of the files that were scored; tags and metrics stay the exact version's own."""
    files = tuple(
        ModelFile(each.path, len(changed[each.path]), Digest.of(changed[each.path]))
        if each.path in changed
        else each
        for each in exact.files
    )
    created = session.clock.now().isoformat(timespec="seconds")
    return replace(exact, files=files, tags={}, metrics={}, created=created, derived=record)


def _keep(
    session: Session, candidate: ModelVersion, changed: Mapping[str, bytes], version: str
) -> Registered:
    store = ModelStore(session.project.layout)

    def open_file(file: ModelFile) -> AbstractContextManager[BinaryIO]:
        if file.path in changed and file not in candidate.scripts:
            return nullcontext(io.BytesIO(changed[file.path]))
        return store.open_file(file)

    made, before = keep(session.project, candidate, version, lambda _: open_file)
    notes = (f"the same content is {made} already",) if before else ()
    return Registered(version=made, already=before is not None, notes=notes)
