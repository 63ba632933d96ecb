"""A project on disk: its settings, lock and store, the model versions in it, and its first files.

A version is an OCI artifact of our type in the project's layout (docs/reference/formats.md): its
config is the version's document, its layers are the files. Any tool that copies OCI artifacts
moves it. What a project starts from, and the tariffs it may name, are files of ``templates/``.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from mlpack.errors import MissingFile, MlpackError, UsageError
from mlpack.humanize import nearest
from mlpack.json_document import document
from mlpack.model.order import age_order, version_order
from mlpack.model.version import (
    LATEST,
    ModelFile,
    ModelVersion,
    check_name,
    check_word,
)
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, InvalidContent, canonical, parse
from mlpack.project.aliases import resolved
from mlpack.settings.project_settings import InvalidSettings, Override, ProjectSettings
from mlpack.stores.files import atomic, locked, read_file, require_file, temporary_folder
from mlpack.stores.layout import LayoutStore
from mlpack.stores.records import CREATED
from mlpack.stores.store import Corrupt, ListingStore, NotFound, VerifyingReader, put_bytes, read

if TYPE_CHECKING:
    from mlpack.model.lock import Lock

RECIPE, LOCK, STATE = "mlpack.toml", "mlpack.lock", ".mlpack"
MAX_TEXT_BYTES = 16 * 1024 * 1024


class NotAProject(MlpackError):
    """A directory without ``mlpack.toml``."""

    hint = "start one with: mlpack init --template fan, or go to yours with -C DIR"


class NoBase(MlpackError):
    """A project without a base."""

    hint = "build the base once with: mlpack base build"


class OutsideProject(MlpackError):
    """A path in the settings that leaves the project directory."""

    hint = "keep the project's files inside its directory"


@dataclass(frozen=True)
class ProjectDirectory:
    """A project on disk; every path of a project is defined here."""

    root: Path
    overrides: tuple[Override, ...] = ()
    """Settings that take precedence over ``mlpack.toml``."""

    @classmethod
    def find(cls, directory: Path, overrides: tuple[Override, ...] = ()) -> ProjectDirectory:
        """Return the project in ``directory`` (not above it), its settings read and checked.

        Raises :class:`NotAProject` and :class:`InvalidSettings`.
        """
        if not (directory / RECIPE).is_file():
            raise NotAProject(f"{directory.resolve()} has no {RECIPE}")
        found = cls(directory, overrides)
        _ = found.settings  # every command refuses a wrong mlpack.toml
        return found

    @cached_property
    def settings(self) -> ProjectSettings:
        """The settings in ``mlpack.toml``; raise :class:`InvalidSettings` with the setting."""
        text = read_text(self.root / RECIPE, InvalidSettings)
        return ProjectSettings.parse(text, self.overrides, self._require_tariff)

    def _require_tariff(self, name: str) -> None:

        if is_file_name(name):
            self.path(name)
        require_tariff(name, self.root)

    @property
    def state(self) -> Path:
        """``.mlpack``: what mlpack keeps and git ignores."""
        return self.root / STATE

    @cached_property
    def layout(self) -> LayoutStore:
        """The store: model versions, the base, the releases."""
        return LayoutStore(self.state / "oci")

    @property
    def own_files(self) -> tuple[Path, ...]:
        """What mlpack itself reads and writes here: commands write no outputs to these."""
        return (self.root / RECIPE, self.root / LOCK, self.layout.root, self.ledger)

    @property
    def ledger(self) -> Path:
        """The ledger's file (:mod:`mlpack.project.ledger`)."""
        return self.state / "ledger.db"

    @property
    def has_lock(self) -> bool:
        """Whether a base was ever locked."""
        return (self.root / LOCK).is_file()

    def lock(self) -> Lock:
        """Return the content of ``mlpack.lock``; raise :class:`NoBase` if there is none."""
        if not self.has_lock:
            raise NoBase(f"{self.root.resolve()} has no {LOCK}: its base was not built yet")
        from mlpack.model.lock import InvalidLock, Lock

        return Lock.parse(read_text(self.root / LOCK, InvalidLock))

    def write_lock(self, lock: Lock) -> None:
        """Replace ``mlpack.lock``, whole or not at all."""
        with atomic(self.root / LOCK) as out:
            out.write(lock.dump().encode())

    def path(self, name: str) -> Path:
        """Return the path of a file of the project; raise :class:`OutsideProject`."""
        found = self.root / name
        if not found.resolve().is_relative_to(self.root.resolve()):
            raise OutsideProject(f"{name!r} is outside {self.root.resolve()}")
        return found

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Lock the project while the block runs; other processes wait."""
        with locked(self.state / "lock"):
            yield


def read_text(path: Path, error: type[MlpackError]) -> str:
    """Read a text file of the user; raise ``error`` if it is too large or not UTF-8."""
    if require_file(path) > MAX_TEXT_BYTES:
        raise error(f"{path} is larger than {MAX_TEXT_BYTES // 1024 // 1024} MiB")
    try:
        # As open() in text mode: one kind of line end.
        return io.TextIOWrapper(io.BytesIO(read_file(path)), encoding="utf-8").read()
    except UnicodeDecodeError as cause:
        raise error(f"{path} is not UTF-8") from cause


ARTIFACT = "application/vnd.mlpack.model.v1+json"
CONFIG = "application/vnd.mlpack.model.config.v1+json"
FILE = "application/vnd.mlpack.model.file.v1"
SCORING_FILE = "application/vnd.mlpack.model.scoring.v1"
CODE_FILE = "application/vnd.mlpack.model.code.v1"
TITLE = "org.opencontainers.image.title"
"""Annotation of image-spec's annotations.md; ORAS names the files it pulls by the title."""

_PREFIX = "model/"

OpenModelFile = Callable[[ModelFile], AbstractContextManager[BinaryIO]]


class NoSuchModel(MlpackError):
    """A model or a version that the project does not have."""


class ModelStore:
    """Model versions by name and version, over any store that lists its names."""

    def __init__(self, store: ListingStore) -> None:
        self._store = store

    def add(self, version: ModelVersion, open_file: OpenModelFile) -> Descriptor:
        """Add ``version``: its files first, its name last, so that no reader sees a part.

        Content that is there whole is not read again. Raises
        :class:`~mlpack.stores.store.Corrupt` where a file is not what ``version`` says.
        """
        for file, media_type in _blobs(version):
            target = Descriptor(media_type, file.digest, file.size)
            with open_file(file) as content:
                self._store.put(target, content)
        return self.describe(version)

    def describe(self, version: ModelVersion) -> Descriptor:
        """Write the document of ``version``, whose files the store has; replaces an older one."""
        config = put_bytes(self._store, canonical(document(version)), CONFIG)
        manifest = put_bytes(self._store, canonical(_manifest(version, config)), media.MANIFEST)
        created = {CREATED: version.created} if version.created else {}
        named = replace(manifest, artifact_type=ARTIFACT, annotations=created)
        self._store.tag(named, model_tag(version.name, version.version))
        return named

    def get(self, name: str, version: str = LATEST) -> ModelVersion:
        """Return a version, or the newest if none is named; raise :class:`NoSuchModel`.

        ``version`` may be an alias (``@champion``), and raises
        :class:`~mlpack.project.aliases.NoSuchAlias` then.
        """
        check_name(name)
        held = self._targets(name)
        if not held:
            models, close = ", ".join(self.names()) or "none", nearest(name, self.names())
            register = f"register it with: mlpack register PATH --name {name}"
            raise NoSuchModel(
                f"there is no model {name!r} here{close or f' (there is: {models})'}",
                hint="list them with: mlpack models" if close else register,
            )
        version = resolved(self._store, name, version)
        wanted = list(held)[-1] if version in ("", LATEST) else check_word(version, "version")
        if wanted not in held:
            have = f"(it has: {', '.join(held)}){nearest(wanted, held)}"
            hint = f"see what it has with: mlpack models {name}"
            raise NoSuchModel(f"model {name!r} has no version {wanted!r} {have}", hint=hint)
        return self._read(held[wanted], f"{name}:{wanted}")

    def holds(self, name: str, version: str) -> bool:
        """Whether the version exists."""
        return any(each == [name, version] for *each, _ in self._named())

    def created(self, name: str, version: str) -> str:
        """Return when a version was registered; empty if it is not here or that is not known."""
        named = (target for *each, target in self._named() if each == [name, version])
        return next(map(self._time, named), "")

    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        """Return all versions of a model, the one registered first first."""
        held = self._targets(check_name(name))
        return tuple(self._read(target, f"{name}:{each}") for each, target in held.items())

    def names(self) -> tuple[str, ...]:
        """Return the names of all models, sorted."""
        return tuple(sorted({name for name, _, _ in self._named()}))

    @contextmanager
    def open_file(self, file: ModelFile) -> Iterator[BinaryIO]:
        """Open a file of a version; reading it to its end raises if its bytes changed on disk."""
        target = blob(file)
        changed = Corrupt(
            f"{file.path} in the store is not what was registered ({file.digest})",
            hint="register the model again, which restores the file",
        )
        with self._store.open(target) as raw:
            yield cast(BinaryIO, VerifyingReader(raw, target, changed))

    def _named(self) -> Iterator[tuple[str, str, Descriptor]]:
        for tag, target in self._store.tags().items():
            if tag.startswith(_PREFIX) and target.artifact_type in ("", ARTIFACT):
                name, _, version = tag.removeprefix(_PREFIX).partition("/")
                yield name, version, target

    def _targets(self, name: str) -> dict[str, Descriptor]:
        held = {version: target for model, version, target in self._named() if model == name}
        times = {version: self._time(target) for version, target in held.items()}
        ordered = sorted(held, key=lambda version: age_order(times[version], version))
        return {version: held[version] for version in ordered}

    def _time(self, target: Descriptor) -> str:
        """When a version was registered: its entry says it, unless other tools copied it."""
        if CREATED in target.annotations:
            return target.annotations[CREATED]
        try:
            notes = parse(read(self._store, target), "model version").get("annotations")
        except (InvalidContent, Corrupt, NotFound):
            return ""
        return notes.text_map().get(CREATED, "") if notes else ""

    def _read(self, target: Descriptor, what: str) -> ModelVersion:
        try:
            manifest = parse(read(self._store, target), what)
            config = Descriptor.from_json(manifest.need("config"))
            if config.media_type != CONFIG:
                raise InvalidContent(what, f"is a {config.media_type}, not a model version")
            found = ModelVersion.from_json(parse(read(self._store, config), what))
        except InvalidContent as error:
            raise Corrupt(f"the store's document of {error}") from error
        if str(found) != what:
            raise Corrupt(f"the store's document of {what} describes {found}")
        return found


def blob(file: ModelFile) -> Descriptor:
    """Return the descriptor of ``file`` in a store of versions."""
    return Descriptor(FILE, file.digest, file.size)


def _blobs(version: ModelVersion) -> Iterator[tuple[ModelFile, str]]:
    yield from ((file, FILE) for file in version.files)
    if version.scoring:
        yield version.scoring, SCORING_FILE
    yield from ((file, CODE_FILE) for file in version.code)


def _manifest(version: ModelVersion, config: Descriptor) -> dict[str, object]:
    layers = [
        Descriptor(media_type, file.digest, file.size, {TITLE: file.path}).to_json()
        for file, media_type in _blobs(version)
    ]
    return {
        "schemaVersion": 2,
        "mediaType": media.MANIFEST,
        "artifactType": ARTIFACT,
        "config": config.to_json(),
        "layers": layers,
        "annotations": {TITLE: str(version), CREATED: version.created},
    }


@dataclass(frozen=True)
class Versions:
    """The versions of one model, the one registered first first."""

    readable: tuple[ModelVersion, ...]
    damaged: Mapping[str, str]
    """The problem of each damaged version."""


def read_versions(layout: LayoutStore, name: str) -> Versions:
    """Read all versions of model ``name``; a damaged one does not hide the others."""
    store = ModelStore(layout)
    try:
        return Versions(store.versions(name), {})
    except (Corrupt, NotFound):
        readable: list[ModelVersion] = []
        damaged: dict[str, str] = {}
        place = model_tag(name, "")
        named = (tag.removeprefix(place) for tag in layout.tags() if tag.startswith(place))
        for version in sorted(named, key=version_order):
            try:
                readable.append(store.get(name, version))
            except (Corrupt, NotFound) as error:
                damaged[version] = str(error)
            except NoSuchModel:
                continue  # another artifact under such a name
        return Versions(tuple(readable), damaged)


def model_tag(name: str, version: str) -> str:
    """Return the name of a model version in the layout."""
    return f"{_PREFIX}{name}/{version}"


@contextmanager
def exported(store: ModelStore, version: ModelVersion) -> Iterator[Path]:
    """Yield the model's one file, or a directory of its files, while the block runs.

    The scoring script is not among them. Raises :class:`~mlpack.stores.store.Corrupt` where
    a file is not what was registered.
    """
    with temporary_folder("mlpack-") as folder:
        top = folder / (version.folder or version.name)
        for file in version.files:
            path = top / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with store.open_file(file) as content, path.open("wb") as out:
                shutil.copyfileobj(content, out)
        yield top / version.files[0].path if len(version.files) == 1 else top


PACKAGE = "mlpack_templates"
TARIFFS, TARIFF_SUFFIX = "tariffs", ".toml"
_NOT_TEMPLATES = ("__init__.py", "__pycache__")


def read_template(path: str) -> str:
    """Return the text of ``templates/<path>``; raise :class:`UsageError` if there is none."""
    found = _find(path)
    if not found.is_file():
        raise UsageError(f"mlpack ships no template {path!r}")
    return found.read_text(encoding="utf-8")


def template_tree(name: str) -> Mapping[str, bytes]:
    """Return the files of ``templates/<name>`` by their paths in it, sorted."""
    found = _find(name)
    if not found.is_dir():
        raise UsageError(f"mlpack ships no template folder {name!r}")
    return dict(sorted(_walk(found, "")))


class NoSuchTariff(UsageError):
    """A tariff that mlpack does not ship."""


def is_file_name(tariff: str) -> bool:
    """Whether the name of a tariff is a path, and not that of a shipped one."""
    return "/" in tariff or tariff.endswith(TARIFF_SUFFIX)


def require_tariff(name: str, directory: Path) -> None:
    """Raise unless mlpack ships ``name`` (:class:`NoSuchTariff`) or its file exists."""
    hint = f"name a file (tariff.toml), or one of: {', '.join(shipped_tariffs())}"
    if is_file_name(name) and not (directory / name).is_file():
        raise MissingFile(f"there is no tariff file {directory / name}", hint=hint)
    if not is_file_name(name) and name not in shipped_tariffs():
        close = nearest(name, shipped_tariffs())
        raise NoSuchTariff(f"mlpack ships no tariff {name!r}{close}", hint=hint)


def shipped_tariffs() -> tuple[str, ...]:
    """Return the names of the tariffs mlpack ships, sorted."""
    found = (each.name for each in _find(TARIFFS).iterdir())
    return tuple(
        sorted(name.removesuffix(TARIFF_SUFFIX) for name in found if name.endswith(TARIFF_SUFFIX))
    )


def _find(path: str) -> Traversable:
    found: Traversable = files(PACKAGE)
    for part in path.split("/"):
        if part in ("", ".", ".."):
            raise UsageError(f"{path!r} is not a template")
        found = found / part
    return found


def _walk(folder: Traversable, above: str) -> Iterator[tuple[str, bytes]]:
    for each in folder.iterdir():
        if each.name in _NOT_TEMPLATES:
            continue
        if each.is_dir():
            yield from _walk(each, f"{above}{each.name}/")
        else:
            yield f"{above}{each.name}", each.read_bytes()


GITIGNORE = ".gitignore"


class AlreadyThere(MlpackError):
    """Files that a new project would overwrite."""

    hint = "choose an empty directory (mlpack init DIR), or move these files away first"


def write_starter(folder: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Write all ``files`` into ``folder``, or none; return what was written.

    Raises :class:`AlreadyThere` naming every file that exists. Lines that an
    existing ``.gitignore`` lacks are added to it.
    """
    taken = [name for name in files if name != GITIGNORE and _exists(folder / name)]
    if taken:
        raise AlreadyThere(f"{folder} has {', '.join(taken)} already")
    before = {name: _content(folder / name) for name in files}
    try:
        for name, content in files.items():
            with atomic(folder / name) as out:
                out.write(merged_lines(before[name], content) if name == GITIGNORE else content)
    except BaseException:
        _put_back(folder, before)
        raise
    return tuple(files)


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def merged_lines(before: bytes | None, lines: bytes) -> bytes:
    """Return the lines ``before`` and those of ``lines`` that are not among them."""
    if not before:
        return lines
    held = {line.strip() for line in before.splitlines()}
    missing = [line for line in lines.splitlines() if line.strip() and line.strip() not in held]
    end = b"" if before.endswith(b"\n") or not missing else b"\n"
    return before + end + b"".join(line + b"\n" for line in missing)


def _put_back(folder: Path, before: Mapping[str, bytes | None]) -> None:
    """Undo an interrupted start: the next one must not find its files."""
    for name, content in before.items():
        if content is None:
            (folder / name).unlink(missing_ok=True)
        else:
            with atomic(folder / name) as out:
                out.write(content)
