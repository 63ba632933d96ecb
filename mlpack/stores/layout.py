"""The OCI image layout (image-spec, image-layout.md), which skopeo and podman read.

Blobs are files named by their digests; ``index.json`` names some of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import (
    MAX_DOCUMENT_BYTES,
    Descriptor,
    InvalidContent,
    canonical,
    parse,
)
from mlpack.stores.files import SHARED, NotAFile, atomic, locked, open_file, staged
from mlpack.stores.store import (
    DOCUMENTS,
    Corrupt,
    NotFound,
    StagedBlob,
    not_found,
    subject,
    verified,
    verify,
)
from mlpack.stores.store_use import mark, names_lock

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
