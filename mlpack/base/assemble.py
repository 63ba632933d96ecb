"""Making a base: one platform after the other, one layer on the other."""

from __future__ import annotations

import posixpath
import tempfile
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from mlpack.base import content, debian, python
from mlpack.base.elf import needs
from mlpack.base.installed import PackagesPart, collect
from mlpack.base.items import Advance, Item, pack
from mlpack.base.mmdebstrap import Request, check_held, unpack
from mlpack.base.rules import Dropped
from mlpack.base.source import copy_layers, open_source, pin
from mlpack.base.wheels import Interpreter
from mlpack.model.lock import (
    DebianPackage,
    LockedBase,
    LockedLayer,
    LockedPackage,
    LockedPlatform,
)
from mlpack.model.recipe import BaseRecipe
from mlpack.oci import descriptor as media
from mlpack.oci.compression import PACKING
from mlpack.oci.descriptor import Platform
from mlpack.oci.image import Image, build_image
from mlpack.oci.index import build_index
from mlpack.runtime.patch.container import VERSION as PATCHES
from mlpack.stores.base import StagingStore, put_bytes, put_image

if TYPE_CHECKING:
    from mlpack.stores.registries import Registries

DEBIAN = "debian"
_DEBIAN_PYTHON = Interpreter(
    "usr/bin/python3.11", (3, 11), 36, "usr/local/lib/python3.11/dist-packages"
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that making a base needs to know and to use."""

    recipe: BaseRecipe
    requirements: tuple[Requirement, ...]
    root: Path
    """Where relative paths in the recipe start."""

    store: StagingStore
    advance: Advance
    held: LockedBase | None = None
    """A base made before, whose versions are kept where they still fit."""

    exact: bool = False
    """Whether exactly the packages in ``held`` are used."""

    registries: Registries | None = None
    """Where the image is read from, if the recipe names one in a registry."""


@dataclass(frozen=True, slots=True)
class MissingLibrary:
    """A shared object of the base linked to a library that the base does not have."""

    path: str
    library: str


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """One platform's base, and what is to be said about it."""

    locked: LockedPlatform
    image: Image
    dropped: tuple[Dropped, ...]
    missing: tuple[MissingLibrary, ...]


@dataclass(frozen=True)
class _Below:
    """What the packages are put on: Debian's files, or the layers of an image."""

    layers: tuple[LockedLayer, ...]
    debian: tuple[DebianPackage, ...]
    dropped: tuple[Dropped, ...]
    libraries: frozenset[str]
    needs: Mapping[str, tuple[str, ...]]
    env: Mapping[str, str]


def assemble(job: Job) -> tuple[LockedBase, tuple[Assembled, ...]]:
    """Make the base for all platforms of ``job``, at the same time, and put it into the store.

    The caller names it; nothing in the store changes its name here.
    """
    stop = threading.Event()

    def advance(count: int) -> None:
        if stop.is_set():
            raise InterruptedError("another platform's base failed")
        job.advance(count)

    platforms = job.recipe.platforms
    same = job.held is not None and job.held.source == job.recipe.source
    # Once, and before the threads: a tag may move between one platform and the next.
    pinned = pin(job.recipe.source, job.held.pinned if job.held and same else "", job.registries)
    with ThreadPoolExecutor(len(platforms), thread_name_prefix="base") as pool:
        running = [pool.submit(_platform, job, platform, pinned, advance) for platform in platforms]
        try:
            # Not in their order: a platform that fails is noticed while another goes on.
            wait(running, return_when=FIRST_EXCEPTION)
            made = tuple(each.result() for each in running if each.done())
        except BaseException:
            # Also on an interrupt: the other threads end at their next step.
            stop.set()
            raise
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


def _platform(job: Job, platform: Platform, pinned: str, advance: Advance) -> Assembled:
    with tempfile.TemporaryDirectory(prefix="mlpack-base-") as name:
        folder, wheels = Path(name), Path(name) / "wheels"
        if job.recipe.source.partition(":")[0] == DEBIAN:
            interpreter = _DEBIAN_PYTHON
            packages, part = _packages(job, python.Target(platform, interpreter), wheels, advance)
            below = _debian(job, platform, part.needed, folder, advance)
        else:
            place = pinned or job.recipe.source
            source = open_source(place, job.root, platform, job.registries)
            # Copied before it is looked into: from a registry each byte comes once.
            copied = copy_layers(source, job.store)
            found = source.inspect(job.store, copied)
            interpreter = found.interpreter
            packages, part = _packages(job, python.Target(platform, interpreter), wheels, advance)
            layers = tuple(LockedLayer("source", each) for each in copied)
            below = _Below(layers, (), (), found.libraries, {}, source.image.env)
        above = (
            ("packages", part.items),
            ("runtime", content.runtime_items(interpreter)),
            ("entry", content.entry_items(platform, job.recipe.source, packages)),
        )
        layers = (*below.layers, *(_layer(job, role, items, advance) for role, items in above))
    config = content.config(platform, interpreter, below.env, gpu=job.recipe.gpu)
    image = build_image(config, [each.layer for each in layers])
    return Assembled(
        locked=LockedPlatform(
            platform=platform,
            manifest=put_image(job.store, image),
            layers=layers,
            python=packages,
            debian=below.debian,
            patches=PATCHES,
        ),
        image=image,
        dropped=(*below.dropped, *part.dropped),
        missing=missing_libraries({**below.needs, **part.needs}, below.libraries, part.items),
    )


def missing_libraries(
    needed: Mapping[str, tuple[str, ...]], libraries: frozenset[str], items: Iterable[Item]
) -> tuple[MissingLibrary, ...]:
    """What a loader would not find: libraries are looked up by file name, wherever they lie."""
    there = libraries | {posixpath.basename(item.path) for item in items}
    return tuple(
        MissingLibrary(path, library)
        for path, names in needed.items()
        for library in names
        if library not in there
    )


def _layer(job: Job, role: str, items: Iterable[Item], advance: Advance) -> LockedLayer:
    return LockedLayer(role, pack(job.store, items, advance))


def _packages(
    job: Job, target: python.Target, folder: Path, advance: Advance
) -> tuple[tuple[LockedPackage, ...], PackagesPart]:
    held = job.held.on(target.platform) if job.held else None
    if job.exact and held:
        chosen = held.python
    else:
        kept = held.python if held else ()
        chosen = python.resolve(job.requirements, target, kept, gpu=job.recipe.gpu)
    python.install(chosen, target, folder)
    return chosen, collect(folder, target.python.directory, advance)


def _debian(
    job: Job, platform: Platform, needed: frozenset[str], folder: Path, advance: Advance
) -> _Below:
    held = job.held.on(platform) if job.held else None
    request = Request(
        suite=debian.check_suite(job.recipe.source.partition(":")[2]),
        architecture=platform.architecture,
        packages=(*debian.MINIMUM, *job.recipe.packages),
        mirror=job.recipe.mirror,
        held=held.debian if held else (),
    )
    unpacked = unpack(request, folder, advance)
    if job.exact and held:
        check_held(request, unpacked.packages)
    part = debian.open_root(unpacked.root, unpacked.about, needed)
    layer = _layer(job, DEBIAN, part.items, advance)
    libraries = frozenset(posixpath.basename(item.path) for item in part.items)
    linked = {i.path: needs(i.read()) for i in part.items if i.entry.kind == "file"}
    return _Below((layer,), unpacked.packages, part.dropped, libraries, linked, {})
