"""``mlpack base``: make the stable base once, and say what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from mlpack.base.assemble import Assembled, Job, MissingLibrary, assemble
from mlpack.base.changes import changes, check_same
from mlpack.base.content import identity
from mlpack.base.rules import Dropped
from mlpack.errors import MlpackError
from mlpack.model.lock import InvalidLock, Lock, LockedBase, LockedPlatform
from mlpack.model.recipe import BASE
from mlpack.model.requirements import InvalidRequirements, on_gpu, parse_requirements
from mlpack.oci.descriptor import Platform
from mlpack.stores.base import read_image, read_index, verify
from mlpack.stores.layout import LayoutStore
from mlpack.stores.project import Project, read_text

if TYPE_CHECKING:
    from mlpack.stores.registries import Registries


class NoRequirements(MlpackError):
    """A project without its requirements file."""

    hint = (
        "create it, empty where the model needs nothing more, or name another: [base] requirements"
    )


@dataclass(frozen=True, kw_only=True)
class Built:
    """What ``mlpack base build`` made, or found."""

    base: LockedBase
    already: bool
    changes: tuple[str, ...] = ()
    """Against the base that was locked before; empty for the first one."""

    dropped: tuple[tuple[Platform, tuple[Dropped, ...]], ...] = ()
    missing: tuple[tuple[Platform, MissingLibrary], ...] = ()
    """Libraries that something in the base is linked to and that it does not have."""

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json base build``."""
        return {
            **describe(self.base),
            "already": self.already,
            "changes": list(self.changes),
            "left_out": [
                {"platform": str(at), "why": each.why, "files": each.files, "bytes": each.bytes}
                for at, dropped in self.dropped
                for each in dropped
            ],
            "missing_libraries": [
                {"platform": str(at), "path": each.path, "library": each.library}
                for at, each in self.missing
            ],
        }


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The locked base, and whether the store has it whole."""

    base: LockedBase
    in_store: bool

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json base show``."""
        return {**describe(self.base), "in_store": self.in_store}


def build(
    project: Project,
    *,
    upgrade: bool = False,
    advance: Callable[[int], None] = lambda _: None,
    registries: Registries | None = None,
) -> Built:
    """Make the base that mlpack.toml asks for, and lock it; do nothing where it is there.

    A locked base whose blobs are gone is made again from its lock, and must come
    out the same. Where the settings changed, locked versions are kept as far as
    they still fit; ``upgrade`` takes the newest. An image in a registry is read from
    ``registries`` and stays at the digest it was locked with, until ``upgrade``.
    """
    requirements = _requirements(project)
    with project.exclusive():
        old = _lock(project, upgrade)
        wanted = identity(project.recipe.base, [str(each) for each in requirements])
        fits = old is not None and old.base.recipe == wanted
        if old and fits and not upgrade and whole(project.layout, old.base):
            project.layout.tag(old.base.index, BASE)
            return Built(base=old.base, already=True)
        job = Job(
            recipe=project.recipe.base,
            requirements=requirements,
            root=project.root,
            store=project.layout,
            advance=advance,
            held=old.base if old and not upgrade else None,
            exact=fits and not upgrade,
            registries=registries,
        )
        base, made = assemble(job)
        if old and job.exact:
            check_same(old.base, base)
        return _keep(project, old, base, made)


def show(project: Project) -> Shown:
    """The locked base; raise where none is locked."""
    base = project.lock().base
    return Shown(base=base, in_store=whole(project.layout, base))


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
    """A locked base as JSON."""
    return {
        "from": base.source,
        "pinned": base.pinned or None,
        "digest": str(base.index.digest),
        "platforms": [_describe(each) for each in base.platforms],
    }


def _describe(locked: LockedPlatform) -> dict[str, object]:
    return {
        "platform": str(locked.platform),
        "digest": str(locked.manifest.digest),
        "bytes": sum(each.layer.size for each in locked.layers),
        "layers": [
            {"role": each.role, "digest": str(each.layer.digest), "bytes": each.layer.size}
            for each in locked.layers
        ],
        "python": {each.name: each.version for each in locked.python},
        "debian": {each.name: each.version for each in locked.debian},
    }


def _requirements(project: Project) -> tuple[Requirement, ...]:
    name = project.recipe.base.requirements
    file = project.path(name)
    if not file.is_file():
        raise NoRequirements(f"{name} is missing")
    found = parse_requirements(read_text(file, InvalidRequirements), name)
    return on_gpu(found) if project.recipe.base.gpu else found


def _lock(project: Project, upgrade: bool) -> Lock | None:
    """The lock there is; one that cannot be read is replaced only where the user asks for it."""
    if not project.has_lock:
        return None
    try:
        return project.lock()
    except InvalidLock:
        if not upgrade:
            raise
        return None


def _keep(
    project: Project, old: Lock | None, base: LockedBase, made: tuple[Assembled, ...]
) -> Built:
    """Name the base and lock it; anchors stay where the base is the one they were made on."""
    project.layout.tag(base.index, BASE)
    same = old is not None and old.base == base
    if not same:
        anchors = old.anchors if old and old.base.index == base.index else {}
        project.write_lock(Lock(base=base, anchors=anchors))
    return Built(
        base=base,
        already=False,
        changes=changes(old.base, base) if old else (),
        dropped=tuple((each.locked.platform, each.dropped) for each in made),
        missing=tuple((each.locked.platform, lib) for each in made for lib in each.missing),
    )
