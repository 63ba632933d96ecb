"""Images in one tar, to read: files of ``docker save``, OCI layouts, and both in one.

Docker's ``manifest.json`` names configs and layers. Since Docker 25 the tar is an OCI layout as
well, and so are those of ``ctr images export``: there an image has a manifest, and keeps it and its
digest. Elsewhere one is made of the config and the layers as they are; a layer in a compression
that OCI has no media type for (xz, bzip2) is read as the tar in it.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from mlpack.errors import MlpackError, UsageError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import (
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Digest,
    InvalidContent,
    Node,
    parse,
)
from mlpack.oci.image import Image, Layer, assemble
from mlpack.oci.reference import on_hub
from mlpack.oci.unpacking import Compression, compression_of
from mlpack.stores.compression import Inflated, inflated, unreadable
from mlpack.stores.files import naming
from mlpack.stores.layout import REF_NAME
from mlpack.stores.store import CHUNK, Corrupt, NotFound, not_found, parts
from mlpack.stores.tar_files import NotAnArchive, TarFiles
from mlpack.stores.trees import LIMITS, LayerLimits, LayerTooLarge

_LISTED, _INDEX = "manifest.json", "index.json"
_IMAGE_NAME = "io.containerd.image.name"
"""The annotation with an image's whole name that Docker and containerd write."""

_TYPES: Mapping[Compression, str] = {
    "none": media.LAYER_TAR,
    "gzip": media.LAYER_GZIP,
    "zstd": media.LAYER_ZSTD,
    "zstd-skippable": media.LAYER_ZSTD,
}
"""Media types of layers as they are; those of other compressions are inflated."""

_MAX_NESTED = 4
_NUMBER = re.compile(r"@([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """An image of an archive, and what it is called in it."""

    target: Descriptor
    names: tuple[str, ...]


class ArchiveStore:
    """Reads images from one tar; nothing is written or unpacked.

    Raises :class:`~mlpack.stores.tar_files.NotAnArchive`.
    """

    def __init__(self, path: Path, limits: LayerLimits = LIMITS) -> None:
        self.root = path
        self._limits = limits
        self._files = TarFiles(path, limits)
        self._members: dict[Digest, str] = {}
        self._inflated: dict[Digest, str] = {}
        self._made: dict[Digest, bytes] = {}
        self._layers: dict[str, Layer] = {}
        self._listed = self._read_index()
        self.images = tuple(self._docker_images()) or self._listed
        """In the order of the archive."""
        if not self.images:
            raise NotAnArchive(
                f"{path} contains no image (no {_LISTED} or {_INDEX} that lists one)"
            )

    def exists(self, target: Descriptor) -> bool:
        """Whether the archive holds ``target``."""
        held = (self._made, self._inflated, self._members)
        return any(target.digest in each for each in held) or self._blob(target) is not None

    @contextmanager
    def open(self, target: Descriptor) -> Iterator[BinaryIO]:
        """Open one file *unverified*, inflated where its compression has no media type."""
        if target.digest in self._made:
            yield io.BytesIO(self._made[target.digest])
        elif target.digest in self._inflated:
            with self._aside(self._inflated[target.digest], target.size) as content:
                yield content
        else:
            name = self._members.get(target.digest) or self._blob(target)
            if name is None:
                raise not_found(target.digest, str(self.root))
            with self._files.open(name) as content:
                yield content

    def resolve(self, name: str) -> Descriptor:
        """Return the image called ``name``, ``@N`` counted from 0, or by default the only one.

        Docker's short names stand for the whole ones. Raises
        :class:`~mlpack.stores.store.NotFound`, or :class:`~mlpack.errors.UsageError` if ``name``
        is that of several images.
        """
        found = [each for each in self.images if not name or _is_called(each, name)]
        if numbered := _NUMBER.fullmatch(name):
            found = list(self.images[int(numbered[1]) :][:1])
        if not found:
            raise NotFound(f"{self.root} has no image {name!r}", hint=f"it has: {self._known()}")
        if len({each.target.digest for each in found}) > 1:
            called = f" called {name!r}" if name else ""
            raise UsageError(
                f"{self.root} holds {len(found)} images{called}",
                hint=f"add :NAME, one of: {self._known()}",
            )
        return found[0].target

    def tags(self) -> Mapping[str, Descriptor]:
        """Return the images of the archive by their names, or by ``@N``."""
        return {
            name: each.target
            for number, each in enumerate(self.images)
            for name in each.names or (f"@{number}",)
        }

    def _known(self) -> str:
        return ", ".join(next(iter(each.names), f"@{n}") for n, each in enumerate(self.images))

    def _blob(self, target: Descriptor) -> str | None:
        """Return the name of the file of a layout's blob, if the archive has it whole."""
        name = f"blobs/sha256/{target.digest.hex}"
        return name if self._files.size(name) == target.size else None

    # What an OCI layout lists.

    def _read_index(self) -> tuple[ArchivedImage, ...]:
        if _INDEX not in self._files:
            return ()
        content = self._files.read(_INDEX, MAX_DOCUMENT_BYTES)
        try:
            listed = parse(content, f"{self.root}: {_INDEX}").need("manifests").elements()
            entries = [Descriptor.from_json(each) for each in listed]
        except InvalidContent as error:
            raise NotAnArchive(str(error)) from error
        known = media.MANIFESTS | media.INDEXES
        return tuple(
            ArchivedImage(each, _names(each))
            for each in entries
            if each.media_type in known and not each.artifact_type
        )

    def _manifests(self, target: Descriptor, depth: int = 0) -> Iterator[Descriptor]:
        """Yield the manifests at and below ``target`` that the archive holds whole."""
        if self._blob(target) is None or depth > _MAX_NESTED:
            return
        below = self._parts(target)
        if target.media_type in media.INDEXES:
            for each in below:
                yield from self._manifests(each, depth + 1)
        elif all(self._blob(each) for each in below):
            yield target

    def _parts(self, target: Descriptor) -> tuple[Descriptor, ...]:
        name = f"blobs/sha256/{target.digest.hex}"
        return parts(self._files.read(name, MAX_DOCUMENT_BYTES), target.media_type)

    def _whole(self, target: Descriptor, depth: int = 0) -> bool:
        """Whether the archive holds ``target`` and all below it: an index often names more."""
        if self._blob(target) is None or depth > _MAX_NESTED:
            return False
        if target.media_type not in media.MANIFESTS | media.INDEXES:
            return True
        return all(self._whole(each, depth + 1) for each in self._parts(target))

    def _own(self, config: Digest) -> ArchivedImage | None:
        """Return the manifest of the image with ``config``, or its index if that is here whole."""
        for each in self._listed:
            for manifest in self._manifests(each.target):
                if self._parts(manifest)[0].digest == config:
                    return each if self._whole(each.target) else replace(each, target=manifest)
        return None

    # What Docker lists.

    def _docker_images(self) -> Iterator[ArchivedImage]:
        if _LISTED not in self._files:
            return
        listed = Node(self._json(_LISTED), f"{self.root}: {_LISTED}")
        try:
            for image in listed.elements():
                found = image.get("RepoTags")
                tags = found.texts() if found else ()
                config = self._files.read(image.need("Config").text(), MAX_DOCUMENT_BYTES)
                own = self._own(Digest.of(config))
                if own is None:
                    own = ArchivedImage(self._make(config, image.need("Layers").texts()), ())
                yield replace(own, names=tuple(dict.fromkeys((*tags, *own.names))))
        except InvalidContent as error:
            raise NotAnArchive(str(error)) from error

    def _make(self, config: bytes, names: tuple[str, ...]) -> Descriptor:
        """Make a manifest of a config and the layers in files ``names``."""
        try:
            diff_ids = Image(b"{}", config).diff_ids
        except InvalidContent as error:
            raise NotAnArchive(f"{self.root}: {error}") from error
        if len(diff_ids) != len(names):
            raise NotAnArchive(
                f"{self.root}: {_LISTED} lists {len(names)} layers, the config {len(diff_ids)}"
            )
        layers = []
        for name, diff_id in zip(names, diff_ids, strict=True):
            layer = self._layers[name] = self._layers.get(name) or self._describe(name)
            if layer.diff_id != diff_id:
                raise Corrupt(f"{self.root}: {name!r} is not the layer {diff_id} of the config")
            layers.append(layer)
        made = assemble(config, layers)
        self._made[made.config_descriptor.digest] = config
        self._made[made.digest] = made.manifest
        return Descriptor.of(made.manifest, media.MANIFEST)

    def _describe(self, name: str) -> Layer:
        """Hash one layer, and the tar in it, of which alone the config has the digest."""
        with self._files.open(name) as content, self._reading():
            blob = cast(io.BufferedReader, content)
            kind = _TYPES.get(compression_of(blob.peek(8)[:8]))
            digest, size = self._hashed(blob if kind else inflated(blob), name)
        (self._members if kind else self._inflated)[digest] = name
        described = Descriptor(kind or media.LAYER_TAR, digest, size)
        if described.media_type == media.LAYER_TAR:
            return Layer(described, digest)
        with self._files.open(name) as content, self._reading():
            diff_id, _ = self._hashed(inflated(cast(io.BufferedReader, content)), name)
        return Layer(described, diff_id)

    @contextmanager
    def _aside(self, name: str, size: int) -> Iterator[BinaryIO]:
        """Inflate a layer of ``size`` bytes to a temporary file: uploads may go back in it."""
        with tempfile.TemporaryFile() as aside:
            with (
                naming(Path(tempfile.gettempdir())),
                self._files.open(name) as content,
                self._reading(),
            ):
                found = inflated(cast(io.BufferedReader, content))
                while aside.tell() <= size and (chunk := found.read(CHUNK)):
                    aside.write(chunk)
                aside.seek(0)
            yield cast(BinaryIO, aside)

    def _hashed(self, content: Inflated, name: str) -> tuple[Digest, int]:
        limit = self._limits.unpacked(self._files.size(name) or 0)
        running, size = hashlib.sha256(), 0
        while chunk := content.read(CHUNK):
            running.update(chunk)
            size += len(chunk)
            if size > limit:
                raise LayerTooLarge(f"{self.root}: {name!r} unpacks to more than {limit} bytes")
        return Digest(running.hexdigest()), size

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except MlpackError:
            raise
        except unreadable() as error:
            raise Corrupt(f"{self.root} is damaged ({error})") from error

    def _json(self, name: str) -> object:
        try:
            return json.loads(self._files.read(name, MAX_DOCUMENT_BYTES))
        except (ValueError, RecursionError) as error:
            raise NotAnArchive(f"{self.root}: {name} is not JSON ({error})") from error


def split(text: str, directory: Path) -> tuple[Path, str]:
    """Return the path of an archive and the name in ``PATH[:NAME]``; both may hold colons."""
    pieces = text.split(":")
    for count in range(len(pieces), 0, -1):
        path = directory / ":".join(pieces[:count])
        if path.is_file():
            return path, ":".join(pieces[count:])
    return directory / pieces[0], ":".join(pieces[1:])


def _names(entry: Descriptor) -> tuple[str, ...]:
    """What an entry of an ``index.json`` is called: its whole name before its tag."""
    found = (entry.annotations.get(key) for key in (_IMAGE_NAME, REF_NAME))
    return tuple(dict.fromkeys(each for each in found if each))


def _is_called(image: ArchivedImage, name: str) -> bool:
    return name == str(image.target.digest) or any(
        _whole_name(each) == _whole_name(name) for each in image.names
    )


def _whole_name(name: str) -> str:
    """Return Docker's whole name for a short one.

    >>> _whole_name("alpine"), _whole_name("docker.io/library/alpine:latest")
    ('docker.io/library/alpine:latest', 'docker.io/library/alpine:latest')
    """
    whole = on_hub(name) or name
    return whole if ":" in whole.rpartition("/")[2] or "@" in whole else f"{whole}:latest"
