"""How a release carries its model: whole, packed, or as a patch to the one in its anchor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from mlpack.errors import MlpackError, UsageError
from mlpack.humanize import share
from mlpack.model.lock import PATCH_FORMATS, Lock, LockedPlatform
from mlpack.model.version import ModelVersion
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest
from mlpack.oci.image import Image, Layer, append
from mlpack.plan.engines import DeviceState, EngineRule, Link
from mlpack.plan.release_strategy import (
    LEAST_PERCENT,
    TOLERATED,
    DeviceTransfers,
    ExpectedSizes,
    Strategy,
    StrategyDecision,
    TargetDevices,
    above_limit,
    choose,
    choose_whole,
    compare_transfers,
    too_small,
)
from mlpack.project.directory import ModelStore, ProjectDirectory
from mlpack.project.releases import check_free, measure_model_layer, model_env, model_labels
from mlpack.stores.records import CONTENT, MODEL, PACKED, VERSION, read_record

if TYPE_CHECKING:
    from mlpack.api.session import Step
    from mlpack.project.patch_releases import Anchor, MadeLayer

SMALL = "a patch of a model this small saves less than its additional layer costs"

_MEASURED = 1024 * 1024
"""Bytes of a model up to which its layers are made and measured, without an estimate."""


class NoPatch(MlpackError):
    """A requested patch or packed model that cannot be made, or that the base cannot apply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoAnchor:
    """Why there is no anchor to make a patch against."""

    why: str
    hint: str = ""
    due: bool = False
    """Whether the release that is made instead becomes the anchor."""


Cohorts = Callable[["Anchor", ModelVersion], Sequence[TargetDevices]]
"""Returns the devices that a release of the version is for, once its anchor is known."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is released: a model version on the images of a base."""

    project: ProjectDirectory
    lock: Lock | None
    """``None`` if no file could name an anchor."""

    model: ModelVersion
    platforms: Sequence[LockedPlatform]
    bases: Sequence[Image]


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """The requested strategy, and what decides if that is ``auto``."""

    strategy: str = "auto"
    effort: str = "default"
    """How long patches and packed models may take to make: one of :data:`~mlpack.kinds.EFFORTS`."""

    engine: EngineRule
    link: Link
    cohorts: Cohorts | None = None
    """The devices that count; those on the anchor if ``None``."""

    patchable: bool = True
    """Whether the builder's layers are the same bytes on every machine."""

    step: Callable[[str], AbstractContextManager[Step]]
    """Reports the progress of the strategy that is tried, in bytes of the model."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided; ``layer`` and ``images`` are the release's unless a builder makes them."""

    choice: StrategyDecision
    anchor: Anchor | None = None
    layer: MadeLayer | None = None
    images: tuple[Image, ...] = ()

    @property
    def below(self) -> Anchor | None:
        """The anchor that the release is a patch to, if it is one."""
        return self.anchor if self.choice.strategy == "patch" else None


def decide_strategy(subject: Subject, criteria: Criteria) -> Decision:
    """Decide how the model is released on its bases; nothing is kept in the store yet.

    Raises :class:`NoPatch` if a patch or packed model is requested and cannot be made or applied.
    """
    model, requested = subject.model, criteria.strategy
    released = _released(subject) if requested == "auto" else None
    anchor = _anchor(subject, criteria, released)
    obstacle = _obstacle(subject, criteria)
    candidates = _Candidates(subject, criteria, anchor)
    if requested == "patch":
        if isinstance(anchor, NoAnchor):
            raise NoPatch(f"{model} cannot be a patch release: {anchor.why}", hint=anchor.hint)
        return candidates.patch(anchor)
    if requested == "packed" and obstacle:
        raise NoPatch(f"{model} cannot be packed: {obstacle.why}", hint=obstacle.hint)
    if obstacle or requested == "layer" or released == "layer":
        return _by_layer(subject, criteria, anchor)
    return candidates.packed() if "packed" in (requested, released) else candidates.best()


def becomes_anchor(
    criteria: Criteria, choice: StrategyDecision, base: Image, release: Image
) -> bool:
    """Whether a layer or packed release becomes the anchor of its model.

    A model too small for patches needs no anchor unless its strategy was requested, and its lock
    stays.
    """
    if not choice.anchors:
        return False
    small = too_small(criteria.engine, criteria.link, base, release)
    return criteria.strategy != "auto" or not small


def without_anchor(choice: StrategyDecision) -> StrategyDecision:
    """The choice of a release that would be the anchor if its model were not too small for one."""
    return replace(choice, why=SMALL, anchors=False) if choice.anchors else choice


def _by_layer(subject: Subject, criteria: Criteria, anchor: Anchor | NoAnchor) -> Decision:
    """Release the model by its layer, without a comparison."""
    if isinstance(anchor, NoAnchor):
        hint = f": {anchor.hint}" if _obstacle(subject, criteria) and criteria.patchable else ""
        choice = StrategyDecision(strategy="layer", why=anchor.why + hint, anchors=anchor.due)
        return Decision(choice=choice)
    stays = f"{subject.model} is released with its layer already, and stays the same"
    why = "requested" if criteria.strategy == "layer" else stays
    return Decision(choice=StrategyDecision(strategy="layer", why=why), anchor=anchor)


class _Candidates:
    """The ways to release a model: what may pay is made and measured."""

    def __init__(self, subject: Subject, criteria: Criteria, anchor: Anchor | NoAnchor) -> None:
        self._subject = subject
        self._criteria = criteria
        self._without = anchor if isinstance(anchor, NoAnchor) else None
        self._anchor = None if isinstance(anchor, NoAnchor) else anchor
        self._size = sum(each.size for each in subject.model.files)
        self._made: dict[Strategy, MadeLayer] = {}
        self._layers: dict[Strategy, Layer] = {}
        self._images: dict[Strategy, tuple[Image, ...]] = {}

    def packed(self) -> Decision:
        """Release the packed model, unless it is larger than the layer."""
        layer, packed = self._measure_layer(), self._make_packed()
        due = bool(self._without and self._without.due)
        if packed is None or packed.size > layer.size + TOLERATED:
            part = share(packed.size, layer.size) if packed else "100 %"
            why = f"the packed model is {part} of the layer"
            return self._decision(self._choice("layer", why, anchors=due))
        stays = f"{self._subject.model} is released packed already, and stays the same"
        why = "requested" if self._criteria.strategy == "packed" else stays
        return self._decision(self._choice("packed", why, anchors=due))

    def patch(self, anchor: Anchor) -> Decision:
        """Release the patch."""
        self._measure_layer()
        choice = choose(self._whole(), self._make_patch(anchor), self._compared(anchor))
        return self._decision(replace(choice, strategy="patch", why="requested", anchors=False))

    def best(self) -> Decision:
        """Make what may pay, and choose by what devices fetch and how long they take to start."""
        expected, anchor = self._expected(), self._anchor
        small = anchor is not None and self._too_small(expected.layer)
        if anchor is None or small or not expected.patch_pays:
            return self._best_whole(expected, small=small)
        layer, patch = self._measure_layer(), self._make_patch(anchor)
        whole = min(layer.size, expected.packed) if expected.packing_pays else layer.size
        quick = self._size <= _MEASURED or self._criteria.cohorts
        if expected.packing_pays and (quick or above_limit(patch.size, whole)):
            self._make_packed()
        return self._decision(choose(self._whole(), patch, self._compared(anchor)))

    def _best_whole(self, expected: ExpectedSizes, *, small: bool) -> Decision:
        """Choose between the layer and the packed model, where no patch can pay."""
        why, anchors = SMALL, False
        if self._without:
            why, anchors = self._without.why, self._without.due
        elif not small:
            part = share(expected.patch, expected.layer)
            why, anchors = f"a patch is expected to take {part} of the layer", True
        if not expected.packing_pays:
            return self._decision(self._choice("layer", why, anchors=anchors))
        self._measure_layer()
        self._make_packed()
        whole = self._whole()
        return self._decision(replace(whole, why=f"{why}; {whole.why}", anchors=anchors))

    def _expected(self) -> ExpectedSizes:
        """Estimate the sizes of all layers; those of a small model are made and measured."""
        if self._size > _MEASURED:
            from mlpack.project.patch_releases import expected_sizes

            subject = self._subject
            return expected_sizes(subject.project.layout, subject.model, self._anchor)
        layer = self._measure_layer().size
        least = layer * LEAST_PERCENT // 100
        return ExpectedSizes(
            model=self._size, layer=layer, packed=layer, least_packed=least, patch=0
        )

    def _too_small(self, layer: int) -> bool:
        base = self._subject.bases[0]
        whole = Layer(Descriptor(media.LAYER_GZIP, Digest.of(b"a layer"), layer), Digest.of(b""))
        model = self._subject.model
        env, labels = model_env(model, base.env), model_labels(model)
        release = append(base, whole, env=env, labels=labels)
        return too_small(self._criteria.engine, self._criteria.link, base, release)

    def _measure_layer(self) -> Layer:
        if "layer" not in self._layers:
            with self._criteria.step("making the layer"):
                layer = measure_model_layer(self._subject.project.layout, self._subject.model)
            self._add("layer", layer, self._subject.bases)
        return self._layers["layer"]

    def _make_packed(self) -> Layer | None:
        """Make the packed model; return ``None`` if no file is smaller packed."""
        from mlpack.project.patch_releases import Encoding, make_packed_layer

        layout, model = self._subject.project.layout, self._subject.model
        with self._criteria.step("packing the model") as advance:
            made = make_packed_layer(layout, model, Encoding(self._criteria.effort, advance))
        if not made.labels:
            return None
        self._made["packed"] = made
        return self._add("packed", made.layer, self._subject.bases, made.labels)

    def _make_patch(self, anchor: Anchor) -> Layer:
        from mlpack.project.patch_releases import Encoding, make_patch_layer

        layout, model = self._subject.project.layout, self._subject.model
        with self._criteria.step(f"making the patch to {anchor.model}") as advance:
            made = make_patch_layer(layout, model, anchor, Encoding(self._criteria.effort, advance))
        self._made["patch"] = made
        return self._add("patch", made.layer, anchor.images)

    def _add(
        self,
        strategy: Strategy,
        layer: Layer,
        below: Sequence[Image],
        more: Mapping[str, str] | None = None,
    ) -> Layer:
        """Note the layer of a strategy, and the images with it on top."""
        model = self._subject.model
        every = {**model_labels(model), **(more or {})}
        self._layers[strategy] = layer
        self._images[strategy] = tuple(
            append(each, layer, env=model_env(model, each.env), labels=every) for each in below
        )
        return layer

    def _whole(self) -> StrategyDecision:
        return choose_whole(self._size, self._layers)

    def _compared(self, anchor: Anchor) -> tuple[DeviceTransfers, ...]:
        criteria = self._criteria
        devices = criteria.cohorts(anchor, self._subject.model) if criteria.cohorts else ()
        return compare_transfers(
            criteria.engine, criteria.link, devices or (_on(anchor),), self._images
        )

    def _choice(self, strategy: Strategy, why: str, *, anchors: bool) -> StrategyDecision:
        compared = self._layers if self._made else {}
        return StrategyDecision(strategy=strategy, why=why, anchors=anchors, layers=compared)

    def _decision(self, choice: StrategyDecision) -> Decision:
        made = self._made.get(choice.strategy)
        images = self._images[choice.strategy] if made else ()
        return Decision(choice=choice, anchor=self._anchor, layer=made, images=images)


def _on(anchor: Anchor) -> TargetDevices:
    return TargetDevices(
        holds=str(anchor.model), devices=1, state=DeviceState.holding(anchor.images[0])
    )


Released = Digest | Literal["layer", "packed"] | None
"""How a version is released already: on which anchor, or without one; ``None`` if it is not."""


def _released(subject: Subject) -> Released:
    """How this version is released on these bases already.

    Building again returns the same release, whatever the anchor of later ones is.
    """
    layout, model = subject.project.layout, subject.model
    target = check_free(layout, model.name, model.version)
    if target is None:
        return None
    from mlpack.project.patch_releases import anchor_images, same_platforms

    held = anchor_images(layout, target)
    if any(each.labels.get(CONTENT) != str(model.digest) for each in held):
        return None
    if same_platforms(held, subject.bases):
        return "packed" if any(PACKED in each.labels for each in held) else "layer"
    anchor = read_record(layout, target).get("anchor")
    return Digest.parse(anchor) if isinstance(anchor, str) else None


def _obstacle(subject: Subject, criteria: Criteria) -> NoAnchor | None:
    """Return why the model can only be released by its layer, if so."""
    if not criteria.patchable:
        return NoAnchor(
            why="patches are made by mlpack's own builder", hint="build it with: --builder oci"
        )
    if subject.lock is None:
        return NoAnchor(
            why="this project has no mlpack.lock that could name an anchor",
            hint="build a base of its own with: mlpack base build",
        )
    if not all(PATCH_FORMATS[-1] in each.patch_formats for each in subject.platforms):
        return NoAnchor(
            why=f"the runtime in the locked base applies no patches of format {PATCH_FORMATS[-1]}",
            hint="make a new base, which every device fetches once: mlpack base build",
        )
    return None


def _anchor(subject: Subject, criteria: Criteria, released: Released) -> Anchor | NoAnchor:
    """Find the anchor of the model on the requested platforms, or why there is none."""
    name, obstacle = subject.model.name, _obstacle(subject, criteria)
    if obstacle or subject.lock is None:
        return obstacle or NoAnchor(why="")
    named = subject.lock.anchors.get(name)
    if named is None:
        return NoAnchor(
            why=f"{name} has no anchor yet",
            hint="make one, which devices fetch whole: mlpack build --strategy layer",
            due=True,
        )
    if isinstance(released, Digest) and released != named:
        before = _held(subject, released)
        if not isinstance(before, NoAnchor):
            return before
    return _held(subject, named)


def _held(subject: Subject, digest: Digest) -> Anchor | NoAnchor:
    """The anchor called ``digest``, with the version it holds."""
    from mlpack.project.patch_releases import Anchor, anchor_images, find_target, same_platforms

    project, bases, model = subject.project, subject.bases, subject.model
    target = find_target(project.layout, digest)
    held = anchor_images(project.layout, target) if target else ()
    if target is None or not held:
        place = project.settings.repository
        where = str(place.pinned(digest)) if place else f"REPOSITORY@{digest}"
        return NoAnchor(
            why=f"the anchor {digest.short} is not in this store",
            hint=f"bring it here first: mlpack pull {where}",
        )
    fitting = same_platforms(held, bases)
    if not fitting:
        return NoAnchor(
            why=f"the anchor {digest.short} is on another base, or lacks a platform",
            hint="make a new one, which devices fetch whole: mlpack build --strategy layer",
            due=len(bases) >= len(held),
        )
    found = _version(project, fitting[0])
    if found is None:
        labels = fitting[0].labels
        return NoAnchor(
            why=f"the model of the anchor ({labels.get(MODEL)}:{labels.get(VERSION)}) is not "
            "in this store",
            hint="register its files again, the same ones, with: mlpack register",
        )
    if found.digest == model.digest:
        return NoAnchor(why=f"{model} is the anchor itself", hint="it is whole: build it as it is")
    return Anchor(target=target, images=fitting, model=found)


def _version(project: ProjectDirectory, anchor: Image) -> ModelVersion | None:
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


def keep_anchor(project: ProjectDirectory, seen: Lock, name: str, digest: Digest) -> bool:
    """Write into mlpack.lock that ``digest`` is the anchor of ``name``; return if it changed.

    The caller holds the project. If another process named an anchor since ``seen`` was read,
    that one stays.
    """
    lock = project.lock()
    if lock.base.index != seen.base.index or lock.anchors.get(name) != seen.anchors.get(name):
        return False
    if lock.anchors.get(name) == digest:
        return False
    project.write_lock(replace(lock, anchors={**lock.anchors, name: digest}))
    return True


def check_strategy(strategy: str, builder: str) -> None:
    """Refuse a patch or packed model by a builder whose layers have other bytes each time."""
    if strategy in ("patch", "packed") and builder != "oci":
        raise UsageError(
            f"--strategy {strategy} works with --builder oci, not with {builder}",
            hint="leave --builder out",
        )
