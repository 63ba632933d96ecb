"""``mlpack register``: keep a model as a version in the project's store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mlpack.api.models import version_members
from mlpack.api.register_code import find_code, require_scorer
from mlpack.base.requirements import newest_opset, uncertain, unsupported
from mlpack.errors import MlpackError, UsageError
from mlpack.model.comparison import Bounds
from mlpack.model.lock import InvalidLock
from mlpack.model.registration import About, VersionTaken, added, settle
from mlpack.model.version import (
    ModelFile,
    ModelSignature,
    ModelVersion,
    check_name,
    content_digest,
)
from mlpack.oci.descriptor import InvalidContent, parse
from mlpack.project.directory import (
    ModelStore,
    OpenModelFile,
    ProjectDirectory,
    Versions,
    read_versions,
)
from mlpack.project.importers.code import Code
from mlpack.project.importers.estimator import NEWEST_OPSET, EstimatorOptions
from mlpack.project.importers.onnx_validity import DECIDES
from mlpack.project.importers.reading import read_model
from mlpack.project.importers.source import (
    ModelSource,
    UnreadableModel,
    check_file_name,
    measure,
    opened,
    source_commit,
)
from mlpack.project.references import releases
from mlpack.stores.files import open_file as open_path
from mlpack.stores.files import read_file
from mlpack.stores.records import release_tag
from mlpack.stores.store import Corrupt

if TYPE_CHECKING:
    from mlpack.api.register_request import Register
    from mlpack.api.session import Session

MAX_METRICS_BYTES = 1024 * 1024
_WHY = "where Azure ML has them"
_METRICS_HINT = 'a file of metrics is a JSON object of numbers: {"accuracy": 0.98}'


@dataclass(frozen=True, kw_only=True)
class Registered:
    """What ``mlpack register`` did."""

    version: ModelVersion
    already: bool
    """Whether the same content was registered before."""

    notes: tuple[str, ...] = ()
    uri: str = ""
    """The version's address in Azure ML, if it is there as well."""

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json register``."""
        return {
            **version_members(self.version),
            "already": self.already,
            "notes": self.notes,
            **({"azureml": self.uri} if self.uri else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownVersions:
    """The versions that another store of models has of this model."""

    versions: Mapping[str, str] = field(default_factory=dict)
    """Digest of the files by version; empty if it is not known."""

    version: str = ""
    """The version the files were fetched as."""

    files: str = ""
    """What their digest must be; empty if that is not known."""

    def check(self, files: tuple[ModelFile, ...]) -> None:
        """Raise :class:`~mlpack.stores.store.Corrupt` unless the files are the expected ones."""
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


NOWHERE_ELSE = KnownVersions()


def register(session: Session, request: Register) -> Registered:
    """Read the model at ``request.path`` and keep it as a version.

    Without a scoring script in the request, the one in mlpack.toml is taken if the file exists.
    The same content keeps its version. Raises
    :class:`~mlpack.model.registration.VersionTaken`, :class:`~mlpack.errors.UsageError`
    or :class:`~mlpack.project.importers.source.UnreadableModel`; nothing is named then.
    """
    about = _about(session, request)
    if str(request.path).startswith("azureml:"):
        from mlpack.api.azureml import register_from

        if request.trust_pickle or request.features is not None or request.check:
            raise UsageError("nothing of Azure ML is loaded as a pickle: register a file")
        return register_from(session, request, about)
    if request.workspace:
        from mlpack.api.azureml import register_there

        return register_there(session, request, about)
    return register_file(session, request, about)


def register_file(
    session: Session,
    request: Register,
    about: About,
    known: KnownVersions = NOWHERE_ELSE,
) -> Registered:
    """Register the model file or directory at ``request.path``.

    New content gets the version that it has in ``known``, or one that is free there as well.
    """
    project, path = session.project, session.existing(request.path)
    name = check_name(about.name or project.settings.model)
    if project.layout.root.resolve().is_relative_to(path.resolve()):
        raise UnreadableModel(
            f"{path} holds the project's store",
            hint="put the model's files into a directory of their own",
        )
    if path.is_dir() and path.resolve().is_relative_to(project.layout.root.resolve()):
        raise UnreadableModel(
            f"{path} is in the project's store, which this command writes",
            hint="versions that are registered are listed by: mlpack models",
        )
    source = read_model(path, _estimator_options(session, request))
    code, code_notes = find_code(session, request, path)
    if code is None:
        code_notes = (*code_notes, *require_scorer(path, source))
    candidate = replace(
        _candidate(name, source, code, about),
        folder=_folder(path) if code else "",
        source_commit=about.source_commit or source_commit(project.root),
        created=session.clock.now().isoformat(timespec="seconds"),
    )
    known.check(candidate.files)
    version, before = keep(
        project, candidate, about.version, lambda _: _opener(source, code), known
    )
    if version.folder:
        code_notes = (*code_notes, f"its files are in AZUREML_MODEL_DIR/{version.folder}, {_WHY}")
    notes = [*source.notes, *code_notes, *_again(before, version, candidate)]
    return Registered(
        version=version,
        already=before is not None,
        notes=(*notes, *_runtime_notes(project, version)),
    )


def _estimator_options(session: Session, request: Register) -> EstimatorOptions:
    """Return what the request says of an estimator, and the newest opset that the base loads."""
    return EstimatorOptions(
        trusted=request.trust_pickle,
        features=request.features,
        check=session.existing(request.check) if request.check else None,
        bounds=Bounds(request.max_error, float(request.max_unequal)),
        newest_opset=_newest_opset(session.project),
    )


def _newest_opset(project: ProjectDirectory) -> int:
    if not project.has_lock:
        return NEWEST_OPSET
    try:
        releases = [each.onnxruntime for each in project.lock().base.platforms]
    except InvalidLock:
        return NEWEST_OPSET
    return min((newest_opset(each) for each in releases), default=NEWEST_OPSET)


def _about(session: Session, request: Register) -> About:
    file = request.metrics_file
    metrics = _read_metrics(session.existing(file)) if file else {}
    for name, value in request.metrics.items():
        metrics[name] = value if isinstance(value, str) else str(Decimal(repr(value)))
    return About(
        name=request.name,
        version=request.version,
        tags=request.tags,
        metrics=metrics,
        source_commit=request.source_commit,
    )


def _read_metrics(path: Path) -> dict[str, str]:
    """Read numbers by name; a nested object or a text is refused by its name."""
    if not path.is_file():
        raise MlpackError(f"{path} is not a file", hint=_METRICS_HINT)
    if path.stat().st_size > MAX_METRICS_BYTES:
        raise MlpackError(f"{path} is larger than {MAX_METRICS_BYTES} bytes", hint=_METRICS_HINT)
    found = {}
    try:
        for key, node in parse(read_file(path), str(path)).items():
            if isinstance(node.value, bool) or not isinstance(node.value, int | float):
                raise InvalidContent(node.where, "is not a number")
            found[key] = str(Decimal(repr(node.value)))
    except InvalidContent as error:
        raise InvalidContent(error.where, error.problem, hint=_METRICS_HINT) from error
    return found


def keep(
    project: ProjectDirectory,
    candidate: ModelVersion,
    asked: str,
    opener: Callable[[ModelVersion], OpenModelFile],
    elsewhere: KnownVersions = NOWHERE_ELSE,
) -> tuple[ModelVersion, ModelVersion | None]:
    """Keep ``candidate`` as version ``asked`` (empty: the next), or as what holds its content.

    ``opener`` returns what opens the files of that version. Returns the version, and the one that
    held its content before, if any. Raises
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
    elsewhere: KnownVersions,
    known: Sequence[ModelVersion],
    candidate: ModelVersion,
    reserved: Set[str],
) -> str:
    """Return the version that new content has elsewhere if it is free here."""
    wanted = elsewhere.preferred(candidate.files)
    new = all(each.digest != candidate.digest for each in known)
    free = wanted not in {each.version for each in known} | reserved
    return wanted if new and free else ""


def _folder(path: Path) -> str:
    """Return the name below AZUREML_MODEL_DIR of a registered directory, as Azure ML keeps it."""
    if not path.is_dir():
        return ""
    name = path.name if path.name not in ("", "..") else path.resolve().name
    check_file_name(name)
    return name


def _candidate(name: str, source: ModelSource, code: Code | None, about: About) -> ModelVersion:
    graph = source.graph
    return ModelVersion(
        name=name,
        version="0",
        framework=source.framework,
        files=measure(source),
        scoring=code.script if code else None,
        code=code.files if code else (),
        signature=graph.signature if graph else ModelSignature(),
        ir_version=graph.ir_version if graph else 0,
        opsets=graph.opsets if graph else {},
        domains=graph.domains if graph else (),
        compared=source.compared,
        rows_independent=bool(graph and graph.independence.proved),
        tags=about.tags,
        metrics=about.metrics,
    )


def _check_damaged(name: str, asked: str, found: Versions) -> None:
    """Refuse to register over a damaged version: it may be the one that was released."""
    if asked in found.damaged:
        raise VersionTaken(
            f"{name}:{asked} is registered and cannot be read: {found.damaged[asked]}",
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


def _opener(source: ModelSource, code: Code | None) -> OpenModelFile:
    """Return what opens the files of a version where the user has them."""
    scripts = (code.script, *code.files) if code else ()

    def open_file(file: ModelFile) -> AbstractContextManager[BinaryIO]:
        # A directory may hold a score.py of its own: the digest tells them apart.
        if code is not None and file in scripts:
            return open_path(code.places[file.path])
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


def _runtime_notes(project: ProjectDirectory, version: ModelVersion) -> Iterator[str]:
    """Say whether the base can run it; a build refuses what it cannot run."""
    if not project.has_lock:
        return
    try:
        platforms = project.lock().base.platforms
    except InvalidLock as error:
        # A note, not an error: the model is registered, and has nothing to do with the lock.
        yield f"whether the base can run it is not known: {error}"
        return
    for runtime in sorted({each.onnxruntime for each in platforms}):
        if reason := unsupported(version, runtime):
            yield f"the base cannot run it, mlpack build will refuse it: {reason}"
        elif doubt := uncertain(version, runtime):
            yield f"{doubt}: {DECIDES}"
