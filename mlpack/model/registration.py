"""Which version a model becomes: decided from its content and what is registered already."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation

from mlpack.errors import MlpackError, UsageError
from mlpack.model.order import moment, moment_after, next_version
from mlpack.model.version import ModelVersion, check_version

MAX_TEXT = 256
"""Characters of a tag's or metric's name and value; they are for people, and lists show them."""


class VersionTaken(MlpackError):
    """A version that holds other content, or content that has another version."""

    hint = "leave --version out: mlpack takes the next number"


@dataclass(frozen=True, kw_only=True)
class About:
    """A user's description of a model: all optional, and not part of its digest."""

    name: str = ""
    """Empty takes ``[model] name`` of mlpack.toml."""

    version: str = ""
    """Empty takes the next whole number."""

    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    source_commit: str = ""
    """Empty asks git."""

    def __post_init__(self) -> None:
        if self.version:
            check_version(self.version)
        for key, value in self.tags.items():
            _check_text("the name of a tag", key, least=1)
            _check_text(f"tag {key!r}", value)
        for key, value in self.metrics.items():
            _check_text("the name of a metric", key, least=1)
            _check_text(f"metric {key!r}", value)
            if not _is_number(value):
                raise UsageError(
                    f"metric {key!r} is {value!r}, not a number", hint="write accuracy=0.98"
                )
        _check_text("the source commit", self.source_commit)


def settle(
    known: Sequence[ModelVersion],
    candidate: ModelVersion,
    requested: str,
    reserved: Collection[str] = (),
) -> tuple[ModelVersion, ModelVersion | None]:
    """Return the version ``candidate`` becomes, and the one that had its content before.

    ``known`` are all versions of the model, ``requested`` the version of the user or
    empty, ``reserved`` versions that are something else. The same content keeps its
    version and gains tags and metrics; so does a single file under another name, unless a
    version is requested for. New content is newer than all that is known, whatever the clock shows.
    Raises :class:`VersionTaken`.
    """
    same = next((each for each in known if each.digest == candidate.digest), None)
    if same is None and not requested:
        same = next((each for each in known if _renamed(each, candidate)), None)
    if same:
        return _merge(same, candidate, requested), same
    taken = {each.version: each for each in known}
    if requested in taken:
        raise VersionTaken(
            f"{taken[requested]} holds other content ({taken[requested].digest.short}, this is "
            f"{candidate.digest.short})"
        )
    if requested in reserved:
        raise VersionTaken(
            f"{candidate.name}:{requested} is released already, but is not a model of this name"
        )
    version = requested or next_version({*taken, *reserved})
    made = replace(candidate, version=version)
    if made.created:
        times = (each.created for each in known)
        made = replace(made, created=moment_after(moment(made.created), times))
    return made, None


def _renamed(one: ModelVersion, other: ModelVersion) -> bool:
    """Whether both are the same single file, called differently."""
    return (
        len(one.files) == len(other.files) == 1
        and one.files[0].digest == other.files[0].digest
        and one.scripts == other.scripts
        and one.folder == other.folder
    )


def _merge(same: ModelVersion, candidate: ModelVersion, requested: str) -> ModelVersion:
    if requested and requested != same.version:
        raise VersionTaken(
            f"this content is {same} already, it cannot be {same.name}:{requested} as well",
            hint=f"use {same}: one content has one version",
        )
    return replace(
        same,
        tags={**same.tags, **candidate.tags},
        metrics={**same.metrics, **candidate.metrics},
        # Where the same content comes again, the commit it first came from made it.
        source_commit=same.source_commit or candidate.source_commit,
        rows_independent=same.rows_independent or candidate.rows_independent,
        # The latest proof: what it was checked on may be more by now.
        derived=candidate.derived or same.derived,
        compared=candidate.compared or same.compared,
    )


def added(before: ModelVersion, after: ModelVersion) -> Iterator[str]:
    """What ``after`` says that ``before`` did not, as ``name=value``; and the commit."""
    for old, new in ((before.tags, after.tags), (before.metrics, after.metrics)):
        yield from (f"{key}={value}" for key, value in new.items() if old.get(key) != value)
    if after.source_commit != before.source_commit:
        yield f"commit {after.source_commit}"


def _check_text(what: str, text: str, *, least: int = 0) -> None:
    if not least <= len(text) <= MAX_TEXT:
        raise UsageError(
            f"{what} has {len(text)} characters", hint=f"write at most {MAX_TEXT}, and some"
        )
    if not text.isprintable():
        raise UsageError(
            f"{what} is {text!r}: a line break or control character is in it",
            hint="write it on one line",
        )


def _is_number(text: str) -> bool:
    try:
        return Decimal(text).is_finite()
    except InvalidOperation:
        return False
