"""``mlpack graft``: an image that another tool built, as one small layer on what devices hold.

It goes to a release of this project, a layout, or a registry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlpack import __version__
from mlpack.api.copy import open_target, reference, require_target
from mlpack.api.plan import OtherPlatform
from mlpack.errors import MlpackError, UsageError
from mlpack.interruptions import held_back
from mlpack.kinds import PLACES
from mlpack.model.version import AT, LATEST, NONE, parse_name
from mlpack.oci.descriptor import Descriptor, Platform, Reference
from mlpack.oci.difference import Difference
from mlpack.oci.image import Image, Index, Layer, build_index, in_oci
from mlpack.oci.layer import PACKING
from mlpack.oci.platforms import best, compatible
from mlpack.plan.engines import DeviceState, EngineRule, Link
from mlpack.plan.engines import engine as known_engine
from mlpack.plan.transfer import transfer
from mlpack.project.directory import ModelStore, ProjectDirectory
from mlpack.project.grafting import Advance, GraftDecision, choose, choose_taken, make_graft
from mlpack.project.ledger import Ledger, ReleaseRecord
from mlpack.project.references import FoundImage
from mlpack.project.releases import TagTaken, check_free, name_release
from mlpack.settings.project_settings import DeviceSettings
from mlpack.stores.copy import CopyOptions, DigestChange, FirstOf, copy, shown
from mlpack.stores.files import temporary_folder
from mlpack.stores.layout import LayoutStore
from mlpack.stores.records import RecordContent
from mlpack.stores.store import Remote, Store, images, manifests, put_bytes, put_image

if TYPE_CHECKING:
    from mlpack.api.requests import Graft
    from mlpack.api.session import Session


@dataclass(frozen=True, kw_only=True)
class GraftTarget:
    """A store, and what the image will be called in it."""

    text: str
    project: ProjectDirectory | None
    store: Store
    tag: str = ""
    release: str = ""
    """``NAME:VERSION`` if it is a release of the project."""

    @property
    def place(self) -> Reference | None:
        """The repository that devices will pull it from, if known."""
        if isinstance(self.store, Remote):
            return self.store.place
        return self.project.settings.repository if self.project else None

    def publish(
        self, root: Descriptor, identity: Mapping[str, object], entry: ReleaseRecord
    ) -> None:
        """Tag what the store holds by now, and record it in the project's ledger."""
        if self.project is not None and self.release:
            with self.project.exclusive(), held_back():
                name, version = parse_name(self.release)
                _check_same(self.project, name, version, root)
                content = RecordContent(identity)
                name_release(self.project.layout, (name, version), root, content, entry.created)
                Ledger(self.project.ledger).record_release(entry)
            return
        with held_back():
            if self.tag:
                self.store.tag(root, self.tag)
            if self.project is not None:
                Ledger(self.project.ledger).record_release(entry)


def open_graft_target(session: Session, text: str) -> GraftTarget:
    """Read ``text``: ``NAME:VERSION``, ``oci:PATH[:TAG]``, or a registry's.

    Raises :class:`UsageError`, and :class:`TagTaken` if the name is in use, before anything is
    read.
    """
    project = session.project_if_any
    if "/" in text or text.partition(":")[0] in PLACES:
        store, tag = open_target(session, text)
        return GraftTarget(text=text, project=project, store=store, tag=tag)
    name, version = parse_name(text)
    if version == LATEST or version.startswith(AT):
        raise UsageError(
            f"{text!r} lacks a version", hint=f"write it as {name}:VERSION, such as {name}:2"
        )
    if project is None:
        raise UsageError(
            f"{text!r} names a release, and there is no project here",
            hint="use -C DIR, or write oci:PATH:TAG, or REGISTRY/REPOSITORY:TAG",
        )
    check_free(project.layout, name, version)
    if ModelStore(project.layout).holds(name, version):
        raise TagTaken(
            f"{text} is a registered model, whose release mlpack build makes",
            hint="give the graft a version that no model has",
        )
    return GraftTarget(
        text=text, project=project, store=project.layout, release=f"{name}:{version}"
    )


def _check_same(project: ProjectDirectory, name: str, version: str, root: Descriptor) -> None:
    held = check_free(project.layout, name, version)
    if held is not None and held.digest != root.digest:
        raise TagTaken(
            f"{name}:{version} is already another image ({held.digest.short})",
            hint="choose another version: releases do not change",
        )


LINUX = "linux"


class NotLinux(MlpackError):
    """An image for Windows, whose layers are not file trees."""

    hint = "mlpack grafts images for linux"


@dataclass(frozen=True, kw_only=True)
class PlatformGraft:
    """What was chosen for one platform, and why."""

    old: Image
    new: Image
    choice: GraftDecision
    layer: Layer | None
    """What the graft adds; ``None`` if the file systems are equal."""

    difference: Difference

    @property
    def platform(self) -> Platform:
        """The platform."""
        return self.choice.image.platform

    @property
    def added(self) -> tuple[Layer, ...]:
        """The layers of what is published that OLD has not."""
        held = {layer.digest for layer in self.old.layers}
        return tuple(layer for layer in self.choice.image.layers if layer.digest not in held)

    def under(
        self, index: Index | None, new: Index | None, rule: EngineRule, link: Link
    ) -> PlatformGraft:
        """With the cost of the index that names it, and of that which names NEW."""
        state, choice = DeviceState.holding(self.old), self.choice
        whole = transfer(rule, self.new, new, state, link)
        if choice.strategy == "new":
            return replace(self, choice=replace(choice, new=whole))
        ours = transfer(rule, choice.image, index, state, link)
        return replace(self, choice=replace(choice, graft=ours, new=whole))

    def in_oci(self) -> PlatformGraft:
        """With OCI's media types: no index has members of both families."""
        return replace(self, choice=replace(self.choice, image=in_oci(self.choice.image)))

    def json_members(self) -> Mapping[str, object]:
        """One member of ``platforms`` in the command's document."""
        layer = self.layer if self.choice.strategy == "graft" else None
        found, choice = self.difference, self.choice
        return {
            "digest": choice.image.digest,
            "strategy": choice.strategy,
            "why": choice.why,
            "old": self.old.digest,
            "new": self.new.digest,
            "layer": layer
            and {"digest": layer.digest, "diff_id": layer.diff_id, "bytes": layer.size},
            "paths": {
                "added": found.added,
                "changed": found.changed,
                "removed": found.removed,
            },
            "transfer": choice.transfer,
            "transfer_new": choice.new,
            "transfer_graft": choice.graft,
            "refusals_old": choice.old_refusals,
            "refusals_new": choice.new_refusals,
            "refusals_graft": choice.graft_refusals,
        }


@dataclass(frozen=True)
class LeftOut:
    """An image of NEW that nothing is grafted for."""

    platform: Platform
    why: str
    """Such as ``OLD has no image for it``."""


@dataclass(frozen=True, kw_only=True)
class GraftResult:
    """What was published, on every platform."""

    reference: str
    release: str
    """``NAME:VERSION`` where it is one of this project, else empty."""

    target: Descriptor
    platforms: tuple[PlatformGraft, ...]
    left_out: tuple[LeftOut, ...]

    converted: DigestChange | None = None
    """How NEW's digest changed where NEW was written to a layout, if it did."""

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json graft``."""
        return {
            "reference": self.reference,
            "release": self.release or None,
            "digest": self.target.digest,
            "converted": self.converted,
            "platforms": {each.platform: each for each in self.platforms},
            "left_out": [each.platform for each in self.left_out],
        }


@dataclass(frozen=True)
class _Grafter:
    """Where layers are written, and by what an engine's devices are priced."""

    work: LayoutStore
    engine: EngineRule
    named: bool
    """Whether somebody named the engine."""

    link: Link
    advance: Advance

    def graft(self, pair: tuple[FoundImage, FoundImage]) -> PlatformGraft:
        """Write one platform's image, and check its file system."""
        old, new = (_near(each, self.work) for each in pair)
        made = make_graft(self.work, old, new, self.engine, self.advance)
        cheaper = choose(old.image, new.image, made.image, self.engine, self.link)
        choice = choose_taken(made, new.image, cheaper, named=self.named)
        if choice.strategy == "graft":
            made.check(self.work)
        return PlatformGraft(
            old=old.image,
            new=new.image,
            choice=choice,
            layer=made.layer,
            difference=made.difference,
        )


def graft(session: Session, request: Graft) -> GraftResult:
    """Publish what brings devices on ``old`` to ``new`` at the lowest cost.

    That is, for each platform both have or only for ``platform``, ``old`` with one layer
    and ``new``'s settings, or ``new`` itself. Each tree is read back from what was written,
    and nothing is sent or named unless all are ``new``'s. ``out`` is ``NAME:VERSION`` in
    this project, ``oci:PATH:TAG``, or in a registry; a project's ledger keeps what was
    done. What the devices' engine does not take is not published. Raises :class:`NotLinux`,
    :class:`~mlpack.project.grafting.Ungraftable`, :class:`~mlpack.plan.refusals.NotTaken`,
    :class:`~mlpack.api.plan.OtherPlatform`, and what finding and reading images raises.
    """
    project = session.project_if_any
    target = open_graft_target(session, request.out)
    device = project.settings.device if project else DeviceSettings()
    rule, link = known_engine(request.engine or device.engine), Link.of(device, target.place)
    sure = bool(request.engine) or (project is not None and project.settings.engine_named)
    if request.old == NONE:
        raise UsageError("a graft needs an image to build on", hint="name OLD instead of none")
    here, there = (session.find(each, request.platform) for each in (request.old, request.new))
    require_target(target.store, target.tag, here, there)
    pairs, left_out = _pairs(here, there, request.platform)
    with (
        temporary_folder("mlpack-graft-") as name,
        session.step("reading layers") as step,
    ):
        work = LayoutStore(name / "oci")
        grafter = _Grafter(work, rule, sure, link, step)
        made = tuple(grafter.graft(pair) for pair in pairs)
        made, index = _indexed(made, None if left_out else there.index, rule)
        root = index.descriptor if index else made[0].choice.image.descriptor
        for each in made:
            put_image(work, each.choice.image)
        if index:
            put_bytes(work, index.content, root.media_type)
        held = (layer.digest for each in made for layer in each.old.layers)
        mounts = dict.fromkeys(held, here.store.place) if isinstance(here.store, Remote) else {}
        source = FirstOf(work, here.store, there.store)
        copy(source, target.store, root, CopyOptions(mounts=mounts))
        priced = [each.under(index, there.index, rule, link) for each in made]
        as_held = shown(target.store, root)
        named = root if target.release else as_held
        done = GraftResult(
            reference=reference(target.store, request.out, root),
            release=target.release,
            target=named,
            platforms=tuple(each if named == root else each.in_oci() for each in priced),
            left_out=left_out,
            converted=DigestChange.between(root, as_held),
        )
        target.publish(root, _identity(done), _entry(session, done, root))
    return done


def _pairs(
    old: FoundImage, new: FoundImage, platform: Platform | None
) -> tuple[tuple[tuple[FoundImage, FoundImage], ...], tuple[LeftOut, ...]]:
    """What is grafted on what, and the images of NEW that are left out."""
    news, olds = (
        (each.image,) if platform else images(each.store, each.target) for each in (new, old)
    )
    found: dict[Platform, tuple[FoundImage, FoundImage]] = {}
    left_out = [] if platform else list(_absent(new, news))
    for image in news:
        held = _held_where(olds, image.platform)
        if image.platform.os != LINUX:
            left_out.append(LeftOut(image.platform, "only images for linux are grafted"))
        elif image.platform in found:
            left_out.append(LeftOut(image.platform, "NEW lists another image for it first"))
        elif held is None:
            left_out.append(LeftOut(image.platform, "OLD has no image for it"))
        else:
            found[image.platform] = (replace(old, image=held), replace(new, image=image))
    if not found:
        ours, theirs = (", ".join(str(each.platform) for each in some) for some in (olds, news))
        if all(image.platform.os != LINUX for image in news):
            raise NotLinux(f"{new.name} is for {theirs}")
        raise OtherPlatform(f"{old.name} is for {ours}, {new.name} for {theirs}")
    return tuple(found.values()), tuple(left_out)


def _held_where(olds: Sequence[Image], platform: Platform) -> Image | None:
    """What devices hold that take NEW's image for ``platform``."""
    if len(olds) == 1:
        return olds[0] if compatible(olds[0].platform, platform) else None
    number = best(platform, [each.platform for each in olds])
    return None if number is None else olds[number]


def _absent(new: FoundImage, news: Sequence[Image]) -> Iterator[LeftOut]:
    """Yield what NEW's index lists and its store does not hold."""
    held = {each.digest for each in news}
    for each in manifests(new.store, new.target):
        if each.platform and each.digest not in held:
            yield LeftOut(each.platform, f"{new.name} lists it without its image")


def _near(found: FoundImage, work: LayoutStore) -> FoundImage:
    """``found``, brought here where it is in a registry: its layers are read more than once."""
    if not isinstance(found.store, Remote):
        return found
    copy(found.store, work, found.image.descriptor)
    return replace(found, store=work)


def _indexed(
    made: tuple[PlatformGraft, ...], new: Index | None, rule: EngineRule
) -> tuple[tuple[PlatformGraft, ...], Index | None]:
    """The images, and what names them; NEW's own index where each is NEW's and ``rule`` takes it.

    No other index has images of both families of media types.
    """
    if len(made) == 1:
        return made, None
    if new is not None and all(
        each.choice.strategy == "new" and not rule.refusals(each.new, new) for each in made
    ):
        return made, new
    made = tuple(each.in_oci() for each in made)
    return made, build_index([each.choice.image for each in made])


def _identity(done: GraftResult) -> dict[str, object]:
    """What the graft's bytes came from."""
    return {
        "old": {str(each.platform): str(each.old.digest) for each in done.platforms},
        "new": {str(each.platform): str(each.new.digest) for each in done.platforms},
        "images": {str(each.platform): str(each.choice.image.digest) for each in done.platforms},
        "strategy": {str(each.platform): each.choice.strategy for each in done.platforms},
        "packing": PACKING.to_json(),
        "mlpack": __version__,
    }


def _entry(session: Session, done: GraftResult, root: Descriptor) -> ReleaseRecord:
    """The ledger's line: of several platforms the first stands for the layer and for OLD."""
    name, _, version = (done.release or done.reference).rpartition(":")
    first = done.platforms[0]
    graft = any(each.choice.strategy == "graft" for each in done.platforms)
    return ReleaseRecord(
        digest=root.digest,
        name=name,
        version=version,
        model_digest=first.new.digest,
        base_digest=first.old.digest,
        strategy="graft" if graft else "new",
        layer_digest=first.choice.image.layers[-1].digest,
        layer_bytes=sum(layer.size for layer in first.added),
        identity=_identity(done),
        created=session.clock.now(),
    )
