"""containerd, which K3s runs."""

from __future__ import annotations

from collections.abc import Iterator

from mlpack.oci import descriptor as media
from mlpack.oci.image import Image
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
    missing_content,
    new_content,
    once,
)
from mlpack.plan.refusals import DOCKER_LAYERS, OCI_LAYERS, ImageSupport


def layer_steps(image: Image, state: DeviceState) -> tuple[LayerStep, ...]:
    """Fetch each blob that is not in the content store, whatever its position in the image."""
    return once(
        [
            LayerStep(layer, "reuse", "this blob is held")
            if layer.digest in state.digests
            else LayerStep(layer, "fetch", new_content(layer, state))
            for layer in image.layers
        ]
    )


def requests(
    wire: EngineWire, pull: PullScenario, steps: tuple[LayerStep, ...]
) -> Iterator[Exchange]:
    """Yield the requests of a pull."""
    yield from wire.ask_head((pull.index or pull.image).descriptor, pull.link)
    yield from missing_content(wire, pull, steps)


ENGINE = EngineRule(
    name="containerd",
    measured="containerd 1.6.20",
    steps=layer_steps,
    wire=EngineWire(
        probe=0,
        ping=None,
        head=Headers(378, 314),
        manifest=Headers(204, 314),
        blob=Headers(200, 393),
        accepts_one_type=True,
        keeps_connections=True,
        # 1,972 bytes were measured for both fetches together; each is assumed to cost half.
        token=TokenCost(fetches=2, fixed=986, requests=2),
    ),
    requests=requests,
    load=LoadRule(
        command="ctr images import {file}", refusal="failed to get reader from content store"
    ),
    support=ImageSupport(
        layers=dict.fromkeys(media.MANIFESTS, OCI_LAYERS | DOCKER_LAYERS),
        compressions=frozenset({"none", "gzip", "zstd", "zstd-skippable"}),
        plain_types=False,
        fetches_urls=True,
        unpacking=Unpacking(
            copies_parents=True, makes_behind_symlinks=True, repeats=True, keeps_marks=False
        ),
    ),
)
