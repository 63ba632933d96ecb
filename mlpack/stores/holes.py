"""Finding what a layout lacks without reading it all."""

from __future__ import annotations

from collections.abc import Iterator

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.document import parse
from mlpack.stores.base import read, read_index
from mlpack.stores.layout import REF_NAME, LayoutStore, base_layers


def holes(layout: LayoutStore) -> tuple[str, ...]:
    """Every named thing with a blob that is missing, or not as large as it should be.

    Manifests are read and verified; of the other blobs only the size is looked
    at. ``mlpack.stores.layout.validate`` reads them all.
    """
    found: list[str] = []
    for entry in layout.entries():
        name = entry.annotations.get(REF_NAME, entry.digest.short)
        try:
            elsewhere = base_layers(layout, entry)
            below = (each for each in blobs(layout, entry) if each.digest not in elsewhere)
            lacking = [each for each in below if not layout.exists(each)]
            found += [f"{name}: {each.digest} is missing or cut short" for each in lacking]
        except MlpackError as error:
            found.append(f"{name}: {error}")
    return tuple(found)


def blobs(layout: LayoutStore, target: Descriptor) -> Iterator[Descriptor]:
    """Everything below ``target`` that is not itself a manifest: configs and layers."""
    if target.media_type in media.INDEXES:
        for image in read_index(layout, target).manifests:
            yield from blobs(layout, image)
        return
    manifest = parse(read(layout, target), "manifest")
    for child in (manifest.need("config"), *manifest.need("layers").elements()):
        yield Descriptor.from_json(child)
