"""Stores of OCI content: their protocols, verified reads, and the layout on disk.

What only some stores can do is a protocol of one member, as in oras-go, and callers ask for that;
those that only copies ask for are in :mod:`mlpack.stores.copy`.
:class:`LayoutStore` is an OCI image layout (image-spec, image-layout.md), which skopeo and podman
read.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
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
    canonical,
    parse,
)
from mlpack.stores.files import SHARED, NotAFile, atomic, locked, open_file, staged
from mlpack.stores.store_use import mark, names_lock

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


REF_NAME = "org.opencontainers.image.ref.name"
BASE_NAME = "org.opencontainers.image.base.name"
"""Where a release's base is, if its layers are in a registry and not in the layout; an
annotation of ``index.json``, which no device fetches."""


class NotALayout(NotFound):
    """A directory that is not an OCI image layout."""

    hint = "copy an image into one with: skopeo copy docker://REFERENCE oci:DIR:TAG"


class LayoutStore:
    """Blobs in ``blobs/sha256``, names in ``index.json``.

    Blobs are written to a temporary file, synced and renamed, so readers see whole ones only and
    two processes may write the same one. Names change under a lock file next to the layout.
    Several processes may use one layout at once.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        self._unfinished = root / "unfinished"
        self._index = root / "index.json"

    @classmethod
    def existing(cls, root: Path) -> LayoutStore:
        """Open the layout at ``root``; raise :class:`NotALayout`."""
        if not (root / "oci-layout").is_file() or not (root / "index.json").is_file():
            raise NotALayout(f"{root} is not an OCI image layout (no oci-layout and index.json)")
        return cls(root)

    @property
    def has_names(self) -> bool:
        """Whether anything was ever named here."""
        return self._index.is_file()

    def path(self, target: Descriptor) -> Path:
        """Return the path of the blob, whether or not it exists."""
        return self._blobs / target.digest.hex

    def exists(self, target: Descriptor) -> bool:
        """Whether the blob exists with its size; its bytes are checked when it is read."""
        path = self.path(target)
        return path.is_file() and path.stat().st_size == target.size

    def _intact(self, target: Descriptor) -> bool:
        if not self.exists(target):
            return False
        try:
            verify(self, target)
        except Corrupt:
            return False
        return True

    @contextmanager
    def open(self, target: Descriptor) -> Iterator[BinaryIO]:
        """Open the blob."""
        try:
            content = open_file(self.path(target))
        except NotAFile:
            raise not_found(target.digest, str(self.root)) from None
        with content:
            yield content

    def put(self, target: Descriptor, content: BinaryIO) -> None:
        """Keep ``content`` as ``target``, unless an intact copy exists.

        An existing blob is verified first: one that changed on disk must not prevent the command
        that would repair it from doing so.
        """
        if self._intact(target):
            return
        with staged(self._unfinished) as (out, keep):
            for chunk in verified(content, target):
                out.write(chunk)
            keep(self.path(target), SHARED)

    @contextmanager
    def stage(self) -> Iterator[StagedBlob]:
        """Write one blob whose digest is known at the end."""
        with staged(self._unfinished) as (out, keep):
            yield StagedBlob(out, lambda target: keep(self.path(target), SHARED))

    def resolve(self, name: str) -> Descriptor:
        """Return what ``name`` points at."""
        found = self.tags().get(name)
        if found is None:
            raise NotFound(f"{self.root} has no name {name!r}")
        return found

    def tag(self, target: Descriptor, name: str) -> None:
        """Point ``name`` at ``target``; other entries of the index, named or not, stay."""
        if not self.exists(target):
            raise not_found(target.digest, str(self.root))
        named = replace(target, annotations={**target.annotations, REF_NAME: name})
        with self._changing() as entries:
            entries[:] = [each for each in entries if each.annotations.get(REF_NAME) != name]
            entries.append(named)

    def untag(self, *names: str) -> None:
        """Remove ``names``, all or none; unknown names are ignored, and blobs stay."""
        with self._changing() as entries:
            entries[:] = [each for each in entries if each.annotations.get(REF_NAME) not in names]

    def tags(self) -> Mapping[str, Descriptor]:
        """Return every name and what it points at, ordered by name."""
        named = {
            each.annotations[REF_NAME]: each
            for each in self.entries()
            if REF_NAME in each.annotations
        }
        return {name: named[name] for name in sorted(named)}

    def entries(self) -> tuple[Descriptor, ...]:
        """Return what ``index.json`` lists, named or not."""
        if not self._index.is_file():
            return ()
        if self._index.stat().st_size > MAX_DOCUMENT_BYTES:
            raise Corrupt(f"{self._index} is larger than {MAX_DOCUMENT_BYTES} bytes")
        try:
            listed = parse(self._index.read_bytes(), str(self._index)).need("manifests")
            return tuple(Descriptor.from_json(each) for each in listed.elements())
        except InvalidContent as error:
            raise Corrupt(str(error)) from error

    def referrers(self, target: Descriptor, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return what ``index.json`` lists whose subject is ``target``."""
        listed = (
            each
            for each in self.entries()
            if each.media_type in DOCUMENTS and artifact_type in ("", each.artifact_type)
        )
        return tuple(each for each in listed if self._refers(each, target))

    def _refers(self, entry: Descriptor, target: Descriptor) -> bool:
        try:
            return subject(self, entry) == target.digest
        except (InvalidContent, Corrupt, NotFound):
            return False

    @contextmanager
    def _changing(self) -> Iterator[list[Descriptor]]:
        """Lock the layout, and write ``index.json`` if the block changes the list of entries."""
        with locked(names_lock(self.root)):
            before = self.entries()
            entries = list(before)
            yield entries
            if tuple(entries) == before:
                return
            mark(self.root)
            ordered = sorted(entries, key=lambda each: each.annotations.get(REF_NAME, ""))
            document = {
                "schemaVersion": 2,
                "mediaType": media.INDEX,
                "manifests": [each.to_json() for each in ordered],
            }
            with atomic(self._index) as out:
                out.write(canonical(document))
