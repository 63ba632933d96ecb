"""``mlpack copy``: an image from one place to another."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpack.api.push import copy_members
from mlpack.errors import UsageError
from mlpack.interruptions import held_back
from mlpack.kinds import PLACES
from mlpack.model.version import LATEST
from mlpack.oci.descriptor import Descriptor, Digest, Reference
from mlpack.project.references import FoundImage, place_module
from mlpack.registry.counting_transport import Traffic
from mlpack.stores.copy import (
    CopyOptions,
    CopyResult,
    DigestChange,
    copy,
    copy_record,
    shown,
)
from mlpack.stores.files import OnDisk, OutputIsInput, require_store, same_file
from mlpack.stores.layout import ORIGINAL, REF_NAME
from mlpack.stores.store import ReferrersUnsupported, Remote, Store

if TYPE_CHECKING:
    from mlpack.api.requests import Copy
    from mlpack.api.session import Session


@dataclass(frozen=True, kw_only=True)
class ImageCopy:
    """An image that was copied."""

    reference: str
    """Where it is: by digest in a registry, by name in a layout."""

    target: Descriptor
    """The image as other tools find it there."""

    copied: CopyResult
    traffic: Traffic
    record: Digest | None
    """The identity record that went along, if it is a release and has one."""

    converted: DigestChange | None = None
    """How its digest changed, if it did."""

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json copy``."""
        return {
            "reference": self.reference,
            "digest": self.target.digest,
            "converted": self.converted,
            "record": self.record,
            **copy_members(self.copied, self.traffic),
        }


def copy_image(session: Session, request: Copy) -> ImageCopy:
    """Copy an image to ``oci:PATH[:TAG]`` or a registry.

    An index is copied with all its images. Between repositories of one registry blobs
    are mounted, and no byte of them moves. A layout shows an image with Docker's media types
    as one with OCI's, under another digest; copied from there, it is the one it was.
    """
    check_target(request.target)
    registries = session.registries
    before = registries.traffic
    found = session.find(request.source)
    store, name = open_target(session, request.target)
    require_target(store, name, found)
    record = None
    with session.step("copying") as step:
        copied = copy(found.store, store, found.target, CopyOptions(progress=step))
    # A registry may take its time; a record without its tag is found by nobody there.
    with nullcontext() if isinstance(store, Remote) else held_back():
        with suppress(ReferrersUnsupported):
            record = copy_record(found.store, store, found.target, new=bool(copied.sent))
        if name:
            store.tag(found.target, name)
    target = shown(store, found.target)
    return ImageCopy(
        reference=reference(store, request.target, found.target),
        target=target,
        converted=DigestChange.between(as_shown(found), target),
        copied=copied,
        traffic=registries.traffic.since(before),
        record=record,
    )


def as_shown(found: FoundImage) -> Descriptor:
    """Return what other tools find where mlpack found ``found``."""
    converted = ORIGINAL in found.target.annotations
    return shown(found.store, found.target) if converted else found.target


def open_target(session: Session, text: str) -> tuple[Store, str]:
    """The store of ``text`` and the name in it; a missing layout is created.

    ``oci:PATH`` alone names the image ``latest``; a repository at a digest gives no name.
    """
    check_target(text)
    kind, _, rest = text.partition(":")
    if kind in PLACES:
        opened: tuple[Store, str] = place_module(kind).write(rest, session.directory)
        return opened
    place = Reference.parse(text)
    tag = "" if place.digest else place.tag or LATEST
    return session.registries.store(place, push=True), tag


def check_target(text: str) -> None:
    """Raise ``UsageError`` unless ``text`` is written like a place that can be written to."""
    kind = text.partition(":")[0]
    can = hasattr(place_module(kind), "write") if kind in PLACES else "/" in text
    if not can:
        raise UsageError(
            f"cannot copy to {text!r}",
            hint="write oci:PATH:TAG, or REGISTRY/REPOSITORY:TAG; into this project: mlpack pull",
        )
    if kind not in PLACES:
        Reference.parse(text)


def require_target(store: Store, name: str, *sources: FoundImage) -> None:
    """Check that what is written to ``store`` as ``name`` leaves ``sources`` as they are.

    Raises :class:`~mlpack.stores.files.OutputIsInput`.
    """
    if not isinstance(store, OnDisk):
        return
    for each in sources:
        require_store(store.root, *each.location)
        named = each.target.annotations.get(REF_NAME) == name
        if named and each.location and same_file(store.root, *each.location):
            raise OutputIsInput(
                f"{each.name} is an input of this command, and would be overwritten",
                hint="write to another tag",
            )


def reference(store: Store, text: str, target: Descriptor) -> str:
    """Return what names the image from now on: its digest in a registry, else ``text``."""
    return str(store.place.pinned(target.digest)) if isinstance(store, Remote) else text
