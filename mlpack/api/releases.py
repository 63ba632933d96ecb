"""``mlpack releases``: the releases in the project's store, and dropping one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpack.errors import MlpackError, UsageError
from mlpack.model.lock import InvalidLock
from mlpack.model.trial_start import Outcome, summary, worst
from mlpack.model.version import AT, LATEST, check_name, parse_name
from mlpack.oci.descriptor import Digest, InvalidContent
from mlpack.project.aliases import Alias, aliases, check_unaliased
from mlpack.project.directory import ModelStore, ProjectDirectory
from mlpack.project.ledger import Ledger, RolloutRecord
from mlpack.project.references import find_image
from mlpack.project.releases import (
    NamedRelease,
    named_releases,
    record_base,
    record_strategy,
)
from mlpack.rollout.record import MeasuredRollout
from mlpack.stores.layout import REF_NAME, LayoutStore
from mlpack.stores.records import (
    MODEL,
    PACKED,
    RECORDS,
    VERSION,
    read_record,
    read_starts,
    records,
)
from mlpack.stores.store import Corrupt, NotFound, images

if TYPE_CHECKING:
    from mlpack.api.session import Session


class ReleaseInUse(MlpackError):
    """A release that devices or other releases need, and so is not dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRollout:
    """A device group that a release was rolled out to, as far as the ledger knows."""

    group: str
    state: str
    """``rolling`` or ``complete``."""

    def __str__(self) -> str:
        return self.group if self.state == "complete" else f"{self.group} ({self.state})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRelease:
    """A release, and where it is."""

    name: str
    version: str
    digest: Digest
    aliases: tuple[str, ...]
    strategy: str
    """``layer``, ``packed``, ``patch``, ``graft`` or ``new``; empty if it has no record."""

    bytes: int
    """Of its top layer."""

    base: Digest | None
    """The base that it is built on, or the image that a graft is; ``None`` without a record."""

    started: Outcome
    starts: str
    """The same for people: on how many of its platforms, if not on all."""

    created: str
    """When it was built (ISO 8601); empty if that is not known."""

    deployed: tuple[GroupRollout, ...]

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"

    def json_members(self) -> Mapping[str, object]:
        """One element of ``releases``."""
        return {
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "aliases": self.aliases,
            "strategy": self.strategy or None,
            "bytes": self.bytes,
            "base": self.base,
            "started": self.started,
            "created": self.created or None,
            "deployed": [{"group": each.group, "state": each.state} for each in self.deployed],
        }


@dataclass(frozen=True)
class ReleaseList:
    """Releases, by model and then the oldest first."""

    releases: tuple[ListedRelease, ...]
    damaged: Mapping[str, str]
    """``NAME:VERSION`` → what is wrong with it."""

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json releases``."""
        return {"releases": self.releases, "damaged": self.damaged}


@dataclass(frozen=True)
class DroppedRelease:
    """A release whose name was removed from the store."""

    release: str
    """``NAME:VERSION``."""

    digest: Digest

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json releases --drop``."""
        return {"dropped": self.release, "digest": self.digest}


def list_releases(session: Session, name: str = "") -> ReleaseList:
    """List the releases of all models, or of model ``name``; raise what finding none raises."""
    project = session.project
    found = named_releases(project.layout, check_name(name) if name else "")
    if name and not found:
        find_image(project, name)  # raises, naming what there is
    named = aliases(project.layout, name)
    deployed = deployed_releases(Ledger(project.ledger).rollouts())
    listed, damaged = [], {}
    for each in found:
        try:
            listed.append(_listed(project, each, named, deployed.get(each.target.digest, ())))
        except (Corrupt, InvalidContent, NotFound) as error:
            damaged[f"{each.name}:{each.version}"] = str(error)
    return ReleaseList(tuple(listed), damaged)


def _listed(
    project: ProjectDirectory,
    release: NamedRelease,
    named: Iterable[Alias],
    deployed: tuple[GroupRollout, ...],
) -> ListedRelease:
    layout, target = project.layout, release.target
    made, record = images(layout, target), read_record(layout, target)
    starts = read_starts(layout, target)
    tried = [starts[each.digest] for each in made if each.digest in starts]
    packed = "packed" if PACKED in made[0].labels else ""
    return ListedRelease(
        name=release.name,
        version=release.version,
        digest=target.digest,
        aliases=tuple(
            each.alias
            for each in named
            if (each.name, each.version) == (release.name, release.version)
        ),
        strategy=record_strategy(record) or packed,
        bytes=made[0].layers[-1].size,
        base=record_base(record),
        started=worst(tried),
        starts=summary(tried, len(made)),
        created=release.created,
        deployed=deployed,
    )


def deployed_releases(
    rollouts: Iterable[RolloutRecord],
) -> Mapping[Digest, tuple[GroupRollout, ...]]:
    """Return by digest where releases are, by the rollouts of the ledger, the first first.

    On each group that is the last one that was not undone, and while it is not complete, the one
    before it, too.
    """
    groups: dict[str, list[tuple[Digest, str]]] = {}
    for each in rollouts:
        state = MeasuredRollout.from_json(each.measured).state or "rolling"
        held = groups.setdefault(each.group, [])
        held[:] = [kept for kept in held if kept[0] != each.release_digest]
        if state == "complete":
            held[:] = [(each.release_digest, state)]
        elif state == "rolling":
            held[:] = [*held[-1:], (each.release_digest, state)]
    found: dict[Digest, list[GroupRollout]] = {}
    for group, releases in groups.items():
        for digest, state in releases:
            found.setdefault(digest, []).append(GroupRollout(group=group, state=state))
    return {digest: tuple(each) for digest, each in found.items()}


def drop_release(session: Session, text: str, *, force: bool = False) -> DroppedRelease:
    """Remove the name of the release ``text`` (``NAME:VERSION``) from the store.

    Its blobs stay until ``mlpack gc``, the ledger keeps its history, and registries and devices
    what they have. Raises :class:`ReleaseInUse` unless it is ``force``\\ d: if a device group has
    it, it is the anchor of its model or of a release that stays, or an alias names it.
    """
    name, version = parse_name(text)
    if version == LATEST or version.startswith(AT):
        raise UsageError(f"{text!r} names no version", hint=f"write it as {name}:VERSION")
    project = session.project
    with project.exclusive():
        layout = project.layout
        kept = {each.version: each for each in named_releases(layout, name)}
        if version not in kept:
            find_image(project, text)  # raises, naming what there is
        gone = kept.pop(version)
        if not force:
            _require_unused(project, gone)
        layout.untag(*_names(layout, gone))
    return DroppedRelease(text, gone.target.digest)


def _names(layout: LayoutStore, gone: NamedRelease) -> frozenset[str]:
    """Return the names of a release, and those of its records unless its image has another."""
    release = (gone.name, gone.version)
    own, others = set(), set()
    for tag, each in layout.tags().items():
        if (each.annotations.get(MODEL), each.annotations.get(VERSION)) == release:
            own.add(tag)
        elif each.digest == gone.target.digest:
            others.add(tag)
    if not others:
        own |= {each.annotations.get(REF_NAME, "") for each in records(layout, gone.target)}
    return frozenset({*own, f"{RECORDS}{gone.name}/{gone.version}"})


def _require_unused(project: ProjectDirectory, gone: NamedRelease) -> None:
    layout, digest, what = project.layout, gone.target.digest, f"{gone.name}:{gone.version}"
    reasons = [
        f"it is deployed to {each}"
        for each in deployed_releases(Ledger(project.ledger).rollouts()).get(digest, ())
    ]
    if digest in _anchors(project):
        reasons.append("mlpack.lock names it as an anchor, which patches are made against")
    on_it = [
        f"{each.name}:{each.version}"
        for each in named_releases(layout)
        if read_record(layout, each.target).get("anchor") == str(digest)
    ]
    if on_it:
        reasons.append(f"it is the anchor of {', '.join(on_it)}")
    if reasons:
        raise ReleaseInUse(
            f"{what} is in use: {'; '.join(reasons)}",
            hint=f"drop it all the same with: mlpack releases --drop {what} --force",
        )
    if not ModelStore(layout).holds(gone.name, gone.version):
        check_unaliased(layout, gone.name, gone.version)


def _anchors(project: ProjectDirectory) -> frozenset[Digest]:
    """Return the anchors of mlpack.lock; none if there is no lock that can be read."""
    if not project.has_lock:
        return frozenset()
    try:
        return frozenset(project.lock().anchors.values())
    except InvalidLock:
        return frozenset()
