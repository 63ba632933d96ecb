"""``mlpack copy``: an image from one place to another, whatever the places are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlpack.api.push import describe
from mlpack.errors import UsageError
from mlpack.model.version import LATEST
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.digest import Digest
from mlpack.oci.reference import Reference
from mlpack.stores.base import Store
from mlpack.stores.carry import carry
from mlpack.stores.copy import Copied, MountFrom, blobs, copy
from mlpack.stores.layout import LayoutStore
from mlpack.stores.project import Project
from mlpack.stores.references import find_image
from mlpack.stores.referrers import NotTaken
from mlpack.stores.registries import Registries
from mlpack.stores.registry import RegistryStore
from mlpack.stores.wire import Counted


@dataclass(frozen=True, kw_only=True)
class Moved:
    """An image at its new place."""

    reference: str
    """Where it is: by digest in a registry, by name in a layout."""

    target: Descriptor
    copied: Copied
    counted: Counted
    record: Digest | None
    """The identity record that went along, where it is a release and has one."""

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json copy``."""
        return {
            "reference": self.reference,
            "digest": str(self.target.digest),
            "record": str(self.record) if self.record else None,
            **describe(self.copied, self.counted),
        }


def copy_image(
    project: Project | None,
    registries: Registries,
    source: str,
    target: str,
    *,
    advance: Callable[[int], None] = lambda _: None,
    expect: Callable[[int], None] = lambda _: None,
) -> Moved:
    """Copy ``source`` (any image reference) to ``target`` (``oci:PATH[:TAG]`` or in a registry).

    An index is copied with all its images. Between repositories of one registry blobs
    are mounted, and no byte of them moves.
    """
    found = find_image(project, source, registries=registries)
    store, name = open_target(target, registries)
    mount, record = None, None
    if isinstance(store, RegistryStore) and isinstance(found.store, RegistryStore):
        mount = _mount(found.store, store, found.target)
    copied = copy(found.store, store, found.target, mount=mount, advance=advance, expect=expect)
    with suppress(NotTaken):
        record = carry(found.store, store, found.target, new=bool(copied.sent))
    if name:
        store.tag(found.target, name)
    return Moved(
        reference=_reference(store, target, found.target),
        target=found.target,
        copied=copied,
        counted=registries.counted,
        record=record,
    )


def open_target(text: str, registries: Registries) -> tuple[Store, str]:
    """The store of ``text`` and the name in it; a layout that is not there is made.

    ``oci:PATH`` alone names the image ``latest``; a repository at a digest gives no name.
    """
    kind, _, rest = text.partition(":")
    if kind == "oci":
        path, colon, tag = rest.rpartition(":")
        # The path may hold a colon itself: what exists as a directory wins.
        if not colon or Path(rest).is_dir():
            path, tag = rest, LATEST
        if not path or not tag:
            raise UsageError(f"{text!r} names no image layout", hint="write it as oci:PATH:TAG")
        return LayoutStore(Path(path)), tag
    if kind == "docker-archive" or "/" not in text:
        raise UsageError(
            f"{text!r} is no place to copy to",
            hint="write oci:PATH:TAG, or REGISTRY/REPOSITORY:TAG; into this project: mlpack pull",
        )
    place = Reference.parse(text)
    tag = "" if place.digest else place.tag or LATEST
    return registries.store(place, push=True), tag


def _mount(source: RegistryStore, target: RegistryStore, root: Descriptor) -> MountFrom | None:
    ours, theirs = source.place, target.place
    if ours.registry != theirs.registry or ours.repository == theirs.repository:
        return None
    return MountFrom(ours.repository, frozenset(blobs(source, root)))


def _reference(store: Store, text: str, target: Descriptor) -> str:
    if isinstance(store, RegistryStore):
        return str(store.place.pinned(target.digest))
    return text
