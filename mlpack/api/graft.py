"""``mlpack graft``: what another tool built anew, as one small layer on what devices hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from mlpack import __version__
from mlpack.api.diff import OtherPlatform
from mlpack.api.graft_target import open_graft_target
from mlpack.errors import MlpackError, UsageError
from mlpack.model.recipe import NONE, DeviceRecipe
from mlpack.oci.compression import PACKING
from mlpack.oci.descriptor import Descriptor, Platform
from mlpack.oci.difference import Difference
from mlpack.oci.image import Image, Layer
from mlpack.oci.index import Index, build_index
from mlpack.plan.engines import DeviceState, Engine
from mlpack.plan.engines import engine as known_engine
from mlpack.plan.graft import Choice, choose
from mlpack.plan.transfer import Link, transfer
from mlpack.stores.base import images, put_bytes, put_image
from mlpack.stores.copy import FirstOf, copy
from mlpack.stores.grafting import Advance, make_graft
from mlpack.stores.layout import LayoutStore
from mlpack.stores.ledger import ReleaseRecord
from mlpack.stores.project import Project
from mlpack.stores.references import Found, find_image
from mlpack.stores.registries import Registries
from mlpack.stores.registry import RegistryStore


class NotLinux(MlpackError):
    """Layers of Windows hold other things than files."""

    hint = "mlpack grafts images for linux"


@dataclass(frozen=True, kw_only=True)
class PlatformGraft:
    """What was chosen for one platform, and why."""

    old: Image
    new: Image
    choice: Choice
    layer: Layer | None
    """What the graft adds; ``None`` where the file systems are equal."""

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
        self, index: Index | None, new: Index | None, rule: Engine, link: Link
    ) -> PlatformGraft:
        """With the cost of the index that names it, and of that which names NEW."""
        state, choice = DeviceState.holding(self.old), self.choice
        whole = transfer(rule, self.new, new, state, link)
        if choice.strategy == "new":
            return replace(self, choice=replace(choice, new=whole))
        ours = transfer(rule, choice.image, index, state, link)
        return replace(self, choice=replace(choice, graft=ours, new=whole))

    def to_json(self) -> dict[str, object]:
        """One member of ``platforms`` in the command's document."""
        layer = self.layer if self.choice.strategy == "graft" else None
        return {
            "digest": str(self.choice.image.digest),
            "strategy": self.choice.strategy,
            "why": self.choice.why,
            "old": str(self.old.digest),
            "new": str(self.new.digest),
            "layer": {
                "digest": str(layer.digest),
                "diff_id": str(layer.diff_id),
                "bytes": layer.size,
            }
            if layer
            else None,
            "paths": {
                "added": self.difference.added,
                "changed": self.difference.changed,
                "removed": self.difference.removed,
            },
            "transfer": self.choice.transfer.to_json(),
            "transfer_new": self.choice.new.to_json(),
            "transfer_graft": self.choice.graft.to_json() if self.choice.graft else None,
        }


@dataclass(frozen=True, kw_only=True)
class Graft:
    """What was published, on every platform."""

    reference: str
    release: str
    """``NAME:VERSION`` where it is one of this project, else empty."""

    target: Descriptor
    platforms: tuple[PlatformGraft, ...]
    left_out: tuple[Platform, ...]
    """Platforms of NEW that OLD has no image for."""

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json graft``."""
        return {
            "reference": self.reference,
            "release": self.release or None,
            "digest": str(self.target.digest),
            "platforms": {str(each.platform): each.to_json() for each in self.platforms},
            "left_out": [str(each) for each in self.left_out],
        }


def graft(
    project: Project | None,
    old: str,
    new: str,
    out: str,
    *,
    engine: str = "",
    platform: Platform | None = None,
    registries: Registries | None = None,
    advance: Advance = lambda _: None,
    now: datetime,
) -> Graft:
    """Publish at ``out`` what brings devices on ``old`` to ``new`` cheapest.

    That is, for each platform both have or only for ``platform``, ``old`` with one layer
    and ``new``'s settings, or ``new`` itself. Each tree is read back from what was written,
    and nothing is sent or named unless all are ``new``'s. ``out`` is ``NAME:VERSION`` in
    this project, ``oci:PATH:TAG``, or in a registry; a project's ledger keeps what was
    done. Raises :class:`NotLinux`, :class:`~mlpack.stores.grafting.Ungraftable`,
    :class:`~mlpack.api.diff.OtherPlatform`, and what finding and reading images raises.
    """
    reach = registries or Registries()
    target = open_graft_target(project, out, reach)
    device = project.recipe.device if project else DeviceRecipe()
    rule, link = known_engine(engine or device.engine), Link.of(device, target.place)
    if old == NONE:
        raise UsageError("a graft needs an image to stand on", hint="give OLD, not none")
    here, there = (find_image(project, each, platform, registries=reach) for each in (old, new))
    pairs, left_out = _pairs(here, there, platform)
    with TemporaryDirectory(prefix="mlpack-graft-") as name:
        work = LayoutStore(Path(name) / "oci")
        made = tuple(_one(work, pair, rule, link, advance) for pair in pairs)
        index = _index(made, None if left_out else there.index)
        root = index.descriptor if index else made[0].choice.image.descriptor
        if index:
            put_bytes(work, index.content, root.media_type)
        below = (layer.digest for each in made for layer in each.old.layers)
        source = FirstOf(work, here.store, there.store)
        copy(source, target.store, root, mount=target.mount(here, below))
        priced = (each.under(index, there.index, rule, link) for each in made)
        done = Graft(
            reference=target.reference(root),
            release=target.release,
            target=root,
            platforms=tuple(priced),
            left_out=left_out,
        )
        target.name_it(root, _identity(done), _entry(done, now))
    return done


def _pairs(
    old: Found, new: Found, platform: Platform | None
) -> tuple[tuple[tuple[Found, Found], ...], tuple[Platform, ...]]:
    """What is grafted on what, and the platforms of NEW that OLD lacks."""
    news, olds = (
        (each.image,) if platform else images(each.store, each.target) for each in (new, old)
    )
    found, left_out = [], []
    for image in news:
        held = next((each for each in olds if each.platform.fits(image.platform)), None)
        if held is None:
            left_out.append(image.platform)
            continue
        if image.platform.os != "linux":
            raise NotLinux(f"{new.name} is for {image.platform}")
        found.append((replace(old, image=held), replace(new, image=image)))
    if not found:
        ours, theirs = (", ".join(str(each.platform) for each in some) for some in (olds, news))
        raise OtherPlatform(f"{old.name} is for {ours}, {new.name} for {theirs}")
    return tuple(found), tuple(left_out)


def _one(
    work: LayoutStore, pair: tuple[Found, Found], rule: Engine, link: Link, advance: Advance
) -> PlatformGraft:
    old, new = (_near(each, work) for each in pair)
    made = make_graft(work, old, new, advance)
    choice = choose(old.image, new.image, made.image, rule, link)
    if choice.strategy == "graft":
        made.check(work)
    put_image(work, choice.image)
    return PlatformGraft(
        old=old.image,
        new=new.image,
        choice=choice,
        layer=made.layer,
        difference=made.difference,
    )


def _near(found: Found, work: LayoutStore) -> Found:
    """``found``, brought here where it is in a registry: its layers are read more than once."""
    if not isinstance(found.store, RegistryStore):
        return found
    copy(found.store, work, found.image.descriptor)
    return replace(found, store=work)


def _index(made: Sequence[PlatformGraft], new: Index | None) -> Index | None:
    """What names all the images; NEW's own index where each of them is NEW's."""
    if len(made) == 1:
        return None
    if new is not None and all(each.choice.strategy == "new" for each in made):
        return new
    return build_index([each.choice.image for each in made])


def _identity(done: Graft) -> dict[str, object]:
    """What the graft's bytes came from."""
    return {
        "old": {str(each.platform): str(each.old.digest) for each in done.platforms},
        "new": {str(each.platform): str(each.new.digest) for each in done.platforms},
        "images": {str(each.platform): str(each.choice.image.digest) for each in done.platforms},
        "strategy": {str(each.platform): each.choice.strategy for each in done.platforms},
        "packing": PACKING.to_json(),
        "mlpack": __version__,
    }


def _entry(done: Graft, now: datetime) -> ReleaseRecord:
    """The ledger's line: of several platforms the first stands for the layer and for OLD."""
    name, _, version = (done.release or done.reference).rpartition(":")
    first = done.platforms[0]
    graft = any(each.choice.strategy == "graft" for each in done.platforms)
    return ReleaseRecord(
        digest=done.target.digest,
        name=name,
        version=version,
        model_digest=first.new.digest,
        base_digest=first.old.digest,
        strategy="graft" if graft else "new",
        layer_digest=first.choice.image.layers[-1].digest,
        layer_bytes=sum(layer.size for layer in first.added),
        identity=_identity(done),
        created=now,
    )
