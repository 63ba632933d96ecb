"""How a release carries its model: whole, packed, or as a patch of the one in its anchor.

A packed model is unpacked by every device at start; in exchange its layer is smaller. A patch also
costs the devices without the anchor one more layer; it saves the devices with the anchor the
difference of two layers. It is chosen if the target devices fetch less in all, unless it is so
large that a new anchor is due.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mlpack.humanize import share, size
from mlpack.model.version import ModelFile
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest
from mlpack.oci.image import Image, Layer, append, build_index
from mlpack.plan.engines import DeviceState, EngineRule, Link
from mlpack.plan.transfer import Transfer, transfer

Strategy = Literal["layer", "packed", "patch"]

LIMIT_PERCENT = 70
"""Share of the model without its anchor above which a patch is dropped and a new anchor is due."""

UNPACKED_PER_SECOND = 100_000_000
"""Bytes of a model that a device is assumed to unpack in a second; a server's core does 300 MB."""

FIRST_SECONDS = 0.1
"""Seconds until a device unpacks the first byte: it loads the decoder."""

SECOND_IS_WORTH = 64 * 1024
"""Bytes that packing must save for each second of start-up: what 0.5 Mbit/s carry in it."""

TOLERATED = 200
"""Bytes that a packed layer may be above the other one; a requested one that is larger is not."""

_SURE_PERCENT = 125
"""How far above its limit an estimate must be for the patch not to be made."""

LEAST_PERCENT = 50
"""Share of its estimate that a packed file may take: a forest took 49 %, networks 74 to 97 %."""


@dataclass(frozen=True, slots=True)
class FilePair:
    """A file of a version, and the file of the anchor's version that it is patched from."""

    new: ModelFile
    old: ModelFile | None

    @property
    def same(self) -> bool:
        """Whether the anchor has an identical file."""
        return self.old is not None and self.old.digest == self.new.digest


def pairs(new: Iterable[ModelFile], old: Iterable[ModelFile]) -> tuple[FilePair, ...]:
    """Pair each file with an old one: of the same content, the same path, or the only one left.

    The last rule is for names that change with the version: the one file with an extension that
    neither side could pair otherwise.
    """
    new, old = tuple(new), tuple(old)
    contents = {each.digest: each for each in old}
    paths = {each.path: each for each in old}
    found = {each.path: contents.get(each.digest) or paths.get(each.path) for each in new}
    left_new = [each for each in new if found[each.path] is None]
    used = {each.path for each in found.values() if each is not None}
    left_old = [each for each in old if each.path not in used]
    for each in left_new:
        ours = [file for file in left_new if _kind(file) == _kind(each)]
        theirs = [file for file in left_old if _kind(file) == _kind(each)]
        if len(ours) == len(theirs) == 1:
            found[each.path] = theirs[0]
    return tuple(FilePair(each, found[each.path]) for each in new)


def _kind(file: ModelFile) -> str:
    return posixpath.splitext(file.path)[1]


def start_seconds(model: int) -> float:
    """Return the seconds that a device takes at start to unpack a model of ``model`` bytes."""
    return FIRST_SECONDS + model / UNPACKED_PER_SECOND


def packing_pays(model: int, layer: int, packed: int) -> bool:
    """Return whether a packed layer saves more bytes than its longer start-up is worth.

    All are bytes: of the model, of the layer that holds it, and of the one with the packed model.
    """
    return packed + start_seconds(model) * SECOND_IS_WORTH < layer


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedSizes:
    """Bytes of a model, and estimates of its layers."""

    model: int
    layer: int
    packed: int
    least_packed: int
    """Bytes that the packed model takes at least: its estimate may be too high."""

    patch: int

    @property
    def packing_pays(self) -> bool:
        """Whether the packed model may be the better one."""
        return packing_pays(self.model, self.layer, self.least_packed)

    @property
    def patch_pays(self) -> bool:
        """Whether a patch may be below the limit."""
        whole = min(self.layer, self.packed) if self.packing_pays else self.layer
        return self.patch * 100 * 100 <= whole * LIMIT_PERCENT * _SURE_PERCENT


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTransfers:
    """Devices in one state, and what each of them fetches by each strategy."""

    holds: str
    devices: int
    fetched: Mapping[Strategy, Transfer]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetDevices:
    """Devices that a release is for, and what they hold before it."""

    holds: str
    devices: int
    state: DeviceState
    image: int = 0
    """Which of the release's images they run: a number from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyDecision:
    """The strategy of a release, and the reason."""

    strategy: Strategy
    why: str
    anchors: bool = False
    """Whether the release becomes its model's anchor."""

    layers: Mapping[Strategy, Layer] = field(default_factory=dict)
    """The layers that were made or measured: with the model, the packed model, the patch."""

    transfers: tuple[DeviceTransfers, ...] = ()

    def total(self, strategy: Strategy) -> int:
        """Return the bytes that all target devices fetch by ``strategy``."""
        return sum(each.fetched[strategy].total * each.devices for each in self.transfers)

    def to_json(self) -> dict[str, object]:
        """Return ``candidates`` of the document of ``mlpack --json build``."""
        every: tuple[Strategy, ...] = ("layer", "packed", "patch")
        return {each: self._candidate(each) for each in every}

    def _candidate(self, strategy: Strategy) -> dict[str, object] | None:
        if strategy not in self.layers:
            return None
        fetched = self.total(strategy) if self.transfers else None
        return {"bytes": self.layers[strategy].size, "devices_fetch": fetched}


def compare_transfers(
    engine: EngineRule,
    link: Link,
    targets: Iterable[TargetDevices],
    images: Mapping[Strategy, Sequence[Image]],
) -> tuple[DeviceTransfers, ...]:
    """Work out what each target device fetches of the release's images by each strategy."""

    def fetched(made: Sequence[Image], each: TargetDevices) -> Transfer:
        index = build_index(made) if len(made) > 1 else None
        return transfer(engine, made[each.image], index, each.state, link)

    return tuple(
        DeviceTransfers(
            holds=each.holds,
            devices=each.devices,
            fetched={strategy: fetched(made, each) for strategy, made in images.items()},
        )
        for each in targets
    )


def choose_whole(model: int, layers: Mapping[Strategy, Layer]) -> StrategyDecision:
    """Decide between the layer with the model of ``model`` bytes, and the packed model if made."""
    layer, packed = layers["layer"], layers.get("packed")
    if packed is None:
        return StrategyDecision(strategy="layer", why="", layers=layers)
    part = f"the packed model is {share(packed.size, layer.size)} of the layer"
    seconds = f"devices unpack it in {start_seconds(model):.1f} s at start"
    if packing_pays(model, layer.size, packed.size):
        return StrategyDecision(strategy="packed", why=f"{part}, and {seconds}", layers=layers)
    why = f"{part}, and saves too little: {seconds}"
    return StrategyDecision(strategy="layer", why=why, layers=layers)


def choose(
    whole: StrategyDecision, patch: Layer, transfers: Sequence[DeviceTransfers]
) -> StrategyDecision:
    """Decide between a patch and the release without an anchor; both were made.

    A patch above 70 % of that release's layer means that the model has moved on: it becomes the
    anchor, so that later patches are small again.
    """
    other = whole.layers[whole.strategy]
    named = "packed model" if whole.strategy == "packed" else "layer"
    compared = f"the patch is {share(patch.size, other.size)} of the {named}"

    def decision(strategy: Strategy, why: str, *, anchors: bool = False) -> StrategyDecision:
        return StrategyDecision(
            strategy=strategy,
            why=why,
            anchors=anchors,
            layers={**whole.layers, "patch": patch},
            transfers=tuple(transfers),
        )

    if above_limit(patch.size, other.size):
        return decision(whole.strategy, f"{compared}, more than {LIMIT_PERCENT} %", anchors=True)
    found = decision("patch", "")
    saved = found.total(whole.strategy) - found.total("patch")
    devices = sum(each.devices for each in transfers)
    of, fetch = ("a device", "fetches") if devices == 1 else (f"{devices:,} devices", "fetch")
    if saved > 0:
        return decision("patch", f"{of} {fetch} {size(saved)} less")
    return decision(whole.strategy, f"{compared}, but {of} would fetch {size(-saved)} more with it")


def above_limit(patch: int, whole: int) -> bool:
    """Return whether a patch of ``patch`` bytes is dropped, and a new anchor due."""
    return patch * 100 > whole * LIMIT_PERCENT


def one_more_layer(engine: EngineRule, link: Link, base: Image, release: Image) -> int:
    """Return the bytes that one more, empty layer costs a device on ``base``."""
    empty = Layer(Descriptor(media.LAYER_GZIP, Digest.of(b"a patch"), 0), Digest.of(b"a patch"))
    state = DeviceState.holding(base)
    stacked = transfer(engine, append(release, empty), None, state, link).total
    return stacked - transfer(engine, release, None, state, link).total


def too_small(engine: EngineRule, link: Link, base: Image, release: Image) -> bool:
    """Return whether a model is so small that patches of it save nothing.

    The largest patch that is kept saves a device 30 % of the layer; if that is less than one more
    layer costs the devices that must fetch one, no patch pays.
    """
    saved = release.layers[-1].size * (100 - LIMIT_PERCENT) // 100
    return saved < one_more_layer(engine, link, base, release)
