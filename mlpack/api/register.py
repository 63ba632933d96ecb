"""``mlpack register``: keep a model as a version in the project's store."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from mlpack.model.lock import InvalidLock
from mlpack.model.opsets import uncertain, unsupported
from mlpack.model.recipe import check_name
from mlpack.model.registration import About, VersionTaken, added, settle
from mlpack.model.version import (
    SCORING,
    ModelFile,
    ModelVersion,
    Signature,
    content_digest,
)
from mlpack.stores.base import Corrupt
from mlpack.stores.commit import source_commit
from mlpack.stores.damaged import Versions, read_versions
from mlpack.stores.importers.reading import read_model
from mlpack.stores.importers.scoring import read_scoring
from mlpack.stores.importers.source import (
    ModelSource,
    UnreadableModel,
    measure,
    measure_file,
    opened,
)
from mlpack.stores.models import ModelStore, OpenModelFile
from mlpack.stores.project import Project
from mlpack.stores.releases import release_tag, releases


@dataclass(frozen=True, kw_only=True)
class Registered:
    """What ``mlpack register`` did."""

    version: ModelVersion
    already: bool
    """Whether the same content was registered before."""

    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json register``."""
        return {
            **self.version.to_json(),
            "digest": str(self.version.digest),
            "size": self.version.size,
            "already": self.already,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """What another store of models has of this one."""

    versions: Mapping[str, str] = field(default_factory=dict)
    """Digest of the files by version; empty where it is not known."""

    version: str = ""
    """The version the files were fetched as."""

    files: str = ""
    """What their digest must be; empty where that is not known."""

    def check(self, files: tuple[ModelFile, ...]) -> None:
        """Raise :class:`~mlpack.stores.base.Corrupt` where the files are others."""
        found = str(content_digest(files, None))
        if self.files and found != self.files:
            raise Corrupt(
                f"the files are not those that were registered: {found}, not {self.files}",
                hint="they changed in the workspace's storage: look at who wrote there",
            )

    def preferred(self, files: tuple[ModelFile, ...]) -> str:
        """The version these files have there; empty for none."""
        digest = str(content_digest(files, None))
        same = (version for version, held in self.versions.items() if held == digest)
        return self.version or next(same, "")


def register(
    project: Project,
    path: Path,
    about: About,
    *,
    elsewhere: Elsewhere | None = None,
    scoring: Path | None = None,
    trust_pickle: bool = False,
    features: int | None = None,
    now: datetime,
) -> Registered:
    """Read the model at ``path`` and keep it as a version.

    ``scoring`` is the scoring script; without one, that of mlpack.toml where the
    file exists. ``features`` is for estimators that do not say how many columns
    they take. The same content gives the same version; new content gets one that is
    ``elsewhere`` for it, or free there as well. Raises
    :class:`~mlpack.model.registration.VersionTaken`, :class:`~mlpack.errors.UsageError`
    or :class:`~mlpack.stores.importers.source.UnreadableModel`; nothing is named then.
    """
    name = check_name(about.name or project.recipe.model)
    if project.root.resolve().is_relative_to(path.resolve()):
        raise UnreadableModel(
            f"{path} holds the whole project",
            hint="put the model's files into a directory of their own",
        )
    source = read_model(path, trust_pickle=trust_pickle, features=features)
    script, script_notes = _script(project, scoring)
    candidate = replace(
        _candidate(name, source, script, about),
        source_commit=about.source_commit or source_commit(project.root),
        created=now.isoformat(timespec="seconds"),
    )
    elsewhere = elsewhere or Elsewhere()
    elsewhere.check(candidate.files)
    version, before = keep(
        project,
        candidate,
        about.version,
        lambda version: _opener(source, version, script),
        elsewhere=elsewhere,
    )
    notes = [*source.notes, *script_notes, *_again(before, version, candidate)]
    return Registered(
        version=version,
        already=before is not None,
        notes=(*notes, *_runtime_notes(project, version)),
    )


def keep(
    project: Project,
    candidate: ModelVersion,
    asked: str,
    opener: Callable[[ModelVersion], OpenModelFile],
    *,
    elsewhere: Elsewhere,
) -> tuple[ModelVersion, ModelVersion | None]:
    """Keep ``candidate`` as version ``asked`` (empty: the next), or as what holds its content.

    ``opener`` gives what opens the files of the version it becomes. Returns that, and what it
    was before where the content was there. Raises
    :class:`~mlpack.model.registration.VersionTaken`; nothing is named then.
    """
    name = candidate.name
    with project.exclusive():
        store = ModelStore(project.layout)
        found = read_versions(project.layout, name)
        _check_damaged(name, asked, found)
        known = found.readable
        # A release without a model, such as a graft, keeps its version for itself.
        reserved = releases(project.layout, name).keys() - {each.version for each in known}
        reserved |= found.damaged.keys()
        asked = asked or _there(elsewhere, known, candidate, reserved)
        beyond = elsewhere.versions.keys() - {asked}
        version, before = settle(known, candidate, asked, reserved | beyond)
        if before is None:
            _check_release_name(store, version)
        store.add(version, opener(version))
    return version, before


def _there(
    elsewhere: Elsewhere,
    known: Sequence[ModelVersion],
    candidate: ModelVersion,
    reserved: Set[str],
) -> str:
    """The version the content has elsewhere, where it is free here and the content new."""
    wanted = elsewhere.preferred(candidate.files)
    new = all(each.digest != candidate.digest for each in known)
    free = wanted not in {each.version for each in known} | reserved
    return wanted if new and free else ""


def _script(project: Project, given: Path | None) -> tuple[bytes | None, tuple[str, ...]]:
    """The script's bytes, and notes; a given one must exist, one of mlpack.toml need not."""
    if given is None:
        named = project.recipe.scoring
        if not named:
            return None, ()
        given = project.path(named)
        if not given.exists():
            return None, (f"mlpack.toml names {named}, which is not there: registered without it",)
    return read_scoring(given)


def _candidate(name: str, source: ModelSource, script: bytes | None, about: About) -> ModelVersion:
    scoring = None
    if script is not None:
        scoring = replace(measure_file(io.BytesIO(script)), path=SCORING)
    graph = source.graph
    return ModelVersion(
        name=name,
        version="0",
        framework=source.framework,
        files=measure(source),
        scoring=scoring,
        signature=graph.signature if graph else Signature(),
        ir_version=graph.ir_version if graph else 0,
        opsets=graph.opsets if graph else {},
        domains=graph.domains if graph else (),
        tags=about.tags,
        metrics=about.metrics,
    )


def _check_damaged(name: str, asked: str, found: Versions) -> None:
    """Refuse to register over what cannot be read: it may be what was released."""
    if asked in found.damaged:
        raise VersionTaken(
            f"{name}:{asked} is there and cannot be read: {found.damaged[asked]}",
            hint=f"drop it first: mlpack models --drop {name}:{asked}",
        )


def _check_release_name(store: ModelStore, version: ModelVersion) -> None:
    """Refuse a version whose release would be called as another model's (a-b:1 and a:b-1)."""
    tag = release_tag(version.name, version.version)
    for name in store.names():
        other = tag.removeprefix(f"{name}-")
        if name != version.name and other != tag and store.holds(name, other):
            raise VersionTaken(
                f"{version} and {name}:{other} would both be released as {tag}",
                hint="give one of them another name with --name, or version with --version",
            )


def _opener(source: ModelSource, version: ModelVersion, script: bytes | None) -> OpenModelFile:
    """Opens the files of ``version`` where the user has them."""

    def open_file(file: ModelFile) -> AbstractContextManager[BinaryIO]:
        # A directory may hold a score.py of its own: the digest tells them apart.
        if script is not None and file == version.scoring:
            return nullcontext(io.BytesIO(script))
        # A single file registered again may have another name by now.
        path = file.path if file.path in source.content else next(iter(source.content))
        return opened(source, path)

    return open_file


def _again(
    before: ModelVersion | None, after: ModelVersion, candidate: ModelVersion
) -> Iterator[str]:
    if before is not None:
        renamed = after.digest != candidate.digest
        name = f", where the file is called {after.files[0].path}" if renamed else ""
        yield f"the same content is {before} already{name}"
        if more := list(added(before, after)):
            yield f"added to {before}: {', '.join(more)}"


def _runtime_notes(project: Project, version: ModelVersion) -> Iterator[str]:
    """Whether the base can run it, said now: a build refuses what it cannot run."""
    if not project.has_lock:
        return
    try:
        platforms = project.lock().base.platforms
    except InvalidLock as error:
        # Said, not raised: the model is registered by now, and has nothing to do with the lock.
        yield f"whether the base can run it is not known: {error}"
        return
    for runtime in sorted({each.onnxruntime for each in platforms}):
        if reason := unsupported(version, runtime):
            yield f"the base cannot run it, mlpack build will refuse it: {reason}"
        elif doubt := uncertain(version, runtime):
            yield doubt
