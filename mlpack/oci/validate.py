"""Every invariant of an image as one function: a test helper, and what ``mlpack doctor`` asks."""

from __future__ import annotations

from collections.abc import Iterator

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.image import Image, Layer
from mlpack.oci.index import Index

MAX_LAYERS = 127
"""More layers than this cannot be mounted by overlayfs drivers (containerd, moby)."""


def problems(image: Image) -> tuple[str, ...]:
    """Everything that is wrong with ``image``; empty where nothing is."""
    try:
        return tuple(_problems(image))
    except MlpackError as error:
        return (str(error),)


def _problems(image: Image) -> Iterator[str]:
    if image.descriptor.media_type not in media.MANIFESTS:
        yield f"manifest.mediaType: {image.descriptor.media_type} is not an image"
    named = image.config_descriptor
    if named.media_type not in media.CONFIGS:
        yield f"manifest.config.mediaType: {named.media_type} is refused by engines"
    if named != Descriptor.of(image.config, named.media_type):
        yield f"manifest.config: names {named.digest}, the config is other bytes"
    if not 0 < len(image.layers) <= MAX_LAYERS:
        yield f"manifest.layers: {len(image.layers)} layers, engines mount 1 to {MAX_LAYERS}"
    for number, layer in enumerate(image.layers):
        yield from _layer_problems(layer, f"manifest.layers[{number}]")


def _layer_problems(layer: Layer, where: str) -> Iterator[str]:
    kind = layer.descriptor.media_type
    if kind in media.TAR_LAYERS:
        if layer.digest != layer.diff_id:
            yield f"{where}: an uncompressed layer whose digest is not its diff id"
    elif kind not in media.GZIP_LAYERS | media.ZSTD_LAYERS:
        yield f"{where}.mediaType: {kind} is not a layer"


def index_problems(index: Index, images: tuple[Image, ...]) -> tuple[str, ...]:
    """Everything that is wrong between an index and the images it lists."""
    found = []
    for entry, image in zip(index.manifests, images, strict=True):
        if entry.digest != image.digest or entry.size != len(image.manifest):
            found.append(f"index: names {entry.digest}, the image is {image.digest}")
        if entry.platform and entry.platform != image.platform:
            found.append(f"index: says {entry.platform}, the image is for {image.platform}")
    return tuple(found)
