"""Copying an image between any two stores: children first, only what is missing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.digest import Digest
from mlpack.oci.document import parse
from mlpack.stores.base import NotFound, Readable, Store, absent, read
from mlpack.stores.registry import DOCUMENTS, RegistryStore

THREADS = 4
"""Blobs moved at once; on one link more only take turns."""

Advance = Callable[[int], None]
"""Told bytes."""


@dataclass(frozen=True)
class Copied:
    """What a copy did with each blob and document."""

    sent: tuple[Descriptor, ...] = ()
    mounted: tuple[Descriptor, ...] = ()
    """Taken by the registry from another of its repositories."""

    present: tuple[Descriptor, ...] = ()
    """There before; below a manifest that a registry has, nothing is looked at."""

    @property
    def sent_bytes(self) -> int:
        """Bytes of what was sent."""
        return sum(each.size for each in self.sent)


@dataclass(frozen=True)
class MountFrom:
    """Blobs that another repository of the target's registry holds."""

    repository: str
    digests: Collection[Digest]


@dataclass
class _Job:
    source: Readable
    target: Store
    mounts: Mapping[Digest, str]
    advance: Advance
    expect: Advance
    stop: threading.Event = field(default_factory=threading.Event)


def copy(
    source: Readable,
    target: Store,
    root: Descriptor,
    *,
    mount: MountFrom | None = None,
    skip: Collection[Digest] = (),
    advance: Advance = lambda _: None,
    expect: Advance = lambda _: None,
) -> Copied:
    """Copy ``root`` and all it points at from ``source`` to ``target``; the caller names it.

    Documents come after what they point at, so a reader of ``target`` never finds one
    whose parts are missing, and an interrupted copy is finished by running it again.
    ``skip`` names blobs that are left out, which only a layout accepts. ``expect`` is told
    once how many bytes of blobs are missing, ``advance`` those that were read of them.
    """
    # A registry refuses a manifest whose parts it lacks: where it has one it has all.
    if isinstance(target, RegistryStore) and target.exists(root):
        return Copied(present=(root,))
    documents: dict[Digest, Descriptor] = {}
    below: dict[Digest, Descriptor] = {}
    _walk(source, root, documents, below)
    mounts = dict.fromkeys(mount.digests, mount.repository) if mount else {}
    job = _Job(source, target, mounts, advance, expect)
    wanted = [each for each in below.values() if each.digest not in skip]
    done = _all(job, wanted)
    for document in documents.values():
        with source.open(document) as content:
            target.put(document, content)
    return Copied(
        sent=(*(each for each, how in done if how == "sent"), *documents.values()),
        mounted=tuple(each for each, how in done if how == "mounted"),
        present=tuple(each for each, how in done if how == "present"),
    )


def children(content: bytes, media_type: str) -> Iterator[Descriptor]:
    """What a manifest or index points at; layers that may not be distributed are left out."""
    document = parse(content, "manifest")
    if media_type in media.INDEXES:
        listed = document.need("manifests").elements()
        yield from (Descriptor.from_json(each) for each in listed)
        return
    layers = document.get("layers")
    for each in (document.need("config"), *(layers.elements() if layers else ())):
        if not each.get("urls"):
            yield Descriptor.from_json(each)


def blobs(source: Readable, root: Descriptor) -> tuple[Digest, ...]:
    """The configs and layers below ``root``; only documents are read."""
    documents: dict[Digest, Descriptor] = {}
    found: dict[Digest, Descriptor] = {}
    _walk(source, root, documents, found)
    return tuple(found)


def _walk(
    source: Readable,
    root: Descriptor,
    documents: dict[Digest, Descriptor],
    below: dict[Digest, Descriptor],
) -> None:
    for child in children(read(source, root), root.media_type):
        if child.media_type not in DOCUMENTS:
            below.setdefault(child.digest, child)
        elif child.digest not in documents:
            _walk(source, child, documents, below)
    documents[root.digest] = root


def _all(job: _Job, wanted: list[Descriptor]) -> list[tuple[Descriptor, str]]:
    """Look what is there, all of it first, so that the rest is known before it moves."""
    found = dict(zip((each.digest for each in wanted), _each(job, _look, wanted), strict=True))
    missing = [each for each in wanted if found[each.digest] == "sent"]
    job.expect(sum(each.size for each in missing))
    _each(job, _send, missing)
    return [(each, found[each.digest]) for each in wanted]


def _each(job: _Job, do: Callable[[_Job, Descriptor], str], wanted: list[Descriptor]) -> list[str]:
    if not wanted:
        return []
    with ThreadPoolExecutor(min(THREADS, len(wanted)), thread_name_prefix="copy") as pool:
        running = [pool.submit(do, job, blob) for blob in wanted]
        try:
            return [each.result() for each in running]
        except BaseException:
            # Also on an interrupt: the other threads end at the next piece they read.
            job.stop.set()
            for each in running:
                each.cancel()
            raise


def _look(job: _Job, blob: Descriptor) -> str:
    place = job.mounts.get(blob.digest)
    if place and isinstance(job.target, RegistryStore) and job.target.mount(blob, place):
        return "mounted"
    return "present" if job.target.exists(blob) else "sent"


def _send(job: _Job, blob: Descriptor) -> str:
    with job.source.open(blob) as content:
        job.target.put(blob, cast(BinaryIO, _Watched(content, job)))
    return "sent"


class _Watched:
    """A file that says how far it was read, and ends when the copy is given up."""

    def __init__(self, content: BinaryIO, job: _Job) -> None:
        self._content = content
        self._job = job

    def read(self, size: int = -1) -> bytes:
        if self._job.stop.is_set():
            raise InterruptedError("another part of the copy failed")
        data = self._content.read(size)
        self._job.advance(len(data))
        return data

    def seekable(self) -> bool:
        return self._content.seekable()

    def seek(self, offset: int) -> int:
        self._job.advance(offset - self._content.tell())
        return self._content.seek(offset)


class FirstOf:
    """Several stores read as one: content comes from the first that has it."""

    def __init__(self, *stores: Readable) -> None:
        self._stores = stores

    def exists(self, target: Descriptor) -> bool:
        """Whether any has it."""
        return any(store.exists(target) for store in self._stores)

    def open(self, target: Descriptor) -> AbstractContextManager[BinaryIO]:
        """Open it where it is."""
        for store in self._stores:
            if store.exists(target):
                return store.open(target)
        raise absent(target.digest, "none of the stores")

    def resolve(self, name: str) -> Descriptor:
        """What the first store that knows ``name`` calls so."""
        for store in self._stores:
            try:
                return store.resolve(name)
            except NotFound:
                continue
        raise NotFound(f"no store has the name {name!r}")
