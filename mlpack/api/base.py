"""``mlpack base``: make the stable base once, and show it; or take one that stays in a registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from mlpack.base.assemble import (
    STAGES,
    AssembledPlatform,
    BaseJob,
    MissingLibrary,
    assemble,
)
from mlpack.base.content import identity
from mlpack.base.lock_diff import changes, check_same
from mlpack.base.prune_rules import PrunedFiles
from mlpack.base.requirements import InvalidRequirements, on_gpu, parse_requirements
from mlpack.errors import MlpackError
from mlpack.interruptions import held_back
from mlpack.model.lock import InvalidLock, Lock, LockedBase, LockedLayer, LockedPlatform
from mlpack.model.version import BASE
from mlpack.oci.descriptor import Descriptor, Platform, Reference
from mlpack.oci.image import Image
from mlpack.oci.layer import PACKING
from mlpack.plan.engines import engine
from mlpack.project.directory import ProjectDirectory, read_text
from mlpack.project.patch_releases import find_target
from mlpack.project.references import FoundImage, find_image, in_registry
from mlpack.stores.copy import CopyOptions, copy
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import images, read_image, read_index, verify

if TYPE_CHECKING:
    from mlpack.api.requests import BuildBase
    from mlpack.api.session import Session, Step
    from mlpack.registry.repository import Registries


class NoRequirements(MlpackError):
    """A project without its requirements file."""

    hint = "create it, empty if the model needs nothing more, or name another: [base] requirements"


@dataclass(frozen=True, kw_only=True)
class BuiltBase:
    """What ``mlpack base build`` made, or found."""

    base: LockedBase
    already: bool
    changes: tuple[str, ...] = ()
    """Compared with the base that was locked before; empty for the first one."""

    dropped: tuple[tuple[Platform, tuple[PrunedFiles, ...]], ...] = ()
    missing: tuple[tuple[Platform, MissingLibrary], ...] = ()
    """Libraries that something in the base is linked to and that it does not have."""

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json base build``."""
        return {
            **describe(self.base),
            "already": self.already,
            "changes": self.changes,
            "left_out": [
                {"platform": at, "why": each.why, "files": each.files, "bytes": each.bytes}
                for at, dropped in self.dropped
                for each in dropped
            ],
            "missing_libraries": [
                {"platform": at, "path": each.path, "library": each.library}
                for at, each in self.missing
            ],
        }


@dataclass(frozen=True, kw_only=True)
class ShownBase:
    """The locked base, and whether the store has all of it."""

    base: LockedBase
    in_store: bool

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json base show``."""
        return {**describe(self.base), "in_store": self.in_store}


def build(session: Session, request: BuildBase) -> BuiltBase:
    """Make the base that mlpack.toml describes, and lock it; do nothing if it is there.

    A locked base whose blobs are gone is made again from its lock, and must come
    out the same. If the settings changed, locked versions are kept as far as
    they still fit; ``upgrade`` takes the newest. An image in a registry stays at the digest it
    was locked with, until ``upgrade``.
    """
    project, upgrade = session.project, request.upgrade
    requirements = _requirements(project)
    with project.exclusive():
        old = _lock(project, upgrade)
        recipe = identity(project.settings.base, [str(each) for each in requirements])
        fits = old is not None and old.base.recipe == recipe
        if old and fits and not upgrade and whole(project.layout, old.base):
            project.layout.tag(old.base.index, BASE)
            return BuiltBase(base=old.base, already=True)
        from_registry = in_registry(project.settings.base.source)
        stages = STAGES * len(project.settings.base.platforms)
        with session.step("building the base", stages, "stages") as step:
            job = BaseJob(
                recipe=project.settings.base,
                requirements=requirements,
                root=project.root,
                store=project.layout,
                engine=engine(project.settings.device.engine),
                stage=_counting(step),
                held=old.base if old and not upgrade else None,
                exact=fits and not upgrade,
                registries=session.registries if from_registry else None,
            )
            base, made = assemble(job)
        if old and job.exact:
            check_same(old.base, base)
        return _keep(project, old, base, made)


def _counting(step: Step) -> Callable[[str], None]:
    """Return what counts a platform's stage when its next one begins; platforms run at once."""
    begun: set[str] = set()

    def begin(stage: str) -> None:
        platform = stage.partition(":")[0]
        step(1 if platform in begun else 0)
        begun.add(platform)
        step.begin(stage)

    return begin


def show(session: Session) -> ShownBase:
    """Return the locked base; raise ``NoBase`` if none is locked."""
    base = session.project.lock().base
    return ShownBase(base=base, in_store=whole(session.project.layout, base))


def whole(layout: LayoutStore, base: LockedBase) -> bool:
    """Whether ``layout`` holds all of ``base``, every byte as its digest says."""
    try:
        if read_index(layout, base.index).manifests != tuple(p.manifest for p in base.platforms):
            return False
        for locked in base.platforms:
            read_image(layout, locked.manifest)
            for each in locked.layers:
                verify(layout, each.layer.descriptor)
    except MlpackError:
        return False
    return True


def describe(base: LockedBase) -> dict[str, object]:
    """The members of a locked base in documents."""
    return {
        "from": base.source,
        "pinned": base.pinned or None,
        "digest": base.index.digest,
        "platforms": [_describe(each) for each in base.platforms],
    }


def _describe(locked: LockedPlatform) -> dict[str, object]:
    return {
        "platform": locked.platform,
        "digest": locked.manifest.digest,
        "bytes": sum(each.layer.size for each in locked.layers),
        "layers": [
            {"role": each.role, "digest": each.layer.digest, "bytes": each.layer.size}
            for each in locked.layers
        ],
        "python": {each.name: each.version for each in locked.python},
        "debian": {each.name: each.version for each in locked.debian},
    }


def _requirements(project: ProjectDirectory) -> tuple[Requirement, ...]:
    name = project.settings.base.requirements
    file = project.path(name)
    if not file.is_file():
        raise NoRequirements(f"{name} is missing")
    found = parse_requirements(read_text(file, InvalidRequirements), name)
    return on_gpu(found) if project.settings.base.gpu else found


def _lock(project: ProjectDirectory, upgrade: bool) -> Lock | None:
    """Read the lock, if any; an unreadable one is replaced only by ``upgrade``."""
    if not project.has_lock:
        return None
    try:
        return project.lock()
    except InvalidLock:
        if not upgrade:
            raise
        return None


def _keep(
    project: ProjectDirectory,
    old: Lock | None,
    base: LockedBase,
    made: tuple[AssembledPlatform, ...],
) -> BuiltBase:
    """Name the base and lock it; anchors stay if the base is the one they were made on."""
    same = old is not None and old.base == base
    with held_back():
        project.layout.tag(base.index, BASE)
        if not same:
            anchors = old.anchors if old and old.base.index == base.index else {}
            project.write_lock(Lock(base=base, anchors=anchors))
    return BuiltBase(
        base=base,
        already=False,
        changes=changes(old.base, base) if old else (),
        dropped=tuple((each.locked.platform, each.dropped) for each in made),
        missing=tuple((each.locked.platform, lib) for each in made for lib in each.missing),
    )


class OtherBase(MlpackError):
    """A base in a registry that is not the one mlpack.lock pins."""

    hint = "publish the locked base with: mlpack push base --to REPOSITORY, and name that one"


@dataclass(frozen=True, kw_only=True)
class RemoteBase:
    """A base whose manifests and configs are here, and whose layers are not."""

    place: Reference
    """Where it is, by digest."""

    lock: Lock
    """The project's, or one made from the image if the project has none."""

    locked: bool
    """Whether it is the project's, so that requirements can be compared with it."""

    platforms: tuple[Platform, ...]


def adopt(project: ProjectDirectory, registries: Registries, place: Reference) -> RemoteBase:
    """Copy manifests and configs of the base at ``place`` into the store, but no layer.

    Raises :class:`OtherBase` if it is not the base in the project's lock.
    """
    found = find_image(None, str(place), registries=registries)
    pinned = place.pinned(found.target.digest)
    lock = project.lock() if project.has_lock else None
    if lock is not None:
        platforms = _locked(lock, found.target, pinned)
    made = _copy_documents(project, found)
    if lock is not None:
        return RemoteBase(place=pinned, lock=lock, locked=True, platforms=platforms)
    own = _own(pinned, found.target, made)
    return RemoteBase(
        place=pinned,
        lock=own,
        locked=False,
        platforms=tuple(each.platform for each in own.base.platforms),
    )


def adopt_anchor(project: ProjectDirectory, registries: Registries, name: str) -> None:
    """Copy manifests and configs of the anchor of model ``name`` into the store, but no layer.

    It is looked up in [image] repository. Errors are ignored: a build that needs the anchor
    reports that it is missing.
    """
    digest = project.lock().anchors.get(name) if project.has_lock else None
    where = project.settings.repository
    if digest is None or where is None or find_target(project.layout, digest):
        return
    try:
        _copy_documents(project, find_image(None, str(where.pinned(digest)), registries=registries))
    except MlpackError:
        return


def _copy_documents(project: ProjectDirectory, found: FoundImage) -> tuple[Image, ...]:

    made = images(found.store, found.target)
    layers = {layer.digest for image in made for layer in image.layers}
    copy(found.store, project.layout, found.target, CopyOptions(skip=layers))
    return made


def _locked(lock: Lock, target: Descriptor, place: Reference) -> tuple[Platform, ...]:
    """The platforms of the locked base that ``target`` is the image of."""
    found = tuple(
        each.platform
        for each in lock.base.platforms
        if target.digest in {lock.base.index.digest, each.manifest.digest}
    )
    if not found:
        raise OtherBase(
            f"{place} is not the base in mlpack.lock, which is {lock.base.index.digest}"
        )
    return found


def _own(place: Reference, target: Descriptor, made: Sequence[Image]) -> Lock:
    """What a lock would say of an image that is a base by itself; it is not written."""
    return Lock(
        base=LockedBase(
            source=str(place),
            recipe=target.digest,
            index=target,
            packing=PACKING,
            platforms=tuple(
                LockedPlatform(
                    platform=image.platform,
                    manifest=image.descriptor,
                    layers=tuple(LockedLayer("source", layer) for layer in image.layers),
                )
                for image in made
            ),
        )
    )
