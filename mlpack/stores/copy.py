"""Copying images between any two stores: parts first, only what is missing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import BinaryIO, Literal, Protocol, cast, runtime_checkable

from mlpack.errors import MlpackError
from mlpack.interruptions import call_in_threads
from mlpack.json_document import named
from mlpack.oci.descriptor import Descriptor, Digest, Reference
from mlpack.stores.layout import LayoutStore
from mlpack.stores.records import RECORD, RECORDS, records
from mlpack.stores.store import (
    DOCUMENTS,
    NotFound,
    Readable,
    ReferrersUnsupported,
    Remote,
    Store,
    not_found,
    walk,
)

THREADS = 4
"""Blobs copied at once; on one link more threads only take turns."""


@runtime_checkable
class Mounts(Protocol):
    """A store that can take blobs from other repositories of the same registry."""

    def mount(self, target: Descriptor, source: Reference) -> bool:
        """Take ``target`` from the repository ``source``; return whether that worked."""
        ...


@runtime_checkable
class Transactional(Protocol):
    """A store that refuses a manifest unless it holds everything the manifest points at."""

    def has_all(self, target: Descriptor) -> bool:
        """Whether the store holds ``target`` and everything below it."""
        ...


@runtime_checkable
class AttachesReferrers(Protocol):
    """A store in which an artifact must be attached to its subject to be listed."""

    def attach(
        self, source: Readable, referrer: Descriptor, subject: Descriptor, *, new: bool = False
    ) -> None:
        """Copy ``referrer`` from ``source``, and list it; raise :class:`ReferrersUnsupported`.

        ``new`` if the store did not hold ``subject`` before: then it has no referrers yet.
        """
        ...


class CopyProgress(Protocol):
    """Progress callback; called with the number of bytes copied."""

    def __call__(self, count: int, /) -> None:
        """Report that ``count`` more bytes were read; negative if an upload went back."""
        ...

    def expect(self, total: int, /) -> None:
        """Report how many bytes are missing, once, as soon as that is known."""
        ...


class NoProgress:
    """A progress callback that does nothing."""

    def __call__(self, count: int) -> None:
        """Do nothing."""

    def expect(self, total: int) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class CopyOptions:
    """What a copy may take from elsewhere, and what it may leave out."""

    mounts: Mapping[Digest, Reference] = field(default_factory=dict)
    """Blobs that other repositories hold; the target takes those of its own registry from there.
    Not needed for what the source itself holds."""

    skip: Collection[Digest] = ()
    """Blobs to leave out; only a layout accepts an image without them."""

    progress: CopyProgress = field(default_factory=NoProgress)


@dataclass(frozen=True)
class CopyResult:
    """What a copy did with each blob and document."""

    sent: tuple[Descriptor, ...] = ()
    mounted: tuple[Descriptor, ...] = ()
    """Taken by the registry from another of its repositories."""

    present: tuple[Descriptor, ...] = ()
    """Already in the target; nothing below a manifest that a registry holds is listed."""

    @property
    def sent_bytes(self) -> int:
        """Bytes of what was sent."""
        return sum(each.size for each in self.sent)


@dataclass(frozen=True)
class DigestChange:
    """An image whose digest is another where it was written, and otherwise is the same image.

    Its manifest has other media types there: in a layout OCI's instead of Docker's.
    """

    before: Digest = field(metadata=named("from"))
    after: Digest = field(metadata=named("to"))

    @classmethod
    def between(cls, before: Descriptor, after: Descriptor) -> DigestChange | None:
        """Return the change from one to the other; ``None`` if there is none."""
        same = before.digest == after.digest
        return None if same else cls(before.digest, after.digest)


def shown(store: Readable, target: Descriptor) -> Descriptor:
    """Return what other tools find where ``target`` is tagged in ``store``."""
    return store.as_oci(target).root if isinstance(store, LayoutStore) else target


_Outcome = Literal["sent", "mounted", "present"]


def copy(
    source: Readable, target: Store, root: Descriptor, options: CopyOptions | None = None
) -> CopyResult:
    """Copy ``root`` and everything it points at; the caller tags it.

    Documents are written after what they point at: a reader of ``target`` never finds one whose
    parts are missing, and an interrupted copy is finished by running it again.
    """
    if isinstance(target, Transactional) and target.has_all(root):
        return CopyResult(present=(root,))
    options = options or CopyOptions()
    nodes = tuple(walk(source, root))
    blobs = [
        each
        for each in nodes
        if each.media_type not in DOCUMENTS and each.digest not in options.skip
    ]
    outcomes = _Copier(source, target, options).run(blobs)
    documents = [each for each in nodes if each.media_type in DOCUMENTS]
    for document in documents:
        with source.open(document) as content:
            target.put(document, content)

    def having(outcome: _Outcome) -> tuple[Descriptor, ...]:
        return tuple(blob for blob, found in zip(blobs, outcomes, strict=True) if found == outcome)

    return CopyResult((*having("sent"), *documents), having("mounted"), having("present"))


def copy_record(
    source: Readable, target: Store, image: Descriptor, name: str = "", *, new: bool = False
) -> Digest | None:
    """Copy the identity record of ``image``, if there is one, and return its digest.

    Its tag is ``release/<name>``, or by its digest without a name; a registry attaches it to the
    image instead. ``new`` if ``target`` did not hold the image before. Raises
    :class:`~mlpack.stores.store.ReferrersUnsupported`.
    """
    found = records(source, image)
    if not found:
        return None
    record = replace(found[0], annotations={}, platform=None, artifact_type=RECORD)
    if isinstance(target, AttachesReferrers):
        target.attach(source, record, image, new=new)
    else:
        try:
            copy(source, target, record)
        except MlpackError as error:
            # Listed, but not there whole: the image does not depend on it.
            raise ReferrersUnsupported(f"the record of {image.digest}: {error}") from error
        target.tag(record, f"{RECORDS}{name}" if name else f"referrers/{record.digest.hex}")
    return record.digest


class _Copier:
    """Copies blobs on several threads; the first failure stops all of them."""

    def __init__(self, source: Readable, target: Store, options: CopyOptions) -> None:
        self._source = source
        self._target = target
        self._options = options
        self._place = source.place if isinstance(source, Remote) else None
        self.stopped = threading.Event()

    def run(self, blobs: list[Descriptor]) -> list[_Outcome]:
        """Look for every blob first, so that the missing bytes are known before any is sent."""
        outcomes = self._each(self._look, blobs)
        pairs = zip(blobs, outcomes, strict=True)
        missing = [blob for blob, outcome in pairs if outcome == "sent"]
        self._options.progress.expect(sum(each.size for each in missing))
        self._each(self._send, missing)
        return outcomes

    def _each(
        self, do: Callable[[Descriptor], _Outcome], blobs: list[Descriptor]
    ) -> list[_Outcome]:
        return call_in_threads([partial(do, each) for each in blobs], THREADS, self.stopped.set)

    def _look(self, blob: Descriptor) -> _Outcome:
        place = self._options.mounts.get(blob.digest, self._place)
        if place and isinstance(self._target, Mounts) and self._target.mount(blob, place):
            return "mounted"
        return "present" if self._target.exists(blob) else "sent"

    def _send(self, blob: Descriptor) -> _Outcome:
        with self._source.open(blob) as content:
            reported = _ReportingReader(content, self._options.progress, self.stopped)
            self._target.put(blob, cast(BinaryIO, reported))
        return "sent"


class _ReportingReader:
    """Reports how far a file was read, and fails once the copy is stopped."""

    def __init__(self, content: BinaryIO, progress: CopyProgress, stopped: threading.Event) -> None:
        self._content = content
        self._progress = progress
        self._stopped = stopped

    def read(self, size: int = -1) -> bytes:
        if self._stopped.is_set():
            raise InterruptedError("another part of the copy failed")
        data = self._content.read(size)
        self._progress(len(data))
        return data

    def seekable(self) -> bool:
        return self._content.seekable()

    def seek(self, offset: int, whence: int = 0) -> int:
        self._progress(offset - self._content.tell())
        return self._content.seek(offset, whence)


class FirstOf:
    """Several stores read as one: content comes from the first that holds it."""

    def __init__(self, *stores: Readable) -> None:
        self._stores = stores

    def exists(self, target: Descriptor) -> bool:
        """Whether any store holds it."""
        return any(store.exists(target) for store in self._stores)

    def open(self, target: Descriptor) -> AbstractContextManager[BinaryIO]:
        """Open it in the first store that holds it."""
        for store in self._stores:
            if store.exists(target):
                return store.open(target)
        raise not_found(target.digest, "none of the stores")

    def resolve(self, name: str) -> Descriptor:
        """Resolve ``name`` in the first store that has it."""
        for store in self._stores:
            try:
                return store.resolve(name)
            except NotFound:
                continue
        raise NotFound(f"no store has the name {name!r}")
