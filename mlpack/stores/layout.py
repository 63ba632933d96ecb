"""An OCI image layout on disk (image-spec, image-layout.md), which skopeo and podman read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.digest import Digest, Hashing
from mlpack.oci.document import MAX_DOCUMENT_BYTES, InvalidContent, canonical, parse
from mlpack.oci.validate import index_problems, problems
from mlpack.stores.base import (
    Corrupt,
    NotFound,
    absent,
    images,
    read,
    read_image,
    read_index,
    verified,
    verify,
)
from mlpack.stores.files import atomic, locked, staged

REF_NAME = "org.opencontainers.image.ref.name"
BASE_NAME = "org.opencontainers.image.base.name"
"""Where the base of a release is, if its layers are in a registry and not here; kept in
``index.json``, which no device fetches."""

_VERSION = b'{"imageLayoutVersion":"1.0.0"}'


class NotALayout(NotFound):
    """A directory that is not an OCI image layout."""

    hint = "copy an image into one with: skopeo copy docker://REFERENCE oci:DIR:TAG"


class LayoutStore:
    """Blobs in ``blobs/sha256``, names in ``index.json``.

    Blobs are written beside, synced and renamed, so a reader sees whole ones
    only, and two processes may write the same one. Names change under a lock
    file beside the layout. Several processes may use one layout at once.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        self._unfinished = root / "unfinished"
        self._index = root / "index.json"

    @classmethod
    def existing(cls, root: Path) -> LayoutStore:
        """The layout at ``root``; raise :class:`NotALayout` where there is none."""
        if not (root / "oci-layout").is_file() or not (root / "index.json").is_file():
            raise NotALayout(f"{root} is not an OCI image layout (no oci-layout and index.json)")
        return cls(root)

    def path(self, target: Descriptor) -> Path:
        """Where the blob lies or would lie."""
        return self._blobs / target.digest.hex

    def exists(self, target: Descriptor) -> bool:
        """Whether the blob is here with its size; its bytes are checked when read."""
        path = self.path(target)
        return path.is_file() and path.stat().st_size == target.size

    def _holds(self, target: Descriptor) -> bool:
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
            content = self.path(target).open("rb")
        except FileNotFoundError:
            raise absent(target.digest, str(self.root)) from None
        with content:
            yield content

    def put(self, target: Descriptor, content: BinaryIO) -> None:
        """Keep ``content`` as ``target``; what is there whole is not written again.

        What is there is read first: a blob whose bytes changed on disk must not
        make the command that would mend it believe that it is there.
        """
        if self._holds(target):
            return
        with staged(self._unfinished) as (out, keep):
            for chunk in verified(content, target):
                out.write(chunk)
            keep(self.path(target))

    @contextmanager
    def stage(self) -> Iterator[_Staged]:
        """A place to write one blob whose digest is known at the end."""
        with staged(self._unfinished) as (out, keep):
            yield _Staged(out, lambda target: keep(self.path(target)))

    def resolve(self, name: str) -> Descriptor:
        """What ``name`` points at."""
        found = self.tags().get(name)
        if found is None:
            raise NotFound(f"{self.root} has no name {name!r}")
        return found

    def tag(self, target: Descriptor, name: str) -> None:
        """Point ``name`` at ``target``; other entries of the index, named or not, stay."""
        if not self.exists(target):
            raise absent(target.digest, str(self.root))
        with locked(self.root.with_name(self.root.name + ".lock")):
            others = [each for each in self.entries() if each.annotations.get(REF_NAME) != name]
            named = replace(target, annotations={**target.annotations, REF_NAME: name})
            self._write_index([*others, named])

    def tags(self) -> Mapping[str, Descriptor]:
        """Every name and what it points at, in the order of the names."""
        named = {
            each.annotations[REF_NAME]: each
            for each in self.entries()
            if REF_NAME in each.annotations
        }
        return {name: named[name] for name in sorted(named)}

    def entries(self) -> tuple[Descriptor, ...]:
        """What ``index.json`` lists, named or not."""
        if not self._index.is_file():
            return ()
        if self._index.stat().st_size > MAX_DOCUMENT_BYTES:
            raise Corrupt(f"{self._index} is larger than {MAX_DOCUMENT_BYTES} bytes")
        try:
            listed = parse(self._index.read_bytes(), str(self._index)).need("manifests")
            return tuple(Descriptor.from_json(each) for each in listed.elements())
        except InvalidContent as error:
            raise Corrupt(str(error)) from error

    def _write_index(self, entries: list[Descriptor]) -> None:
        marker = self.root / "oci-layout"
        if not marker.is_file():
            with atomic(marker) as out:
                out.write(_VERSION)
        ordered = sorted(entries, key=lambda each: each.annotations.get(REF_NAME, ""))
        document = {
            "schemaVersion": 2,
            "mediaType": media.INDEX,
            "manifests": [each.to_json() for each in ordered],
        }
        with atomic(self._index) as out:
            out.write(canonical(document))


class _Staged(Hashing):
    """Hashes while it writes, so committing does not read the blob again."""

    def __init__(self, out: BinaryIO, keep: Callable[[Descriptor], None]) -> None:
        super().__init__(out)
        self._keep = keep

    def commit(self, target: Descriptor) -> None:
        if (self.size, self.digest) != (target.size, target.digest):
            raise Corrupt(f"{target.digest} was written as other bytes")
        self._keep(target)


def validate(layout: LayoutStore) -> tuple[str, ...]:
    """Read every blob that ``index.json`` leads to, verified; return what is wrong.

    A blob that nothing names is no fault: an interrupted command may leave one. Nor is
    a layer of a base that is in a registry.
    """
    return each_entry(layout, lambda entry: _problems(layout, entry, base_layers(layout, entry)))


def each_entry(layout: LayoutStore, look: Callable[[Descriptor], Iterable[str]]) -> tuple[str, ...]:
    """What ``look`` finds wrong with each thing ``index.json`` lists; what it raises counts too."""
    found: list[str] = []
    for entry in layout.entries():
        name = entry.annotations.get(REF_NAME, entry.digest.short)
        try:
            found += [f"{name}: {problem}" for problem in look(entry)]
        except MlpackError as error:
            found.append(f"{name}: {error}")
    return tuple(found)


def base_layers(layout: LayoutStore, entry: Descriptor) -> frozenset[Digest]:
    """The layers below a release that stayed with its base in a registry."""
    if BASE_NAME not in entry.annotations:
        return frozenset()
    below = (layer for image in images(layout, entry) for layer in image.layers[:-1])
    return frozenset(each.digest for each in below if not layout.exists(each.descriptor))


def children(layout: LayoutStore, manifest: Descriptor) -> tuple[Descriptor, ...]:
    """The config and the layers a manifest names."""
    content = parse(read(layout, manifest), "manifest")
    listed = (content.need("config"), *content.need("layers").elements())
    return tuple(Descriptor.from_json(each) for each in listed)


def _problems(
    layout: LayoutStore, entry: Descriptor, elsewhere: frozenset[Digest]
) -> Iterator[str]:
    """Verify all blobs below ``entry`` but those ``elsewhere``, and check the images among them."""
    if entry.media_type in media.INDEXES:
        index = read_index(layout, entry)
        for child in index.manifests:
            yield from _problems(layout, child, elsewhere)
        yield from index_problems(index, images(layout, entry))
        return
    config, *layers = children(layout, entry)
    for child in (config, *layers):
        if child.digest not in elsewhere:
            verify(layout, child)
    if config.media_type in media.CONFIGS:
        yield from problems(read_image(layout, entry))
