"""Stores of OCI content: their protocols, verified reads, and images read from any of them.

What only some stores can do is a protocol of one member, as in oras-go, and callers ask for that;
those that only copies ask for are in :mod:`mlpack.stores.copy`. The store on disk is
:mod:`mlpack.stores.layout`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, BinaryIO, Protocol, runtime_checkable

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import (
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Digest,
    Hashing,
    Platform,
    Reference,
    parse,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from mlpack.oci.image import Image, Index

CHUNK = 1024 * 1024
"""Bytes read at a time: large enough for the disk, small enough to forget."""

DOCUMENTS = media.MANIFESTS | media.INDEXES
"""Media types of manifests and indexes; all other content is a blob to a registry."""


class NotFound(MlpackError):
    """A name or a digest that a store does not hold."""


class Corrupt(MlpackError):
    """Bytes that do not match their digest and size."""

    hint = "the content changed on disk or in transit: fetch or build it again"


class NotAnImage(MlpackError):
    """A manifest of something else, such as a model version."""

    hint = "name a release or an image; mlpack models lists them"


class ReferrersUnsupported(MlpackError):
    """A registry that does not accept artifacts with a subject; images are not affected."""


class StagedBlob(Hashing):
    """Hashes while it writes, so that committing does not read the blob again."""

    def __init__(self, out: BinaryIO, keep: Callable[[Descriptor], None]) -> None:
        super().__init__(out)
        self._keep = keep

    def commit(self, target: Descriptor) -> None:
        """Keep what was written as ``target``; raise :class:`Corrupt` if it is not ``target``."""
        if (self.size, self.digest) != (target.size, target.digest):
            raise Corrupt(f"{target.digest} was written as other bytes")
        self._keep(target)


class Readable(Protocol):
    """Content by digest, and names for some of it.

    Keyed by descriptor and not by digest: a registry has different endpoints for manifests and
    for blobs, and the media type tells which.
    """

    def exists(self, target: Descriptor) -> bool:
        """Whether the store holds ``target``, by digest and size."""
        ...

    def open(self, target: Descriptor) -> AbstractContextManager[BinaryIO]:
        """Open the bytes *unverified*, for :func:`verified`; raise :class:`NotFound`."""
        ...

    def resolve(self, name: str) -> Descriptor:
        """Return what ``name`` points at; raise :class:`NotFound`."""
        ...


class Store(Readable, Protocol):
    """Content that can be added and named."""

    def put(self, target: Descriptor, content: BinaryIO) -> None:
        """Keep ``content``: idempotent, verified, all or nothing."""
        ...

    def tag(self, target: Descriptor, name: str) -> None:
        """Point ``name`` at ``target``, which the store must hold."""
        ...


class StagingStore(Store, Protocol):
    """A store that accepts a blob before its digest is known."""

    def stage(self) -> AbstractContextManager[StagedBlob]:
        """Write one blob; what is not committed is gone when the block ends."""
        ...


class ListingStore(Store, Protocol):
    """A store that lists its names."""

    def tags(self) -> Mapping[str, Descriptor]:
        """Return every name and what it points at, ordered by name."""
        ...


@runtime_checkable
class Remote(Protocol):
    """A repository of a registry: its content comes over a network."""

    @property
    def place(self) -> Reference:
        """Registry and repository, without tag or digest."""
        ...


@runtime_checkable
class ListsReferrers(Protocol):
    """A store that lists the artifacts whose subject is an image."""

    def referrers(self, target: Descriptor, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return the artifacts (of one type) whose subject is ``target``, as far as known."""
        ...


class VerifyingReader(io.RawIOBase):
    """Compares a file with its digest and size while it is read.

    A reader may seek (a layer writer takes samples, a failed upload goes back): hashing continues
    where reading in order does. Who reads to the end has read exactly ``target``, or ``error`` is
    raised (by default a :class:`Corrupt` that says what differs).
    """

    def __init__(
        self, content: BinaryIO, target: Descriptor, error: MlpackError | None = None
    ) -> None:
        self._content = content
        self._target = target
        self._error = error
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._position = 0

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes; raise if they, with all before, are not the target's."""
        left = self._target.size - self._position
        # One more than there should be, to notice content that goes on.
        data = self._content.read(max(0, left + 1) if size < 0 else max(0, min(size, left + 1)))
        start, self._position = self._position, self._position + len(data)
        if start <= self._hashed < self._position:
            self._hash.update(memoryview(data)[self._hashed - start :])
            self._hashed = self._position
        self._check(ended=not data and size != 0)
        return data

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read into ``buffer``, for ``io.BufferedReader``."""
        room = memoryview(buffer)
        data = self.read(len(room))
        room[: len(data)] = data
        return len(data)

    def readable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Whether the content is."""
        return self._content.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to ``offset``; bytes skipped are not hashed until they are read."""
        self._position = self._content.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        """Where the next read starts."""
        return self._position

    def _check(self, *, ended: bool) -> None:
        size = self._target.size
        if self._hashed > size:
            raise self._wrong(f"is longer than its {size} bytes")
        if ended and self._hashed < size:
            raise self._wrong(f"is {self._hashed} bytes, not {size}")
        if self._position == self._hashed == size:
            found = self._hash.hexdigest()
            if found != self._target.digest.hex:
                raise self._wrong(f"holds other bytes (sha256:{found})")

    def _wrong(self, problem: str) -> MlpackError:
        return self._error or Corrupt(f"{self._target.digest} {problem}")


def verified(content: BinaryIO, target: Descriptor) -> Iterator[bytes]:
    """Yield ``content`` in chunks; raise :class:`Corrupt` unless it is exactly ``target``.

    An endless source is abandoned at that size. Callers must not act on the bytes before the end.
    """
    reader = VerifyingReader(content, target)
    while chunk := reader.read(CHUNK):
        yield chunk


def verify(store: Readable, target: Descriptor) -> None:
    """Read ``target`` to its end; raise :class:`Corrupt` or :class:`NotFound`."""
    with store.open(target) as content:
        for _ in verified(content, target):
            pass


def read(store: Readable, target: Descriptor, *, limit: int = MAX_DOCUMENT_BYTES) -> bytes:
    """Read a whole document, verified; refuse one above ``limit`` bytes before reading it."""
    check_size(target, limit)
    with store.open(target) as content:
        return b"".join(verified(content, target))


def check_size(target: Descriptor, limit: int = MAX_DOCUMENT_BYTES) -> None:
    """Raise :class:`Corrupt` if a document declares more than ``limit`` bytes."""
    if target.size > limit:
        raise Corrupt(f"{target.digest} declares {target.size} bytes, more than {limit}")


def parts(content: bytes, media_type: str) -> tuple[Descriptor, ...]:
    """Return what a manifest or index points at, in its order (oras-go: ``Successors``).

    Layers with ``urls`` may not be distributed and are left out.
    """
    document = parse(content, "manifest")
    if media_type in media.INDEXES:
        return tuple(Descriptor.from_json(each) for each in document.need("manifests").elements())
    layers = document.get("layers")
    listed = (document.need("config"), *(layers.elements() if layers else ()))
    return tuple(Descriptor.from_json(each) for each in listed if not each.get("urls"))


def walk(
    store: Readable, root: Descriptor, seen: set[Digest] | None = None
) -> Iterator[Descriptor]:
    """Yield everything below ``root``, then ``root``: each once, parts before what names them."""
    seen = set() if seen is None else seen
    seen.add(root.digest)
    for part in parts(read(store, root), root.media_type):
        if part.digest in seen:
            continue
        if part.media_type in DOCUMENTS:
            yield from walk(store, part, seen)
        else:
            seen.add(part.digest)
            yield part
    yield root


def manifests(store: Readable, target: Descriptor) -> tuple[Descriptor, ...]:
    """Return the manifests of an index, or the one manifest that ``target`` is."""
    return read_index(store, target).manifests if target.media_type in media.INDEXES else (target,)


def subject(store: Readable, target: Descriptor) -> Digest | None:
    """Return the digest of what the manifest ``target`` refers to, if anything."""
    node = parse(read(store, target), "manifest").get("subject")
    return Descriptor.from_json(node).digest if node else None


def read_image(store: Readable, target: Descriptor) -> Image:
    """Read one platform's image: its manifest and its config; raise :class:`NotAnImage`."""
    from mlpack.oci.image import Image

    manifest = read(store, target)
    config = Image(manifest, b"{}").config_descriptor
    if config.media_type not in media.CONFIGS:
        raise NotAnImage(f"{target.digest} is not an image: its config is {config.media_type}")
    return Image(manifest, read(store, config))


def read_index(store: Readable, target: Descriptor) -> Index:
    """Read an index."""
    from mlpack.oci.image import Index

    return Index(read(store, target))


def images(store: Readable, target: Descriptor) -> tuple[Image, ...]:
    """Read the image, or all the images of the index, at ``target``."""
    return tuple(read_image(store, each) for each in manifests(store, target))


def select_image(store: Readable, target: Descriptor, platform: Platform | None) -> Image:
    """Read the image for ``platform`` at ``target``; by default the only or the first one."""
    if target.media_type in media.INDEXES and platform:
        return read_image(store, read_index(store, target).select(platform))
    return read_image(store, manifests(store, target)[0])


def put_bytes(store: Store, content: bytes, media_type: str) -> Descriptor:
    """Keep a document and return its descriptor."""
    target = Descriptor.of(content, media_type)
    store.put(target, io.BytesIO(content))
    return target


def put_image(store: Store, image: Image) -> Descriptor:
    """Keep an image's config and manifest; its layers must be in the store."""
    put_bytes(store, image.config, image.config_descriptor.media_type)
    put_bytes(store, image.manifest, image.descriptor.media_type)
    return image.descriptor


def not_found(digest: Digest, where: str) -> NotFound:
    """Return the error for a blob that ``where`` does not hold."""
    return NotFound(f"{where} does not hold {digest}")
