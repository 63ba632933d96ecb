"""A base made from an image of any tool: its layers come first, as they are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlpack.base.interpreter import Inspection, inspect
from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.compression import Gzip
from mlpack.oci.descriptor import Descriptor, Platform
from mlpack.oci.image import Image, Layer
from mlpack.oci.reference import Reference
from mlpack.stores.base import Readable, StagingStore, verified
from mlpack.stores.references import find_image, in_registry

if TYPE_CHECKING:
    from mlpack.stores.registries import Registries

KINDS = ("oci", "docker-archive")
_LEVEL = 10
"""libdeflate's level for an operating system: 4 % smaller than zlib's best."""


class WrongPlatform(MlpackError):
    """An image that is not there for a platform the base is to be made for."""


@dataclass(frozen=True)
class SourceImage:
    """The image a base starts from, for one platform."""

    text: str
    store: Readable
    image: Image
    plain_layers: bool
    """Whether its layers are uncompressed because ``docker save`` makes them so."""

    def inspect(self, store: Readable, layers: Sequence[Layer]) -> Inspection:
        """Find its Python in ``layers``, which are its own, copied to ``store``."""
        return inspect(store, layers, self.image.env, self.text)


def pin(text: str, held: str, registries: Registries | None) -> str:
    """What ``text`` is by digest, where it is in a registry; else empty.

    ``held`` is what it was pinned to before; where given, it stays that.
    """
    if not in_registry(text):
        return ""
    if held:
        return held
    found = find_image(None, text, registries=registries)
    return str(Reference.parse(text).pinned(found.target.digest))


def open_source(
    text: str, root: Path, platform: Platform, registries: Registries | None = None
) -> SourceImage:
    """Find ``text``: ``oci:PATH[:TAG]`` or ``docker-archive:PATH`` relative to ``root``, or one
    in a registry, of which only documents are read here.
    """
    kind, _, path = text.partition(":")
    if in_registry(text):
        found = find_image(None, text, platform, registries=registries)
    elif kind in KINDS and path:
        found = find_image(None, f"{kind}:{root / path}", platform)
    else:
        raise MlpackError(
            f"[base] from = {text!r} is not a source of a base",
            hint='write "debian:bookworm", "oci:PATH[:TAG]", "docker-archive:PATH" or '
            '"REGISTRY/REPOSITORY:TAG"',
        )
    has = found.image.platform
    if (has.os, has.architecture) != (platform.os, platform.architecture):
        raise WrongPlatform(
            f"{text} is an image for {has}, and [base] platforms asks for {platform}",
            hint=f'set [base] platforms = ["{has}"], or start from an image that has both',
        )
    return SourceImage(text, found.store, found.image, kind == "docker-archive")


def copy_layers(source: SourceImage, store: StagingStore) -> tuple[Layer, ...]:
    """Bring the layers of ``source`` into ``store``; their digests stay what they are.

    Only the plain tars of a ``docker save`` are compressed: devices hold that
    image under other digests anyhow, and would fetch them uncompressed.
    """
    return tuple(_copy(source, layer, store) for layer in source.image.layers)


def _copy(source: SourceImage, layer: Layer, store: StagingStore) -> Layer:
    plain = layer.descriptor.media_type in media.TAR_LAYERS
    if plain and source.plain_layers:
        return _compress(source.store, layer, store)
    # Docker's name for a gzip layer and OCI's are the same bytes; a manifest of ours says OCI's.
    zstd = layer.descriptor.media_type in media.ZSTD_LAYERS
    kind = media.LAYER_TAR if plain else media.LAYER_ZSTD if zstd else media.LAYER_GZIP
    target = Descriptor(kind, layer.descriptor.digest, layer.descriptor.size)
    if not store.exists(target):
        with source.store.open(layer.descriptor) as content:
            store.put(target, content)
    return Layer(target, layer.diff_id)


def _compress(source: Readable, layer: Layer, store: StagingStore) -> Layer:
    with (
        store.stage() as out,
        source.open(layer.descriptor) as content,
        closing(Gzip(out, _LEVEL)) as gzip,
    ):
        for chunk in verified(content, layer.descriptor):
            gzip.write(chunk)
        gzip.finish()
        target = Descriptor(media.LAYER_GZIP, out.digest, out.size)
        out.commit(target)
    return Layer(target, layer.diff_id)
