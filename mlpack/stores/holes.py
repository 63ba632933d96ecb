"""Finding what a layout lacks without reading it all."""

from __future__ import annotations

from collections.abc import Iterator

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.stores.base import read_index
from mlpack.stores.layout import LayoutStore, base_layers, children, each_entry


def holes(layout: LayoutStore) -> tuple[str, ...]:
    """Every named thing with a blob that is missing, or not as large as it should be.

    Manifests are read and verified; of the other blobs only the size is looked
    at. ``mlpack.stores.layout.validate`` reads them all.
    """

    def lacking(entry: Descriptor) -> Iterator[str]:
        elsewhere = base_layers(layout, entry)
        for each in blobs(layout, entry):
            if each.digest not in elsewhere and not layout.exists(each):
                yield f"{each.digest} is missing or cut short"

    return each_entry(layout, lacking)


def blobs(layout: LayoutStore, target: Descriptor) -> Iterator[Descriptor]:
    """Everything below ``target`` that is not itself a manifest: configs and layers."""
    if target.media_type in media.INDEXES:
        for image in read_index(layout, target).manifests:
            yield from blobs(layout, image)
        return
    yield from children(layout, target)
