"""The OCI image layout (image-spec, image-layout.md), which skopeo and podman read.

Blobs are files named by their digests; ``index.json`` names some of them. It may be another tool's:
whatever is written into it, what does not change stays as it was, unknown members and order, too.
"""

from __future__ import annotations

import io
import json
import re
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.conversion import Conversion, to_oci
from mlpack.oci.descriptor import (
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Digest,
    InvalidContent,
    Node,
    canonical,
    parse,
)
from mlpack.stores.files import SHARED, NotAFile, atomic, locked, open_file, staged
from mlpack.stores.store import (
    DOCUMENTS,
    Corrupt,
    NotFound,
    StagedBlob,
    documents,
    not_found,
    read,
    subject,
    verified,
    verify,
)
from mlpack.stores.store_use import mark, names_lock

REF_NAME = "org.opencontainers.image.ref.name"
BASE_NAME = "org.opencontainers.image.base.name"
"""Where a release's base is, if its layers are in a registry and not in the layout; an
annotation of ``index.json``, which no device fetches."""

ORIGINAL = "io.mlpack.original"
"""Annotation of an entry of ``index.json`` that names an image with OCI's media types: the digest
of the same image with Docker's, which devices pull and which the layout holds as well."""


class NotALayout(NotFound):
    """A directory that is not an OCI image layout."""

    hint = "copy an image into one with: skopeo copy docker://REFERENCE oci:DIR:TAG"


class NamedTwice(MlpackError):
    """A name that ``index.json`` has for several images."""


IMAGE_NAME = "io.containerd.image.name"
"""Annotation of containerd and Docker: the whole name, where ``REF_NAME`` may be a tag only."""

_OTHER_DIGEST = re.compile(r"(?!sha256:)[a-z0-9]+(?:[+._-][a-z0-9]+)*:[A-Za-z0-9=_-]+")
"""A digest by another algorithm (image-spec, descriptor.md), which this module cannot read."""

_Entry = dict[str, object]
"""An entry of ``index.json`` with all its members."""


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
        """Return what ``name`` points at, a tag or a whole name; raise :class:`NamedTwice`."""
        for key in (REF_NAME, IMAGE_NAME):
            found = self._named(name, key)
            if found:
                self._require_one(name, found)
                return found[0]
        raise NotFound(f"{self.root} has no name {name!r}")

    def check_free(self, name: str) -> None:
        """Raise :class:`NamedTwice` if ``name`` is that of several images, so none's to move."""
        self._require_one(name, self._named(name, REF_NAME))

    def _named(self, name: str, key: str) -> list[Descriptor]:
        """Return the entries of a name; only their originals are read."""
        named = (each for each in self.listed() if each.annotations.get(key) == name)
        return [self._original(each) for each in named]

    def _require_one(self, name: str, found: Sequence[Descriptor]) -> None:
        digests = {each.digest: each for each in found}
        if len(digests) > 1:
            listed = ", ".join(map(_described, digests.values()))
            raise NamedTwice(
                f"{self.root} has the name {name!r} for {len(digests)} images: {listed}",
                hint=f"name one by its digest, such as oci:{self.root}@{found[0].digest}",
            )

    def find(self, digest: Digest) -> Descriptor:
        """Return the image or index ``digest`` that ``index.json`` leads to, or led to before."""
        for entry in (*self.entries(), *self.listed()):
            with suppress(NotFound, Corrupt, InvalidContent):
                for each in documents(self, entry):
                    if each.digest == digest:
                        return each
        raise NotFound(f"{self.root} lists no image {digest}")

    def tag(self, target: Descriptor, name: str) -> None:
        """Point ``name`` at ``target``; other entries, named or not, stay as they are.

        An image with Docker's media types is named with OCI's, since no other reader of a layout
        knows those; the entry notes what it was, and mlpack continues with that (:meth:`entries`).
        Raises :class:`NamedTwice` if the name is that of several images.
        """
        if not self.exists(target):
            raise not_found(target.digest, str(self.root))
        self.check_free(name)
        made = self.as_oci(target)
        for each, content in made.documents.items():
            self.put(each, io.BytesIO(content))
        notes = {key: note for key, note in target.annotations.items() if key != ORIGINAL}
        if made.root.digest != target.digest:
            notes[ORIGINAL] = str(target.digest)
        named = replace(made.root, annotations={**notes, REF_NAME: name})
        with self._changing() as entries:
            held = next((each for each in entries if _name(each) == name), None)
            names = [_name(each) for each in entries]
            place = names.index(name) if held else _place(names, name)
            entries[:] = [each for each in entries if _name(each) != name]
            entries.insert(place, _renewed(held or {}, named))

    def as_oci(self, target: Descriptor) -> Conversion:
        """Return what :meth:`tag` names for ``target``: the same image with OCI's media types."""
        return to_oci(target, self._held)

    def _held(self, target: Descriptor) -> bytes | None:
        return read(self, target) if self.exists(target) else None

    def untag(self, *names: str) -> None:
        """Remove ``names``, all or none; unknown names are ignored, and blobs stay."""
        with self._changing() as entries:
            entries[:] = [each for each in entries if _name(each) not in names]

    def tags(self) -> Mapping[str, Descriptor]:
        """Return every name and what it points at, ordered by name."""
        named = {
            each.annotations[REF_NAME]: each
            for each in self.entries()
            if REF_NAME in each.annotations
        }
        return {name: named[name] for name in sorted(named)}

    def entries(self) -> tuple[Descriptor, ...]:
        """Return what ``index.json`` lists by sha256; images that were Docker's as those."""
        return tuple(self._original(each) for each in self.listed())

    def listed(self) -> tuple[Descriptor, ...]:
        """Return what ``index.json`` lists by sha256, named or not, as it shows other tools."""
        found = (_descriptor(each) for each in _listed(self._document()))
        try:
            return tuple(each for each in found if each)
        except InvalidContent as error:
            raise Corrupt(str(error)) from error

    def _document(self) -> Node:
        if not self._index.is_file():
            empty = {"manifests": [], "mediaType": media.INDEX, "schemaVersion": 2}
            return Node(empty, str(self._index))
        if self._index.stat().st_size > MAX_DOCUMENT_BYTES:
            raise Corrupt(f"{self._index} is larger than {MAX_DOCUMENT_BYTES} bytes")
        try:
            return parse(self._index.read_bytes(), str(self._index))
        except InvalidContent as error:
            raise Corrupt(str(error)) from error

    def _original(self, entry: Descriptor) -> Descriptor:
        """Return what ``entry`` was made from, if that is here and still gives ``entry``.

        Another tool may have changed what the name points at, or removed what nothing names.
        """
        noted = entry.annotations.get(ORIGINAL)
        if noted is None:
            return entry
        try:
            target = replace(entry, digest=Digest.parse(noted))
            target = replace(target, size=self.path(target).stat().st_size)
            stated = parse(read(self, target), noted).get("mediaType")
            target = replace(target, media_type=stated.text()) if stated else target
            same = self.as_oci(target).root.digest == entry.digest
        except (MlpackError, OSError):
            return entry
        return target if same else entry

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
    def _changing(self) -> Iterator[list[_Entry]]:
        """Lock the layout, and write ``index.json`` if the block changes the list of entries."""
        with locked(names_lock(self.root)):
            self.listed()  # what cannot be read is not written either
            document = self._document()
            before = [dict(each.mapping()) for each in _listed(document)]
            entries = list(before)
            yield entries
            if entries == before:
                return
            mark(self.root)
            with atomic(self._index) as out:
                out.write(_written({**document.mapping(), "manifests": entries}))


def _listed(document: Node) -> Iterator[Node]:
    """Yield the entries of an index; Go writes ``null`` for an empty list."""
    if document.mapping().get("manifests", ()) is not None:
        yield from document.need("manifests").elements()


def _descriptor(entry: Node) -> Descriptor | None:
    """Read an entry; ``None`` if its digest is none that this module can check."""
    digest = entry.need("digest")
    return None if _OTHER_DIGEST.fullmatch(digest.text()) else Descriptor.from_json(entry)


def _name(entry: _Entry) -> str:
    annotations = entry.get("annotations")
    return str(annotations.get(REF_NAME, "")) if isinstance(annotations, dict) else ""


def _place(names: Sequence[str], name: str) -> int:
    """Where a new name goes: among sorted ones in their order, else to the end."""
    return bisect(names, name) if list(names) == sorted(names) else len(names)


def _renewed(entry: _Entry, target: Descriptor) -> _Entry:
    """Return ``target`` as an entry; if ``entry`` was of the same content, with its members."""
    members: _Entry = json.loads(canonical(target.to_json()))
    if entry.get("digest") != members["digest"]:
        return members
    held = Descriptor.from_json(Node(entry, "entry")).platform
    if target.platform in (None, held):
        members.pop("platform", None)
    dropped = {"annotations", "artifactType"} - members.keys()
    return {key: value for key, value in {**entry, **members}.items() if key not in dropped}


def _written(document: Mapping[str, object]) -> bytes:
    """Return JSON in one line with its members in their order, as UTF-8 wherever that can be."""
    try:
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write
        return json.dumps(document, separators=(",", ":")).encode()


def _described(entry: Descriptor) -> str:
    """The digest, and what else tells an entry from others."""
    more = (entry.annotations.get(IMAGE_NAME, ""), str(entry.platform or ""))
    told = ", ".join(filter(None, more))
    return f"{entry.digest} ({told})" if told else str(entry.digest)
