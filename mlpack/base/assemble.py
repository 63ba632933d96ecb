"""Assembling a base: all platforms at the same time, each layer by layer."""

from __future__ import annotations

import posixpath
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from packaging.requirements import Requirement

from mlpack.base import content, debian, python
from mlpack.base.elf import needs
from mlpack.base.layer_files import Advance, LayerFile, pack
from mlpack.base.mmdebstrap import DebianRequest, check_held, unpack
from mlpack.base.prune_rules import PrunedFiles
from mlpack.base.source import check_taken, copy_layers, inspect, open_source, pin
from mlpack.base.wheels import Interpreter
from mlpack.interruptions import call_in_threads
from mlpack.model.lock import (
    PATCH_FORMATS,
    DebianPackage,
    LockedBase,
    LockedLayer,
    LockedPackage,
    LockedPlatform,
)
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Platform
from mlpack.oci.image import Image, build_image, build_index
from mlpack.oci.layer import PACKING
from mlpack.plan.engines import EngineRule
from mlpack.settings.project_settings import BaseSettings
from mlpack.stores.files import temporary_folder
from mlpack.stores.store import StagingStore, put_bytes, put_image

if TYPE_CHECKING:
    from mlpack.registry.repository import Registries

_T = TypeVar("_T")

DEBIAN = "debian"
_DEBIAN_PYTHON = Interpreter(
    "usr/bin/python3.11", (3, 11), 36, "usr/local/lib/python3.11/dist-packages"
)


STAGES = 4
"""Stages of one platform: choosing packages, installing them, what lies below, packing."""


@dataclass(frozen=True, kw_only=True)
class BaseJob:
    """What a base is made from, and the store it goes into."""

    recipe: BaseSettings
    requirements: tuple[Requirement, ...]
    root: Path
    """What relative paths in the settings start from."""

    store: StagingStore
    engine: EngineRule
    """What devices run: a base that it refuses is not made."""

    stage: Callable[[str], None] = lambda _: None
    """Called when one of the :data:`STAGES` of a platform begins, with its name."""

    held: LockedBase | None = None
    """The base made before; its versions are kept if they still fit."""

    exact: bool = False
    """Whether exactly the packages in ``held`` are used."""

    registries: Registries | None = None
    """The registries to read the source image from."""


@dataclass(frozen=True, slots=True)
class MissingLibrary:
    """A library that the base lacks, and a shared object in it that is linked to the library."""

    path: str
    library: str


@dataclass(frozen=True, kw_only=True)
class AssembledPlatform:
    """The base of one platform, and what to tell the user about it."""

    locked: LockedPlatform
    image: Image
    dropped: tuple[PrunedFiles, ...]
    missing: tuple[MissingLibrary, ...]


@dataclass(frozen=True)
class _LowerLayers:
    """The layers below the packages: Debian's files, or those of an image."""

    layers: tuple[LockedLayer, ...]
    debian: tuple[DebianPackage, ...]
    dropped: tuple[PrunedFiles, ...]
    libraries: frozenset[str]
    needs: Mapping[str, tuple[str, ...]]
    env: Mapping[str, str]


def assemble(job: BaseJob) -> tuple[LockedBase, tuple[AssembledPlatform, ...]]:
    """Make the base for all platforms of ``job`` at the same time, and put it into the store.

    The caller tags it; tags in the store do not change. If a platform fails or the process is
    interrupted, the other platforms stop at their next step.
    """
    same = job.held is not None and job.held.source == job.recipe.source
    # Once, before the threads: a tag may move between one platform and the next.
    pinned = pin(job.recipe.source, job.held.pinned if job.held and same else "", job.registries)
    made = at_once(
        job.recipe.platforms,
        lambda platform, advance: _platform(job, platform, pinned, advance),
    )
    index = build_index([each.image for each in made])
    base = LockedBase(
        source=job.recipe.source,
        recipe=content.identity(job.recipe, [str(each) for each in job.requirements]),
        index=put_bytes(job.store, index.content, media.INDEX),
        packing=PACKING,
        platforms=tuple(each.locked for each in made),
        pinned=pinned,
    )
    return base, made


def at_once(
    platforms: Sequence[Platform], make: Callable[[Platform, Advance], _T]
) -> tuple[_T, ...]:
    """Call ``make`` for all platforms, each in a thread; return the results in their order.

    If one raises, or this thread is interrupted, the ``advance`` that each call was given raises
    ``InterruptedError`` from then on, and the error is raised here when all threads have ended.
    """
    stop = threading.Event()

    def advance_or_stop(_: int) -> None:
        if stop.is_set():
            raise InterruptedError("another platform's base failed")

    calls = [partial(make, each, advance_or_stop) for each in platforms]
    return tuple(call_in_threads(calls, len(platforms), stop.set))


def _platform(job: BaseJob, platform: Platform, pinned: str, advance: Advance) -> AssembledPlatform:
    with temporary_folder("mlpack-base-") as folder:
        wheels = folder / "wheels"
        if job.recipe.source.partition(":")[0] == DEBIAN:
            target = python.WheelTarget(platform, _DEBIAN_PYTHON)
            packages, part = _packages(job, target, wheels, advance)
            below = _debian(job, platform, part.needed, folder, advance)
        else:
            place = pinned or job.recipe.source
            source = open_source(place, job.root, platform, job.registries)
            # Copied before it is inspected, so that each byte is fetched once.
            job.stage(f"{platform}: copying the source's layers")
            copied = copy_layers(source, job.store)
            check_taken(job.engine, job.store, copied, source.text)
            found = inspect(job.store, copied, source.image.env, source.text)
            target = python.WheelTarget(platform, found.interpreter)
            packages, part = _packages(job, target, wheels, advance)
            layers = tuple(LockedLayer("source", each) for each in copied)
            below = _LowerLayers(layers, (), (), found.libraries, {}, source.image.env)
        job.stage(f"{platform}: packing layers")
        above = (
            ("packages", part.items),
            ("runtime", content.runtime_files(target.python)),
            ("entry", content.entry_files(platform, job.recipe.source, packages)),
        )
        layers = (*below.layers, *(_layer(job, role, items, advance) for role, items in above))
    config = content.config(platform, target.python, below.env, gpu=job.recipe.gpu)
    image = build_image(config, [each.layer for each in layers])
    return AssembledPlatform(
        locked=LockedPlatform(
            platform=platform,
            manifest=put_image(job.store, image),
            layers=layers,
            python=packages,
            debian=below.debian,
            patch_formats=PATCH_FORMATS,
        ),
        image=image,
        dropped=(*below.dropped, *part.dropped),
        missing=missing_libraries({**below.needs, **part.needs}, below.libraries, part.items),
    )


def missing_libraries(
    needed: Mapping[str, tuple[str, ...]], libraries: frozenset[str], items: Iterable[LayerFile]
) -> tuple[MissingLibrary, ...]:
    """Return the libraries a loader would not find; they are looked up by file name only."""
    there = libraries | {posixpath.basename(item.path) for item in items}
    return tuple(
        MissingLibrary(path, library)
        for path, names in needed.items()
        for library in names
        if library not in there
    )


def _layer(job: BaseJob, role: str, items: Iterable[LayerFile], advance: Advance) -> LockedLayer:
    return LockedLayer(role, pack(job.store, items, advance))


def _packages(
    job: BaseJob, target: python.WheelTarget, folder: Path, advance: Advance
) -> tuple[tuple[LockedPackage, ...], python.PackagesPart]:
    held = job.held.on(target.platform) if job.held else None
    job.stage(f"{target.platform}: choosing packages")
    if job.exact and held:
        chosen = held.python
    else:
        kept = held.python if held else ()
        chosen = python.resolve(job.requirements, target, kept, gpu=job.recipe.gpu)
    job.stage(f"{target.platform}: installing {len(chosen)} packages")
    python.install(chosen, target, folder)
    return chosen, python.collect(folder, target.python.directory, advance)


def _debian(
    job: BaseJob, platform: Platform, needed: frozenset[str], folder: Path, advance: Advance
) -> _LowerLayers:
    held = job.held.on(platform) if job.held else None
    request = DebianRequest(
        suite=debian.check_suite(job.recipe.source.partition(":")[2]),
        architecture=platform.architecture,
        packages=(*debian.MINIMUM, *job.recipe.packages),
        mirror=job.recipe.mirror,
        held=held.debian if held else (),
    )
    job.stage(f"{platform}: unpacking Debian")
    unpacked = unpack(request, folder, advance)
    if job.exact and held:
        check_held(request, unpacked.packages)
    part = debian.open_root(unpacked.root, unpacked.about, needed)
    layer = _layer(job, DEBIAN, part.items, advance)
    libraries = frozenset(posixpath.basename(item.path) for item in part.items)
    linked = {i.path: needs(i.read()) for i in part.items if i.entry.kind == "file"}
    return _LowerLayers((layer,), unpacked.packages, part.dropped, libraries, linked, {})
