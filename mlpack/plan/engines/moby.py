"""Docker with its own image store, as IoT Edge runs it."""

from __future__ import annotations

from collections.abc import Iterator

from mlpack.oci import descriptor as media
from mlpack.oci.image import Image, Layer
from mlpack.plan.engines import (
    DeviceState,
    EngineRule,
    EngineWire,
    Exchange,
    Headers,
    LayerStep,
    LoadRule,
    PullScenario,
    TokenCost,
    missing_content,
    new_content,
    once,
)
from mlpack.plan.refusals import LAYER_PREFIXES, OCTETS, ImageSupport


def layer_steps(image: Image, state: DeviceState) -> tuple[LayerStep, ...]:
    """Keep the longest known chain from the bottom; fetch everything above it.

    A layer is known if its blob was once pulled under this digest and its chain id is unpacked.
    All layers above the first unknown one are fetched, even blobs the device has
    (``distribution/xfer/download.go`` in moby 20.10; each row of the measured table).
    """
    if image.config_descriptor.digest in state.configs:
        return tuple(LayerStep(each, "reuse", "the device has this image") for each in image.layers)
    steps: list[LayerStep] = []
    fetching = False
    for layer, chain_id in zip(image.layers, image.chain_ids, strict=True):
        if not fetching and layer.digest in state.seen and chain_id in state.chain_ids:
            steps.append(LayerStep(layer, "reuse", "held, and all below it is unchanged"))
            continue
        steps.append(LayerStep(layer, "fetch", _why(layer, state, fetching)))
        fetching = True
    return once(steps)


def _why(layer: Layer, state: DeviceState, fetching: bool) -> str:
    if layer.digest in state.digests:
        return "held, but a layer below it is fetched" if fetching else "held, but on other layers"
    return new_content(layer, state)


def requests(
    wire: EngineWire, pull: PullScenario, steps: tuple[LayerStep, ...]
) -> Iterator[Exchange]:
    """Yield the requests of a pull."""
    yield from wire.ask_ping(pull.link)
    if not pull.link.by_digest:
        yield from wire.ask_head((pull.index or pull.image).descriptor, pull.link)
    if not pull.known:
        yield from missing_content(wire, pull, steps)


ENGINE = EngineRule(
    name="moby",
    measured="Docker 20.10.24",
    steps=layer_steps,
    wire=EngineWire(
        probe=326,
        ping=Headers(249, 188),
        head=Headers(638, 333),
        manifest=Headers(660, 333),
        blob=Headers(333, 412),
        accepts_one_type=False,
        keeps_connections=False,
        token=TokenCost(fetches=1, fixed=686, requests=1),
    ),
    requests=requests,
    load=LoadRule(
        command="docker load -i {file}",
        refusal=".tar: no such file or directory",
        unpacks=True,
        gzip="always",
    ),
    support=ImageSupport(
        most_layers=125,
        configs=dict.fromkeys(media.MANIFESTS, media.CONFIGS | {OCTETS}),
        layer_prefixes=(*LAYER_PREFIXES, OCTETS),
        compressions=frozenset({"none", "gzip", "bzip2", "xz"}),
        nested=False,
        needs_platform=media.INDEXES,
    ),
)
