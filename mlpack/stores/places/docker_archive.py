"""``docker-archive:PATH[:NAME]``: a file of ``docker save``, as a store to read from.

Two forms are in use: since Docker 25 the tar is an OCI layout as well; before, ``manifest.json``
names a config and uncompressed layer tars. The second has no OCI manifest, so one is made from its
content, with layers of plain tar.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import MAX_DOCUMENT_BYTES, Descriptor, Digest, Node, canonical
from mlpack.stores.files import NotAFile, open_file
from mlpack.stores.store import CHUNK, Corrupt, NotFound, Readable, not_found

_GZIP = b"\x1f\x8b"


class NotAnArchive(NotFound):
    """A file that ``docker save`` did not write."""

    hint = "make one with: docker save IMAGE -o FILE (uncompressed)"


def read(text: str, directory: Path) -> tuple[Readable, Descriptor]:
    """Find the image at ``PATH[:NAME]``; by default the first."""
    path, _, name = text.partition(":")
    if (directory / text).is_file():
        path, name = text, ""
    archive = ArchiveStore(directory / path)
    return archive, archive.resolve(name)


class ArchiveStore:
    """Reads images from one ``docker save`` file; nothing is written or unpacked."""

    def __init__(self, path: Path) -> None:
        self.root = path
        self._members: dict[Digest, str] = {}
        self._made: dict[Digest, bytes] = {}
        self._names: dict[str, Descriptor] = {}
        try:
            with _opened(path) as archive:
                self._read(archive)
        except NotAFile as error:
            raise NotAnArchive(str(error)) from None
        except (tarfile.TarError, EOFError) as error:
            raise NotAnArchive(f"{path} is not a docker-archive ({error})") from error

    def exists(self, target: Descriptor) -> bool:
        """Whether the archive holds ``target``."""
        return target.digest in self._made or target.digest in self._members

    @contextmanager
    def open(self, target: Descriptor) -> Iterator[BinaryIO]:
        """Open one member."""
        if target.digest in self._made:
            yield io.BytesIO(self._made[target.digest])
        elif target.digest in self._members:
            with _opened(self.root) as archive:
                yield _member(archive, self._members[target.digest])
        else:
            raise not_found(target.digest, str(self.root))

    def resolve(self, name: str) -> Descriptor:
        """Return the image called ``name``; an empty name means the first."""
        if not name and self._names:
            return next(iter(self._names.values()))
        if name not in self._names:
            known = ", ".join(self._names) or "none"
            raise NotFound(f"{self.root} has no image {name!r} (it has: {known})")
        return self._names[name]

    def tags(self) -> Mapping[str, Descriptor]:
        """Return the images of the archive by their ``repository:tag``."""
        return dict(self._names)

    def _read(self, archive: tarfile.TarFile) -> None:
        listed = Node(_json(archive, "manifest.json"), f"{self.root}: manifest.json")
        for image in listed.elements():
            manifest = self._image(archive, image)
            tags = image.get("RepoTags")
            for name in (tags.texts() if tags else ()) or (str(manifest.digest),):
                self._names[name] = manifest
        if not self._names:
            raise NotAnArchive(f"{self.root} contains no image")

    def _image(self, archive: tarfile.TarFile, image: Node) -> Descriptor:
        config = _document(archive, image.need("Config").text())
        layers = []
        for name in image.need("Layers").texts():
            layer = _describe(archive, name)
            self._members[layer.digest] = name
            layers.append(layer.to_json())
        manifest = canonical(
            {
                "schemaVersion": 2,
                "mediaType": media.MANIFEST,
                "config": self._keep(config, media.CONFIG).to_json(),
                "layers": layers,
            }
        )
        return self._keep(manifest, media.MANIFEST)

    def _keep(self, content: bytes, media_type: str) -> Descriptor:
        target = Descriptor.of(content, media_type)
        self._made[target.digest] = content
        return target


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    with open_file(path) as content, tarfile.open(path, "r:", content) as archive:
        yield archive


def _describe(archive: tarfile.TarFile, name: str) -> Descriptor:
    """Hash one layer; newer archives contain gzip, older ones plain tar."""
    content = _member(archive, name)
    running, size, first = hashlib.sha256(), 0, b""
    while chunk := content.read(CHUNK):
        first = first or chunk[:2]
        running.update(chunk)
        size += len(chunk)
    media_type = media.LAYER_GZIP if first == _GZIP else media.LAYER_TAR
    return Descriptor(media_type, Digest(running.hexdigest()), size)


def _member(archive: tarfile.TarFile, name: str) -> BinaryIO:
    try:
        found = archive.extractfile(name)
    except KeyError:
        raise NotAnArchive(f"{archive.name!r} has no {name!r}") from None
    if found is None:
        raise NotAnArchive(f"{archive.name!r}: {name!r} is not a file")
    return cast(BinaryIO, found)


def _document(archive: tarfile.TarFile, name: str) -> bytes:
    content = _member(archive, name).read(MAX_DOCUMENT_BYTES + 1)
    if len(content) > MAX_DOCUMENT_BYTES:
        raise Corrupt(f"{archive.name!r}: {name!r} is larger than {MAX_DOCUMENT_BYTES} bytes")
    return content


def _json(archive: tarfile.TarFile, name: str) -> object:
    import json

    try:
        return json.loads(_document(archive, name))
    except ValueError as error:
        raise NotAnArchive(f"{archive.name!r}: {name} is not JSON") from error
