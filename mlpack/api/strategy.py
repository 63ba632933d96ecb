"""How a release carries its model: the whole of it, or a patch to the one in its anchor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mlpack.errors import MlpackError, UsageError
from mlpack.model.lock import Lock, LockedPlatform
from mlpack.model.version import ModelVersion
from mlpack.oci.digest import Digest
from mlpack.oci.image import Image, append
from mlpack.plan.engines import DeviceState, Engine
from mlpack.plan.patching import Choice, Meant, choose, sides, too_small
from mlpack.plan.transfer import Link
from mlpack.stores.models import ModelStore
from mlpack.stores.patches import (
    Anchor,
    PatchLayer,
    anchor_images,
    find_target,
    make_patch_layer,
    same_platforms,
)
from mlpack.stores.project import Project
from mlpack.stores.records import read_record
from mlpack.stores.releases import (
    CONTENT,
    MODEL,
    VERSION,
    check_free,
    measure_model_layer,
    model_env,
    model_labels,
)

PATCHES = 1
"""The version of patches that is made (docs/patch-format.md)."""


SMALL = "patches of a model this small spare less than one more layer costs"


class NoPatch(MlpackError):
    """A patch that was asked for and cannot be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Without:
    """Why there is no anchor to make a patch against."""

    why: str
    hint: str = ""
    due: bool = False
    """Whether the release that is made instead shall be the anchor."""


Cohorts = Callable[[Anchor, ModelVersion], Sequence[Meant]]
"""Says which devices a release of the version is for, once its anchor is known."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for, and by what it is judged."""

    strategy: str = "auto"
    engine: Engine
    link: Link
    cohorts: Cohorts | None = None
    """The devices that count; those on the anchor where it is not said."""

    patchable: bool = True
    """Whether the builder's layers are the same bytes on every machine."""

    advance: Callable[[int], object] = lambda _: None


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What was decided; ``patched`` are the release's images where it is a patch release."""

    choice: Choice
    anchor: Anchor | None = None
    patch: PatchLayer | None = None
    patched: tuple[Image, ...] = ()


def settle(
    project: Project,
    lock: Lock | None,
    model: ModelVersion,
    chosen: Sequence[LockedPlatform],
    bases: Sequence[Image],
    order: Order,
) -> Settled:
    """Decide how ``model`` is released on ``bases``; nothing is kept in the store yet.

    ``lock`` is ``None`` where no file could name an anchor. Raises :class:`NoPatch` where a
    patch is asked for and cannot be made.
    """
    wanted = order.strategy
    standing = _standing(project, model, bases) if wanted == "auto" else None
    anchor = _anchor(project, lock, model, chosen, bases, order, standing)
    if isinstance(anchor, Without):
        if wanted == "patch":
            raise NoPatch(f"{model} cannot be a patch release: {anchor.why}", hint=anchor.hint)
        return Settled(choice=Choice(strategy="layer", why=anchor.why, anchors=anchor.due))
    if wanted == "layer":
        return Settled(choice=Choice(strategy="layer", why="asked for"), anchor=anchor)
    if standing == "layer":
        why = f"{model} is released with its layer already, and stays the same"
        return Settled(choice=Choice(strategy="layer", why=why), anchor=anchor)
    return _compare(project, model, bases, anchor, order)


def due(order: Order, choice: Choice, base: Image, release: Image) -> bool:
    """Whether the release by layer becomes the anchor of its model.

    Where nobody asks for patches, a model too small for them needs none, and its lock stays.
    """
    if not choice.anchors:
        return False
    return order.strategy == "layer" or not too_small(order.engine, order.link, base, release)


def small(choice: Choice) -> Choice:
    """The choice of a release that would be the anchor if its model were not too small for one."""
    return replace(choice, why=SMALL, anchors=False) if choice.anchors else choice


def _compare(
    project: Project,
    model: ModelVersion,
    bases: Sequence[Image],
    anchor: Anchor,
    order: Order,
) -> Settled:
    """Make the patch, measure the layer, and choose."""
    whole = measure_model_layer(project.layout, model)
    env, labels = model_env(model), model_labels(model)
    full = [append(each, whole, env=env, labels=labels) for each in bases]
    if order.strategy == "auto" and too_small(order.engine, order.link, bases[0], full[0]):
        return Settled(choice=Choice(strategy="layer", why=SMALL, layer=whole), anchor=anchor)
    made = make_patch_layer(project.layout, model, anchor.model, order.advance)
    patched = tuple(append(each, made.layer, env=env, labels=labels) for each in anchor.images)
    meant = order.cohorts(anchor, model) if order.cohorts else ()
    found = sides(order.engine, order.link, meant or (_on(anchor),), full, patched)
    choice = choose(whole, made.layer, found)
    if order.strategy == "patch":
        choice = replace(choice, strategy="patch", why="asked for", anchors=False)
    if choice.strategy == "layer":
        return Settled(choice=choice, anchor=anchor)
    return Settled(choice=choice, anchor=anchor, patch=made, patched=patched)


def _on(anchor: Anchor) -> Meant:
    return Meant(holds=str(anchor.model), devices=1, state=DeviceState.holding(anchor.images[0]))


def _standing(
    project: Project, model: ModelVersion, bases: Sequence[Image]
) -> Digest | Literal["layer"] | None:
    """How this version is released on these bases already: with its layer, or on which anchor.

    Building again gives the same release, whatever the anchor of later ones is.
    """
    target = check_free(project.layout, model.name, model.version)
    held = anchor_images(project.layout, target) if target else ()
    if target is None or any(each.labels.get(CONTENT) != str(model.digest) for each in held):
        return None
    if same_platforms(held, bases):
        return "layer"
    anchor = read_record(project.layout, target).get("anchor")
    return Digest.parse(anchor) if isinstance(anchor, str) else None


def _anchor(
    project: Project,
    lock: Lock | None,
    model: ModelVersion,
    chosen: Sequence[LockedPlatform],
    bases: Sequence[Image],
    order: Order,
    standing: Digest | Literal["layer"] | None,
) -> Anchor | Without:
    """The anchor of the model, on the platforms asked for; or why there is none."""
    if not order.patchable:
        return Without(
            why="patches are made by mlpack's own builder", hint="build it with: --builder oci"
        )
    if lock is None:
        return Without(
            why="this project has no mlpack.lock that could name an anchor",
            hint="build a base of its own with: mlpack base build",
        )
    if any(each.patches < PATCHES for each in chosen):
        return Without(
            why="the runtime in the locked base applies no patches",
            hint="make a new base, which every device fetches once: mlpack base build",
        )
    named = lock.anchors.get(model.name)
    if named is None:
        return Without(
            why=f"{model.name} has no anchor yet",
            hint="make one, which devices fetch whole: mlpack build --strategy layer",
            due=True,
        )
    if isinstance(standing, Digest) and standing != named:
        before = _held(project, standing, model, bases)
        if isinstance(before, Anchor):
            return before
    return _held(project, named, model, bases)


def _held(
    project: Project, digest: Digest, model: ModelVersion, bases: Sequence[Image]
) -> Anchor | Without:
    """The anchor called ``digest``, with the version it holds."""
    target = find_target(project.layout, digest)
    held = anchor_images(project.layout, target) if target else ()
    if target is None or not held:
        place = project.recipe.repository
        where = str(place.pinned(digest)) if place else f"REPOSITORY@{digest}"
        return Without(
            why=f"the anchor {digest.short} is not in this store",
            hint=f"bring it here first: mlpack pull {where}",
        )
    fitting = same_platforms(held, bases)
    if not fitting:
        return Without(
            why=f"the anchor {digest.short} is on another base, or lacks a platform",
            hint="make a new one, which devices fetch whole: mlpack build --strategy layer",
            due=len(bases) >= len(held),
        )
    found = _version(project, fitting[0])
    if found is None:
        labels = fitting[0].labels
        return Without(
            why=f"the model of the anchor ({labels.get(MODEL)}:{labels.get(VERSION)}) is not "
            "in this store",
            hint="register its files again, the same ones, with: mlpack register",
        )
    if found.digest == model.digest:
        return Without(why=f"{model} is the anchor itself", hint="it is whole: build it as it is")
    return Anchor(target=target, images=fitting, model=found)


def _version(project: Project, anchor: Image) -> ModelVersion | None:
    """The version in the anchor, by its content: here it may have another number."""
    labels = anchor.labels
    name, version = labels.get(MODEL, ""), labels.get(VERSION, "")
    models = ModelStore(project.layout)
    if name not in models.names():
        return None
    same = (each for each in models.versions(name) if str(each.digest) == labels.get(CONTENT))
    found = next(same, None)
    # Its folder in the image has the number it had then.
    return replace(found, version=version) if found else None


def keep_anchor(project: Project, seen: Lock, name: str, digest: Digest) -> bool:
    """Note in mlpack.lock that ``digest`` is the anchor of ``name``; return whether it changed.

    The caller holds the project. Where another process named one since ``seen`` was read,
    that one stays.
    """
    lock = project.lock()
    if lock.base.index != seen.base.index or lock.anchors.get(name) != seen.anchors.get(name):
        return False
    if lock.anchors.get(name) == digest:
        return False
    project.write_lock(replace(lock, anchors={**lock.anchors, name: digest}))
    return True


def check_strategy(text: str, builder: str) -> None:
    """Refuse a patch of a builder that gives other bytes each time."""
    if text == "patch" and builder != "oci":
        raise UsageError(
            f"--strategy patch works with --builder oci, not with {builder}",
            hint="leave --builder out",
        )
