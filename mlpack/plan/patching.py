"""Whether a release carries its whole model, or a patch to the one in its anchor; and of what.

A patch costs the devices that lack the anchor one more layer, every device the rebuilding at
start, and saves the difference of two layers to those that hold the anchor. So it is chosen
where the devices meant fetch less in all, unless it is so large that a new anchor is due.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mlpack.model.version import ModelFile
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.digest import Digest
from mlpack.oci.image import Image, Layer, append
from mlpack.oci.index import build_index
from mlpack.plan.engines import DeviceState, Engine
from mlpack.plan.transfer import Link, Transfer, transfer
from mlpack.words import share, size

Strategy = Literal["layer", "patch"]
STRATEGIES = ("auto", "layer", "patch")
"""What may be asked for."""

LIMIT_PERCENT = 70
"""Share of the whole layer above which a patch is dropped, and a new anchor is due."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A file of a version, and the file of the anchor's version it is made of."""

    new: ModelFile
    old: ModelFile | None

    @property
    def same(self) -> bool:
        """Whether the anchor holds the very file."""
        return self.old is not None and self.old.digest == self.new.digest


def pairs(new: Iterable[ModelFile], old: Iterable[ModelFile]) -> tuple[Pair, ...]:
    """Find what each file is made of: the same content, the same path, or the only one left.

    The last is for names that change with the version: the one file of a kind that neither
    side could pair otherwise.
    """
    wanted, there = tuple(new), tuple(old)
    contents = {each.digest: each for each in there}
    paths = {each.path: each for each in there}
    found = {each.path: contents.get(each.digest) or paths.get(each.path) for each in wanted}
    left_new = [each for each in wanted if found[each.path] is None]
    used = {each.path for each in found.values() if each is not None}
    left_old = [each for each in there if each.path not in used]
    for each in left_new:
        ours = [file for file in left_new if _kind(file) == _kind(each)]
        theirs = [file for file in left_old if _kind(file) == _kind(each)]
        if len(ours) == len(theirs) == 1:
            found[each.path] = theirs[0]
    return tuple(Pair(each, found[each.path]) for each in wanted)


def _kind(file: ModelFile) -> str:
    return posixpath.splitext(file.path)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Devices in one state, and what each of them fetches of either release."""

    holds: str
    devices: int
    layer: Transfer
    patch: Transfer


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """Devices a release is for, before it is there; ``state`` is what they have."""

    holds: str
    devices: int
    state: DeviceState
    image: int = 0
    """Which of the release's images they run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The strategy of a release, and why."""

    strategy: Strategy
    why: str
    anchors: bool = False
    """Whether the release becomes its model's anchor."""

    layer: Layer | None = None
    """The layer with the whole model, where it was made or measured."""

    patch: Layer | None = None
    """The layer with the patch, where one was made."""

    sides: tuple[Side, ...] = ()

    def total(self, way: Strategy) -> int:
        """What all devices meant fetch by ``way``."""
        picked = [(s.layer if way == "layer" else s.patch, s.devices) for s in self.sides]
        return sum(moved.total * devices for moved, devices in picked)

    def to_json(self) -> dict[str, object]:
        """``candidates`` in the document of ``mlpack --json build``."""
        made = {"layer": self.layer, "patch": self.patch}
        return {
            way: {
                "bytes": layer.size,
                "devices_fetch": self.total(way) if self.sides else None,  # type: ignore[arg-type]
            }
            if layer
            else None
            for way, layer in made.items()
        }


def sides(
    engine: Engine,
    link: Link,
    meant: Iterable[Meant],
    layer: Sequence[Image],
    patch: Sequence[Image],
) -> tuple[Side, ...]:
    """What each device meant fetches of the release by layer, and of the one by patch."""

    def fetched(images: Sequence[Image], each: Meant) -> Transfer:
        index = build_index(images) if len(images) > 1 else None
        return transfer(engine, images[each.image], index, each.state, link)

    return tuple(
        Side(
            holds=each.holds,
            devices=each.devices,
            layer=fetched(layer, each),
            patch=fetched(patch, each),
        )
        for each in meant
    )


def choose(layer: Layer, patch: Layer, found: Sequence[Side]) -> Choice:
    """Decide between two releases that were both made.

    A patch above 70 % of the layer says that the model has moved on: the layer is taken, and
    is the anchor from now on, so that later patches are small again.
    """
    whole, part = layer.size, patch.size
    compared = f"the patch is {share(part, whole)} of the layer"
    made = Choice(strategy="patch", why="", layer=layer, patch=patch, sides=tuple(found))
    if part * 100 > whole * LIMIT_PERCENT:
        return Choice(
            strategy="layer",
            why=f"{compared}, more than {LIMIT_PERCENT} %",
            anchors=True,
            layer=layer,
            patch=patch,
            sides=made.sides,
        )
    by_layer, by_patch = made.total("layer"), made.total("patch")
    devices = sum(each.devices for each in found)
    of = "a device" if devices == 1 else f"{devices:,} devices"
    if by_patch < by_layer:
        why = f"{of} {'fetches' if devices == 1 else 'fetch'} {size(by_layer - by_patch)} less"
        return Choice(strategy="patch", why=why, layer=layer, patch=patch, sides=made.sides)
    why = f"{compared}, but {of} would fetch {size(by_patch - by_layer)} more with it"
    return Choice(strategy="layer", why=why, layer=layer, patch=patch, sides=made.sides)


def one_more_layer(engine: Engine, link: Link, base: Image, release: Image) -> int:
    """Bytes that one more layer costs a device on ``base``, even if it held nothing."""
    empty = Layer(Descriptor(media.LAYER_GZIP, Digest.of(b"a patch"), 0), Digest.of(b"a patch"))
    state = DeviceState.holding(base)
    stacked = transfer(engine, append(release, empty), None, state, link).total
    return stacked - transfer(engine, release, None, state, link).total


def too_small(engine: Engine, link: Link, base: Image, release: Image) -> bool:
    """Whether a model is so small that its patches are not worth having.

    The largest patch that is kept spares a device 30 % of the layer; where that is less than
    what one more layer costs the devices that must fetch one, a patch would only be in the way.
    """
    spared = release.layers[-1].size * (100 - LIMIT_PERCENT) // 100
    return spared < one_more_layer(engine, link, base, release)
