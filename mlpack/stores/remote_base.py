"""A base that lies in a registry: its documents are read here, its layers stay there."""

from __future__ import annotations

from dataclasses import replace

from mlpack.oci.descriptor import Descriptor
from mlpack.oci.reference import Reference
from mlpack.stores.layout import BASE_NAME, LayoutStore


def remember_base(layout: LayoutStore, tag: str, place: Reference) -> None:
    """Note that the image called ``tag`` stands on the base at ``place``."""
    target = layout.resolve(tag)
    noted = {**target.annotations, BASE_NAME: str(place)}
    layout.tag(replace(target, annotations=noted), tag)


def base_place(layout: LayoutStore, target: Descriptor) -> Reference | None:
    """Where the base of ``target`` is, if it was built on one in a registry."""
    for entry in layout.entries():
        if entry.digest == target.digest and BASE_NAME in entry.annotations:
            return Reference.parse(entry.annotations[BASE_NAME])
    return None
