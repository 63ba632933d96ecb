"""Stores of OCI content: their protocols, verified reads, and images read from any of them.

What only some stores can do is a protocol of one member, as in oras-go, and callers ask for that;
those that only copies ask for are in :mod:`mlpack.stores.copy`. The store on disk is
:mod:`mlpack.stores.layout`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, Protocol, runtime_checkable

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import (
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Digest,
    Hashing,
    InvalidContent,
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


class NotHere(NotFound):
    """An index whose images, or the one that is needed, are not in the store."""


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


MAX_NESTED = 8
"""How many indexes deep images are looked for; one in another is all that was seen."""


def _check_depth(target: Descriptor, depth: int) -> None:
    if target.media_type in media.INDEXES and depth > MAX_NESTED:
        raise InvalidContent(str(target.digest), f"is nested in {depth} indexes")


def walk(
    store: Readable, root: Descriptor, seen: set[Digest] | None = None, depth: int = 0
) -> Iterator[Descriptor]:
    """Yield everything below ``root``, then ``root``: each once, parts before what names them."""
    seen = set() if seen is None else seen
    _check_depth(root, depth)
    seen.add(root.digest)
    for part in parts(read(store, root), root.media_type):
        if part.digest in seen:
            continue
        if part.media_type in DOCUMENTS:
            try:
                yield from walk(store, part, seen, depth + 1)
            except NotHere:
                raise
            except NotFound as error:
                which = f" for {part.platform}" if part.platform else ""
                raise NotHere(
                    f"index {root.digest.short} lists an image{which}, but {error}",
                    hint="name one of its images by its digest: oci:PATH@sha256:…",
                ) from error
        else:
            seen.add(part.digest)
            yield part
    yield root


def documents(store: Readable, target: Descriptor) -> Iterator[Descriptor]:
    """Yield ``target``, the indexes in it, and their images, each index once.

    What is listed need not be here; attestations and other artifacts are left out.
    """
    yield from _documents(store, target, set(), 0)


def _documents(
    store: Readable, target: Descriptor, seen: set[Digest], depth: int
) -> Iterator[Descriptor]:
    yield target
    if target.media_type not in media.INDEXES or target.digest in seen:
        return
    _check_depth(target, depth)
    seen.add(target.digest)
    try:
        index = read_index(store, target)
    except NotFound:
        if depth:
            return
        raise
    for each in index.manifests:
        yield from _documents(store, each, seen, depth + 1)


def manifests(store: Readable, target: Descriptor) -> tuple[Descriptor, ...]:
    """Return the manifests of an index and of those in it, or the one that ``target`` is."""
    found = documents(store, target)
    return tuple(each for each in found if each.media_type not in media.INDEXES)


def subject(store: Readable, target: Descriptor) -> Digest | None:
    """Return the digest of what the manifest ``target`` refers to, if anything."""
    node = parse(read(store, target), "manifest").get("subject")
    return Descriptor.from_json(node).digest if node else None


def read_image(store: Readable, target: Descriptor) -> Image:
    """Read one platform's image: its manifest and its config; raise :class:`NotAnImage`.

    It is for the platform that ``target`` is listed for, if that is known.
    """
    from mlpack.oci.image import Image

    manifest = read(store, target)
    config = Image(manifest, b"{}").config_descriptor
    if config.media_type not in media.CONFIGS:
        raise NotAnImage(f"{target.digest} is not an image: its config is {config.media_type}")
    return Image(manifest, read(store, config), target.platform)


def read_index(store: Readable, target: Descriptor) -> Index:
    """Read an index."""
    from mlpack.oci.image import Index

    return Index(read(store, target))


def images(store: Readable, target: Descriptor) -> tuple[Image, ...]:
    """Read the image at ``target``, or all images of the index that are here.

    Raises :class:`NotHere` if none of an index is.
    """
    if target.media_type not in media.INDEXES:
        return (read_image(store, target),)
    found = tuple(_held(store, manifests(store, target)))
    if not found:
        raise _none_here(target)
    return found


def _held(store: Readable, entries: Iterable[Descriptor]) -> Iterator[Image]:
    """Yield the images among ``entries`` that are here."""
    for each in entries:
        with suppress(NotFound, NotAnImage):
            yield read_image(store, each)


def _none_here(target: Descriptor) -> NotHere:
    return NotHere(f"none of the images that index {target.digest.short} lists is here")


def select_image(store: Readable, target: Descriptor, platform: Platform | None) -> Image:
    """Read the image for ``platform`` at ``target``; by default the first, those for Windows last.

    An entry's platform counts, and only where it has none the config's. Raises
    :class:`~mlpack.oci.image.NoSuchPlatform`, and :class:`NotHere` if the image is not here.
    """
    if target.media_type not in media.INDEXES:
        return read_image(store, target)
    listed = manifests(store, target)
    if platform is None:
        found = next(_held(store, sorted(listed, key=_is_for_windows)), None)
        if found is None:
            raise _none_here(target)
        return found
    return _for_platform(store, target, listed, platform)


def _is_for_windows(entry: Descriptor) -> bool:
    return entry.platform is not None and entry.platform.os == "windows"


def _for_platform(
    store: Readable, target: Descriptor, listed: Sequence[Descriptor], platform: Platform
) -> Image:
    from mlpack.oci.image import select

    known = tuple(_with_platform(store, listed))
    entry = select(known, platform, target.digest)
    try:
        return read_image(store, entry)
    except NotFound as error:
        here = ", ".join(str(each.platform) for each in _held(store, known))
        raise NotHere(
            f"the image for {entry.platform} that index {target.digest.short} lists is not here",
            hint=f"name one that is, with --platform: {here}" if here else "copy it here first",
        ) from error


def _with_platform(store: Readable, entries: Iterable[Descriptor]) -> Iterator[Descriptor]:
    """Yield ``entries``, each with the platform of its config where it has none."""
    for entry in entries:
        if entry.platform:
            yield entry
            continue
        for image in _held(store, [entry]):
            yield replace(entry, platform=image.platform)


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
