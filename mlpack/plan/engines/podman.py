"""podman."""

from __future__ import annotations

from collections.abc import Iterator

from mlpack.oci import descriptor as media
from mlpack.oci.image import Image, Layer
from mlpack.oci.unpacking import Unpacking
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
    fetched_layers,
    new_content,
)
from mlpack.plan.refusals import DOCKER_LAYERS, ImageSupport


def layer_steps(image: Image, state: DeviceState) -> tuple[LayerStep, ...]:
    """Fetch each blob that is missing; one pulled before under this digest is recognised.

    The blob-info cache remembers the diff id of each digest, so a recompressed layer that was
    pulled once is not pulled again while its content is there. Layers are fetched in parallel, and
    one that is listed twice is fetched twice.
    """
    return tuple(_step(layer, state) for layer in image.layers)


def _step(layer: Layer, state: DeviceState) -> LayerStep:
    if layer.digest in state.digests:
        return LayerStep(layer, "reuse", "this blob is held")
    if layer.digest in state.seen and layer.diff_id in state.diff_ids:
        return LayerStep(layer, "reuse", "its content is held, and its digest was seen before")
    return LayerStep(layer, "fetch", new_content(layer, state))


def requests(
    wire: EngineWire, pull: PullScenario, steps: tuple[LayerStep, ...]
) -> Iterator[Exchange]:
    """Yield the requests of a pull."""
    # Manifest and config are fetched at every pull, even of an image the device has.
    link = pull.link
    yield from wire.ask_ping(link)
    yield wire.ask_manifest((pull.index or pull.image).descriptor, link, named=True)
    if pull.index:
        yield wire.ask_manifest(pull.image.descriptor, link)
    yield wire.ask_blob(pull.image.config_descriptor, "config", link)
    yield from fetched_layers(wire, steps, link)


ENGINE = EngineRule(
    name="podman",
    measured="podman 4.3.1",
    steps=layer_steps,
    wire=EngineWire(
        probe=330,
        ping=Headers(193, 188),
        head=None,
        manifest=Headers(640, 333),
        blob=Headers(277, 412),
        accepts_one_type=False,
        keeps_connections=False,
        token=TokenCost(fetches=1, fixed=583, requests=1),
    ),
    requests=requests,
    load=LoadRule(
        command="podman load -i {file}",
        refusal="payload does not match any of the supported image formats",
        # A compressed file is first unpacked to disk: not worth it for layers that are large.
        gzip="small",
    ),
    support=ImageSupport(
        most_layers=128,
        configs={media.MANIFEST: frozenset({media.CONFIG})},
        layers={media.DOCKER_MANIFEST: DOCKER_LAYERS},
        nested=False,
        needs_platform=frozenset({media.DOCKER_INDEX}),
        unpacking=Unpacking(marks_symlinks=True),
    ),
)
