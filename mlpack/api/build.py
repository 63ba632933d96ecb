"""``mlpack build``: a model version on the locked base, as one more layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from mlpack.api.strategy import Cohorts, Order, Settled, due, keep_anchor, settle, small
from mlpack.builders.builder import Builder, OciBuilder
from mlpack.errors import MlpackError
from mlpack.model.lock import Lock, LockedPlatform
from mlpack.model.opsets import unsupported
from mlpack.model.requirements import (
    Disagreement,
    InvalidRequirements,
    disagreements,
    on_gpu,
    parse_requirements,
)
from mlpack.model.version import ModelVersion
from mlpack.oci.descriptor import Descriptor, Platform
from mlpack.oci.digest import Digest
from mlpack.oci.image import Image, Layer
from mlpack.oci.index import Index
from mlpack.oci.reference import Reference
from mlpack.plan.engines import DeviceState, engine
from mlpack.plan.patching import Choice
from mlpack.plan.transfer import Link, Transfer, transfer
from mlpack.stores.base import Corrupt, NotFound, read_image
from mlpack.stores.ledger import Ledger, ReleaseRecord
from mlpack.stores.models import ModelStore
from mlpack.stores.project import Project, read_text
from mlpack.stores.releases import (
    identity,
    keep_release,
    release_tag,
)
from mlpack.stores.remote_base import remember_base

if TYPE_CHECKING:
    from mlpack.api.remote_base import RemoteBase

NEW_BASE = (
    "make a new base, which every device fetches once: mlpack base build; "
    "or put back what was changed"
)


class BaseDisagrees(MlpackError):
    """The locked base is not the one this release asks for; building on it would ship a lie."""

    hint = NEW_BASE


class UnsupportedModel(MlpackError):
    """A model that the onnxruntime of the base cannot load."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """What ``mlpack build`` made."""

    version: ModelVersion
    target: Descriptor
    """The image, or the index where the release is for several platforms."""

    reference: str
    """The release by digest: in its registry where mlpack.toml names one, else by model name."""

    images: tuple[Image, ...]
    base: Descriptor
    transfer: Transfer
    """What a device on the base fetches, or on the anchor where it is a patch release; with the
    project's engine and link."""

    choice: Choice
    anchor: Digest | None = None
    """The anchor release: what a patch is made against, or what mlpack.lock names now."""

    anchored: bool = False
    """Whether this build made the release its model's anchor."""

    @property
    def strategy(self) -> str:
        """``layer`` or ``patch``."""
        return self.choice.strategy

    @property
    def layer(self) -> Layer:
        """The top layer: the same on every platform, but where Docker dates it."""
        return self.images[0].layers[-1]

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json build``."""
        return {
            "name": self.version.name,
            "version": self.version.version,
            "digest": str(self.target.digest),
            "reference": self.reference,
            "strategy": self.strategy,
            "why": self.choice.why,
            "anchor": str(self.anchor) if self.anchor else None,
            "anchored": self.anchored,
            "candidates": self.choice.to_json(),
            "base": str(self.base.digest),
            "layer": {
                "digest": str(self.layer.digest),
                "diff_id": str(self.layer.diff_id),
                "bytes": self.layer.size,
            },
            "platforms": {str(image.platform): str(image.digest) for image in self.images},
            "transfer": self.transfer.to_json(),
        }


def build(
    project: Project,
    name: str,
    version: str = "",
    *,
    platforms: Sequence[Platform] = (),
    builder: Builder | None = None,
    base: RemoteBase | None = None,
    strategy: str = "auto",
    cohorts: Cohorts | None = None,
    now: datetime,
    advance: Callable[[int], object] = lambda _: None,
) -> Release:
    """Put model ``name`` (its latest version where none is given) on the locked base.

    By ``layer``, or as a ``patch`` on the model's anchor, or (``auto``) by what the devices
    in ``cohorts`` fetch less of; those on the anchor, where none are given. The first release
    that is worth patching is noted as the anchor in mlpack.lock. ``advance`` is told bytes of
    the model that a patch is made for.

    Raises :class:`BaseDisagrees` where requirements, source or platforms are not
    the lock's, :class:`UnsupportedModel` where the base's onnxruntime cannot load
    the model, and names nothing in the store in any of these cases. ``builder`` makes
    the layer; this process, where none is given. ``base`` is one whose layers are in a
    registry; else the locked base is here.
    """
    lock = base.lock if base else project.lock()
    model = ModelStore(project.layout).get(name, version)
    chosen = _platforms(project, lock, platforms or (base.platforms if base else ()))
    if base is None or base.locked:
        _check_agreement(project, lock, chosen)
    _check_runtime(model, chosen)
    bases = [_base_image(project, locked) for locked in chosen]
    order = Order(
        strategy=strategy,
        engine=engine(project.recipe.device.engine),
        link=Link.of(project.recipe.device),
        cohorts=cohorts,
        patchable=builder is None or isinstance(builder, OciBuilder),
        advance=advance,
    )
    named = lock if base is None or base.locked else None
    settled = settle(project, named, model, chosen, bases, order)
    images = settled.patched or (builder or OciBuilder()).build(project.layout, model, bases)
    if settled.patch:
        settled.patch.keep(project.layout)
    return _keep(project, lock, base, model, bases, images, settled, order, now)


def _keep(
    project: Project,
    lock: Lock,
    base: RemoteBase | None,
    model: ModelVersion,
    bases: Sequence[Image],
    images: tuple[Image, ...],
    settled: Settled,
    order: Order,
    now: datetime,
) -> Release:
    """Name the release; note it in the ledger, and in the lock where it is the anchor now."""
    below = settled.anchor.target.digest if settled.patch and settled.anchor else None
    record = identity(lock, model, images, below, settled.choice.layer if below else None)
    with project.exclusive():
        target, index = keep_release(project.layout, model, images, record)
        if base is not None:
            place = _place_below(project, base, settled)
            remember_base(project.layout, release_tag(model.name, model.version), place)
        wanted = due(order, settled.choice, bases[0], images[0])
        anchored = wanted and keep_anchor(project, lock, model.name, target.digest)
        on = settled.anchor.images[0] if settled.patch and settled.anchor else bases[0]
        release = Release(
            version=model,
            target=target,
            reference=_reference(project, model, target),
            images=images,
            base=lock.base.index,
            transfer=_predict(project, on, images[0], index),
            choice=settled.choice if wanted else small(settled.choice),
            anchor=below or (target.digest if anchored else lock.anchors.get(model.name)),
            anchored=anchored,
        )
        Ledger(project.ledger).record_release(_entry(release, record, now))
    return release


def _place_below(project: Project, base: RemoteBase, settled: Settled) -> Reference:
    """Where the layers below the top one are: with the base, or with an anchor that is not here."""
    anchor, where = settled.anchor, project.recipe.repository
    if settled.patch is None or anchor is None or where is None:
        return base.place
    here = project.layout.exists(anchor.images[0].layers[-1].descriptor)
    return base.place if here else where.pinned(anchor.target.digest)


def _platforms(
    project: Project, lock: Lock, asked: Sequence[Platform]
) -> tuple[LockedPlatform, ...]:
    """The base's platforms to build for; all of mlpack.toml's where none is asked for."""
    wanted = tuple(dict.fromkeys(asked)) or project.recipe.base.platforms
    found = [(platform, lock.base.on(platform)) for platform in wanted]
    missing = ", ".join(str(platform) for platform, locked in found if locked is None)
    if missing:
        held = ", ".join(str(each.platform) for each in lock.base.platforms)
        raise BaseDisagrees(
            f"the base is for {held}; it has nothing for {missing}",
            hint="add it to [base] platforms in mlpack.toml and run: mlpack base build",
        )
    # Two names of one platform ask for one image.
    chosen = {locked.platform: locked for _, locked in found if locked is not None}
    return tuple(chosen.values())


def _check_agreement(project: Project, lock: Lock, chosen: Sequence[LockedPlatform]) -> None:
    wanted = project.recipe.base
    if wanted.source != lock.base.source:
        raise BaseDisagrees(
            f"mlpack.toml wants a base from {wanted.source}, mlpack.lock has {lock.base.source}"
        )
    if any(each.gpu != wanted.gpu for each in chosen):
        asked, held = ("with", "without") if wanted.gpu else ("without", "with")
        raise BaseDisagrees(f"mlpack.toml wants a base {asked} gpu, mlpack.lock has one {held}")
    file = project.path(wanted.requirements)
    if not file.is_file():
        raise BaseDisagrees(
            f"{wanted.requirements} is missing, and mlpack.lock was made from it",
            hint="restore the file, or name another in [base] requirements",
        )
    text = read_text(file, InvalidRequirements)
    requirements = parse_requirements(text, wanted.requirements)
    if wanted.gpu:
        requirements = on_gpu(requirements)
    found: dict[Disagreement, None] = {}
    for locked in chosen:
        found.update(dict.fromkeys(disagreements(requirements, locked, wanted.requirements)))
    if found:
        raise BaseDisagrees("; ".join(str(each) for each in found))


def _check_runtime(model: ModelVersion, chosen: Sequence[LockedPlatform]) -> None:
    for locked in chosen:
        reason = unsupported(model, locked.onnxruntime)
        if reason:
            raise UnsupportedModel(
                f"{model.name}:{model.version} cannot run on the base: {reason}",
                hint="export the model again for what the base's onnxruntime supports, "
                "or change onnxruntime in the requirements and run: mlpack base build",
            )


def _base_image(project: Project, locked: LockedPlatform) -> Image:
    try:
        image = read_image(project.layout, locked.manifest)
    except (NotFound, Corrupt) as error:
        raise BaseDisagrees(
            f"the locked base for {locked.platform} is not whole in this store ({error})",
            hint="make it from the lock: mlpack base build",
        ) from error
    if image.layers != tuple(each.layer for each in locked.layers):
        raise BaseDisagrees(f"the base for {locked.platform} has other layers than mlpack.lock")
    return image


def _reference(project: Project, model: ModelVersion, target: Descriptor) -> str:
    where = project.recipe.repository
    return str(where.pinned(target.digest)) if where else f"{model.name}@{target.digest}"


def _entry(release: Release, record: dict[str, object], now: datetime) -> ReleaseRecord:
    return ReleaseRecord(
        digest=release.target.digest,
        name=release.version.name,
        version=release.version.version,
        model_digest=release.version.digest,
        base_digest=release.base.digest,
        strategy=release.strategy,
        layer_digest=release.layer.digest,
        layer_bytes=release.layer.size,
        identity=record,
        created=now,
    )


def _predict(project: Project, base: Image, image: Image, index: Index | None) -> Transfer:
    device = project.recipe.device
    state = DeviceState.holding(base)
    return transfer(engine(device.engine), image, index, state, Link.of(device))
