"""What a place that holds OCI content can do, and the one verified way to read from it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Platform
from mlpack.oci.digest import Digest, Hashed
from mlpack.oci.document import MAX_DOCUMENT_BYTES
from mlpack.oci.image import Image
from mlpack.oci.index import Index

CHUNK = 1024 * 1024
"""Bytes read at a time: large enough for the disk, small enough to forget."""


class NotFound(MlpackError):
    """A name or a digest the store does not hold."""


class Corrupt(MlpackError):
    """Bytes that are not what their digest and size say."""

    hint = "the content changed on disk or on the way: fetch or build it again"


class NotAnImage(MlpackError):
    """A manifest of something else, such as a model version."""

    hint = "name a release, or an image; mlpack models lists what there is"


class Sink(Hashed, Protocol):
    """Takes the bytes of one blob whose digest is known only at the end."""

    def commit(self, target: Descriptor) -> None:
        """Keep what was written as ``target``; raise :class:`Corrupt` where it is not that."""
        ...


class Readable(Protocol):
    """Content by digest, and names for some of it, to read.

    Keyed by descriptor and not by digest: a registry has other endpoints for
    manifests than for blobs, and the media type tells which.
    """

    def exists(self, target: Descriptor) -> bool:
        """Whether the store holds ``target``, judged by digest and size."""
        ...

    def open(self, target: Descriptor) -> AbstractContextManager[BinaryIO]:
        """Open the bytes *unverified*, for :func:`verified`; raise :class:`NotFound`."""
        ...

    def resolve(self, name: str) -> Descriptor:
        """What ``name`` points at; raise :class:`NotFound`."""
        ...


class Store(Readable, Protocol):
    """Content that can be added to, and named."""

    def put(self, target: Descriptor, content: BinaryIO) -> None:
        """Keep ``content``: idempotent, verified, all or nothing."""
        ...

    def tag(self, target: Descriptor, name: str) -> None:
        """Point ``name`` at ``target``, which the store must hold."""
        ...


class StagingStore(Store, Protocol):
    """A store that takes a blob before its digest is known."""

    def stage(self) -> AbstractContextManager[Sink]:
        """A place to write one blob; what is not committed is gone when the block ends."""
        ...


class ListingStore(Store, Protocol):
    """A store that can say all its names."""

    def tags(self) -> Mapping[str, Descriptor]:
        """Every name and what it points at, in the order of the names."""
        ...


def verified(content: BinaryIO, target: Descriptor) -> Iterator[bytes]:
    """Yield ``content`` in chunks; raise :class:`Corrupt` unless it is exactly ``target``.

    The size is checked before the digest, so a source that never ends is given
    up at the declared size. A caller must not act on the bytes before the end.
    """
    running, seen = hashlib.sha256(), 0
    while chunk := content.read(min(CHUNK, target.size - seen + 1)):
        seen += len(chunk)
        if seen > target.size:
            raise Corrupt(f"{target.digest} is longer than its {target.size} bytes")
        running.update(chunk)
        yield chunk
    if seen != target.size:
        raise Corrupt(f"{target.digest} is {seen} bytes, not {target.size}")
    if running.hexdigest() != target.digest.hex:
        raise Corrupt(f"{target.digest} holds other bytes (sha256:{running.hexdigest()})")


def verify(store: Readable, target: Descriptor) -> None:
    """Read ``target`` to its end; raise :class:`Corrupt` or :class:`NotFound`."""
    with store.open(target) as content:
        for _ in verified(content, target):
            pass


def read(store: Readable, target: Descriptor, *, limit: int = MAX_DOCUMENT_BYTES) -> bytes:
    """Read a whole document, verified; refuse one above ``limit`` bytes before reading it."""
    if target.size > limit:
        raise Corrupt(f"{target.digest} says it is {target.size} bytes, more than {limit}")
    with store.open(target) as content:
        return b"".join(verified(content, target))


def read_image(store: Readable, target: Descriptor) -> Image:
    """Read one platform's image: its manifest and its config; raise :class:`NotAnImage`."""
    manifest = read(store, target)
    config = Image(manifest, b"{}").config_descriptor
    if config.media_type not in media.CONFIGS:
        raise NotAnImage(f"{target.digest} is no image: its config is {config.media_type}")
    return Image(manifest, read(store, config))


def read_index(store: Readable, target: Descriptor) -> Index:
    """Read an index."""
    return Index(read(store, target))


def images(store: Readable, target: Descriptor) -> tuple[Image, ...]:
    """The image, or all the images of the index, at ``target``."""
    if target.media_type in media.INDEXES:
        entries = read_index(store, target).manifests
        return tuple(read_image(store, entry) for entry in entries)
    return (read_image(store, target),)


def select_image(store: Readable, target: Descriptor, platform: Platform | None) -> Image:
    """The image for ``platform`` at ``target``; the only or first one where none is asked for."""
    if target.media_type in media.INDEXES:
        index = read_index(store, target)
        entry = index.select(platform) if platform else index.manifests[0]
        return read_image(store, entry)
    return read_image(store, target)


def put_bytes(store: Store, content: bytes, media_type: str) -> Descriptor:
    """Keep a document and say what it is called."""
    target = Descriptor.of(content, media_type)
    store.put(target, io.BytesIO(content))
    return target


def put_image(store: Store, image: Image) -> Descriptor:
    """Keep an image's config and manifest; its layers must be there already."""
    put_bytes(store, image.config, image.config_descriptor.media_type)
    put_bytes(store, image.manifest, image.descriptor.media_type)
    return image.descriptor


def absent(digest: Digest, where: str) -> NotFound:
    """The error for a blob that is not there."""
    return NotFound(f"{where} does not hold {digest}")
