"""Checking a layout: everything that ``index.json`` leads to is there and intact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest
from mlpack.oci.image import Image, entry_problems, problems
from mlpack.stores.layout import BASE_NAME, ORIGINAL, REF_NAME, LayoutStore
from mlpack.stores.store import DOCUMENTS, images, manifests, read, read_image, verify, walk


def validate(layout: LayoutStore) -> tuple[str, ...]:
    """Read and verify every blob that ``index.json`` leads to; return what is wrong.

    A blob without a name is fine: an interrupted command may leave one. So is a missing layer of
    a base that is in a registry.
    """

    def look(entry: Descriptor) -> Iterator[str]:
        base = _remote_layers(layout, entry)
        for each in walk(layout, entry):
            if each.media_type not in DOCUMENTS and each.digest not in base:
                verify(layout, each)
        yield from _image_problems(layout, entry)

    return _each_entry(layout, look)


def missing_blobs(layout: LayoutStore) -> tuple[str, ...]:
    """Return every named thing with a blob that is missing or has the wrong size.

    Manifests are read and verified; of other blobs only the size is checked.
    """

    def look(entry: Descriptor) -> Iterator[str]:
        base = _remote_layers(layout, entry)
        for each in walk(layout, entry):
            if each.digest not in base and not layout.exists(each):
                yield f"{each.digest} is missing or cut short"

    return _each_entry(layout, look)


def _each_entry(
    layout: LayoutStore, look: Callable[[Descriptor], Iterable[str]]
) -> tuple[str, ...]:
    """Return what ``look`` finds or raises for each thing ``index.json`` lists."""
    found: list[str] = []
    converted = (each for each in layout.listed() if ORIGINAL in each.annotations)
    for entry in (*layout.entries(), *converted):
        name = entry.annotations.get(REF_NAME, entry.digest.short)
        try:
            found += [f"{name}: {problem}" for problem in look(entry)]
        except MlpackError as error:
            found.append(f"{name}: {error}")
    return tuple(dict.fromkeys(found))


def _remote_layers(layout: LayoutStore, entry: Descriptor) -> frozenset[Digest]:
    """Return the layers of a release that stayed with its base in a registry."""
    if BASE_NAME not in entry.annotations:
        return frozenset()
    base = (layer for image in images(layout, entry) for layer in image.layers[:-1])
    return frozenset(each.digest for each in base if not layout.exists(each.descriptor))


def _image_problems(layout: LayoutStore, target: Descriptor) -> Iterator[str]:
    """Check the images at or below ``target``; other artifacts have no such rules."""
    for each in manifests(layout, target):
        if Image(read(layout, each), b"{}").config_descriptor.media_type in media.CONFIGS:
            image = read_image(layout, each)
            yield from problems(image)
            yield from entry_problems(each, image)
