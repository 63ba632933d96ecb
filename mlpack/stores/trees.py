"""Reading the layers of foreign images into the file tree that a container sees.

Nothing is unpacked to disk. A layer is a verified and bounded stream: the blob's digest, the tar's
diff id and every length are checked while it is read, and results may be used only after the block
has ended without an error.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, cast

from mlpack.errors import MlpackError
from mlpack.oci.descriptor import WHITEOUT, Digest
from mlpack.oci.filesystem import (
    AddHardlink,
    AddNode,
    BrokenLayer,
    FileNode,
    LayerChange,
    NodeKind,
    Tree,
    Whiteout,
    apply,
)
from mlpack.oci.image import Layer
from mlpack.oci.layer import OPAQUE
from mlpack.oci.unpacking import (
    MAGIC_BYTES,
    Compression,
    LayerFacts,
    Unpacking,
    alterations,
    compression_of,
    unpacked,
)
from mlpack.stores.compression import Inflated, inflated, unreadable
from mlpack.stores.store import CHUNK, Corrupt, Readable, VerifyingReader

_MAX_HEADER = 8 * 1024 * 1024
"""One header with all its extensions; Linux paths and attributes need 132 KB at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLimits:
    """How much of a layer is read before it is refused as hostile."""

    members: int = 2_000_000
    """Files of one layer; a large distribution with all of CUDA has 300,000."""

    bytes: int = 256 * 1024**3
    """Uncompressed bytes of one layer."""

    ratio: int = 200
    """Uncompressed bytes per byte of the blob, checked above :attr:`trusted`."""

    trusted: int = 1024**3
    """Uncompressed bytes up to which any ratio is accepted: an empty disk image is not a bomb."""

    def unpacked(self, size: int) -> int:
        """Return the most that ``size`` bytes may unpack to, in bytes."""
        return min(self.bytes, max(self.trusted, size * self.ratio))


LIMITS = LayerLimits()


class LayerTooLarge(MlpackError):
    """A layer that is larger than any image in use, or a decompression bomb."""

    hint = "mlpack cannot read this image; if you trust it, inspect it with: skopeo inspect"


class LayerTar(tarfile.TarFile):
    """A tar that is read once, from front to back."""

    members: list[tarfile.TarInfo]
    """What ``tarfile`` remembers for random access; emptied while reading."""


@contextmanager
def open_tar(store: Readable, layer: Layer, limits: LayerLimits = LIMITS) -> Iterator[LayerTar]:
    """Open a layer's tar, to be read from front to back.

    When the block ends the rest is read, too, and all of it must match the layer's digests.
    Raises :class:`~mlpack.stores.store.Corrupt`, :class:`LayerTooLarge`.
    """
    with open_plain(store, layer, limits) as stream:
        # A layer without a byte is one without files; tarfile takes it for a broken one.
        files = stream if stream.begins() else io.BytesIO(bytes(tarfile.RECORDSIZE))
        # Not tarfile's own stream mode: that reads a header of any size into memory.
        yield LayerTar(
            fileobj=cast(BinaryIO, files), errorlevel=2, encoding="utf-8", errors="surrogateescape"
        )


@contextmanager
def open_plain(
    store: Readable, layer: Layer, limits: LayerLimits = LIMITS
) -> Iterator[_BoundedStream]:
    """Open the bytes of a layer's tar, whatever its compression; else as :func:`open_tar`."""
    with store.open(layer.descriptor) as blob, _readable(layer):
        checked = io.BufferedReader(VerifyingReader(blob, layer.descriptor), CHUNK)
        stream = _BoundedStream(inflated(checked), layer, limits)
        yield stream
        stream.finish()
        while checked.read(CHUNK):
            pass  # bytes after the compressed stream are part of the blob's digest, too


def members(archive: LayerTar, limits: LayerLimits = LIMITS) -> Iterator[tarfile.TarInfo]:
    """Yield the tar's members in order, forgetting each before the next."""
    count = 0
    while (member := archive.next()) is not None:
        count += 1
        if count > limits.members:
            raise LayerTooLarge(f"a layer holds more than {limits.members} files")
        archive.members.clear()
        yield member


@contextmanager
def _readable(layer: Layer) -> Iterator[None]:
    try:
        yield
    except MlpackError:
        raise
    except unreadable() as error:
        raise Corrupt(f"layer {layer.digest} is not a readable tar ({error})") from error


class _BoundedStream(io.RawIOBase):
    """The bytes of a tar, forward only, counted and hashed."""

    def __init__(self, source: Inflated, layer: Layer, limits: LayerLimits) -> None:
        self._source = source
        self._layer = layer
        self._hash = hashlib.sha256()
        self._at = 0
        self._ahead = b""
        self._last = b""
        self._limit = limits.unpacked(layer.size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, place: int, whence: int = io.SEEK_SET, /) -> int:
        if whence != io.SEEK_SET or place < self._at:
            raise tarfile.ReadError("a tar that must be read backwards")
        while self._at < place and self.read(min(CHUNK, place - self._at)):
            pass
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise LayerTooLarge(f"layer {self._layer.digest} has a header of {size} bytes")
        parts = []
        while size and (part := self._next(size)):
            parts.append(part)
            self._count(part)
            size -= len(part)
        self._last = b"".join(parts)
        return self._last

    def begins(self) -> bool:
        """Whether there is any byte; to be asked before anything is read."""
        self._ahead = self._source.read(1)
        return bool(self._ahead)

    def _next(self, size: int) -> bytes:
        given, self._ahead = self._ahead or self._source.read(size), b""
        return given

    def finish(self) -> None:
        """Read the rest; for tarfile a broken header is the end, so the end must be zeros."""
        while self._last and not self._last.strip(b"\0"):
            self.read(CHUNK)
        if self._last:
            raise BrokenLayer(f"layer {self._layer.digest} has a broken tar header")
        if self._hash.hexdigest() != self._layer.diff_id.hex:
            raise Corrupt(
                f"layer {self._layer.digest} holds another tar than {self._layer.diff_id}",
                hint="the image's config and its layers do not match",
            )

    def _count(self, part: bytes) -> None:
        self._at += len(part)
        self._hash.update(part)
        if self._at > self._limit:
            raise LayerTooLarge(
                f"layer {self._layer.digest} of {self._layer.size} bytes unpacks to more than "
                f"{self._limit}"
            )


def content_of(archive: LayerTar, member: tarfile.TarInfo) -> Iterator[bytes]:
    """Yield a file's bytes in chunks; tarfile raises if there are fewer than declared."""
    found = archive.extractfile(member)
    if found is None:
        raise BrokenLayer(f"{member.name!r} has no content")
    while chunk := found.read(CHUNK):
        yield chunk


XATTR = "SCHILY.xattr."
_KINDS: Mapping[bytes, NodeKind] = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.GNUTYPE_SPARSE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.CHRTYPE: "character",
    tarfile.BLKTYPE: "block",
    tarfile.FIFOTYPE: "fifo",
}
_LONGEST_PATH = 4096
_MAX_ID = 2**32 - 2
_AUFS = ".wh..wh."
"""Names that aufs reserved; engines skip them all but the opaque marker."""

_PYC_HEAD = 16


@dataclass(frozen=True)
class LayeredTree:
    """Some layers of one image, bottom first, each with its store, and their tree."""

    layers: tuple[tuple[Readable, Layer], ...] = ()
    tree: Tree = field(default_factory=dict)
    """By the specification."""

    shown: Tree = field(default_factory=dict)
    """As the engine that was asked about shows it: the same object where it is the same tree."""

    facts: tuple[LayerFacts, ...] = ()
    """One per layer, for that engine."""

    @property
    def lasting_facts(self) -> tuple[LayerFacts, ...]:
        """The facts without what layers above have mended: a graft mends OLD's layers."""
        if self.shown is not self.tree and self.shown == self.tree:
            return tuple(replace(each, altered=()) for each in self.facts)
        return self.facts


def read_tree(
    store: Readable,
    layers: Sequence[Layer],
    below: LayeredTree | None = None,
    limits: LayerLimits = LIMITS,
    unpacking: Unpacking | None = None,
) -> LayeredTree:
    """Read ``layers``, bottom first, on top of ``below``.

    With the ``unpacking`` of an engine, what it unpacks each layer to is worked out as well. Times
    are left out, and a ``.pyc`` that records its source's time has time zero. Raises
    :class:`~mlpack.oci.filesystem.BrokenLayer`, :class:`~mlpack.stores.store.Corrupt`,
    :class:`~mlpack.stores.trees.LayerTooLarge`.
    """
    found = below or LayeredTree()
    for layer in layers:
        with open_tar(store, layer, limits) as archive:
            changes = tuple(_changes(archive, len(found.layers), limits))
        shown: Tree
        shown = tree = apply(found.tree, changes)
        facts = LayerFacts(compression=layer_compression(store, layer))
        if unpacking is not None:
            shown, facts = _unpacked(found, tree, changes, facts, unpacking)
        found = LayeredTree((*found.layers, (store, layer)), tree, shown, (*found.facts, facts))
    return found


def layer_compression(store: Readable, layer: Layer) -> Compression:
    """Tell the compression of a layer's blob by its first bytes; the others are not read."""
    with store.open(layer.descriptor) as blob:
        return compression_of(blob.read(MAGIC_BYTES))


def _unpacked(
    below: LayeredTree,
    tree: Tree,
    changes: Sequence[LayerChange],
    facts: LayerFacts,
    unpacking: Unpacking,
) -> tuple[Tree, LayerFacts]:
    """Return the tree that an engine shows, and the facts of the layer."""
    wanted = tree
    try:
        if below.shown is not below.tree:
            # What a layer below has altered counts as that layer's.
            wanted = apply(below.shown, changes)
        shown = unpacked(below.shown, changes, unpacking)
    except BrokenLayer as error:
        return wanted, replace(facts, broken=str(error))
    if shown == wanted:
        return wanted, facts
    return shown, replace(facts, altered=alterations(below.shown, wanted, shown))


def copy_contents(layered: LayeredTree, paths: Iterable[str], folder: Path) -> None:
    """Write the files at ``paths`` of the tree into ``folder``, named by their content.

    Each layer is read once, and only if it contains one of the files.
    """
    nodes = (layered.tree[path] for path in paths)
    sources = {node.content: node.source for node in nodes if node.content is not None}
    by_source = {source: content for content, source in sources.items()}
    for number in sorted({layer for layer, _ in by_source}):
        with open_tar(*layered.layers[number]) as archive:
            for place, member in enumerate(members(archive)):
                content = by_source.get((number, place))
                if content is not None:
                    _copy(archive, member, folder, content)


def _copy(archive: LayerTar, member: tarfile.TarInfo, folder: Path, content: Digest) -> None:
    with (folder / content.hex).open("wb") as out:
        found, _ = _read(archive, member, out)
    if found != content:
        raise BrokenLayer(f"{member.name!r} changed while it was read")


def _changes(archive: LayerTar, number: int, limits: LayerLimits) -> Iterator[LayerChange]:
    for place, member in enumerate(members(archive, limits)):
        path = _clean(member.name)
        folder, _, name = path.rpartition("/")
        if name == OPAQUE:
            yield Whiteout(folder, inside=True)
        elif f"/{path}".find(f"/{_AUFS}") >= 0 or not path:
            continue  # the root's own entry, and names of aufs
        elif name.startswith(WHITEOUT):
            yield Whiteout(f"{folder}/{name[len(WHITEOUT) :]}".lstrip("/"))
        elif member.islnk():
            yield AddHardlink(path, _clean(member.linkname), _node(member, "file"))
        else:
            yield AddNode(path, _filled(archive, member, (number, place)))


def _filled(archive: LayerTar, member: tarfile.TarInfo, source: tuple[int, int]) -> FileNode:
    kind = _KINDS.get(member.type)
    if kind is None:
        raise BrokenLayer(f"{member.name!r} is of a type that no engine unpacks ({member.type!r})")
    if kind == "character" and (member.devmajor, member.devminor) == (0, 0):
        raise BrokenLayer(
            f"{member.name!r} is a character device 0:0, which overlayfs treats as a deletion",
            hint="rebuild the image with whiteout files, as in the OCI specification",
        )
    if kind != "file":
        return _node(member, kind)
    content, time_cleared = _read(archive, member)
    return _node(member, kind, content=content, source=source, time_cleared=time_cleared)


def _node(
    member: tarfile.TarInfo,
    kind: NodeKind,
    *,
    content: Digest | None = None,
    source: tuple[int, int] = (0, 0),
    time_cleared: bool = False,
) -> FileNode:
    xattrs = {
        key.removeprefix(XATTR): value.encode("utf-8", "surrogateescape")
        for key, value in member.pax_headers.items()
        if key.startswith(XATTR)
    }
    if not 0 <= member.uid <= _MAX_ID or not 0 <= member.gid <= _MAX_ID:
        raise BrokenLayer(f"{member.name!r} has an invalid owner {member.uid}:{member.gid}")
    device = kind in ("character", "block")
    return FileNode(
        kind=kind,
        mode=0o777 if kind == "symlink" else member.mode & 0o7777,
        uid=member.uid,
        gid=member.gid,
        xattrs=tuple(sorted(xattrs.items())),
        size=member.size if kind == "file" and content else 0,
        content=content,
        target=member.linkname if kind == "symlink" else "",
        device=(member.devmajor, member.devminor) if device else (0, 0),
        source=source,
        time_cleared=time_cleared,
    )


def _read(
    archive: LayerTar, member: tarfile.TarInfo, out: BinaryIO | None = None
) -> tuple[Digest, bool]:
    """Hash a file, and write it to ``out`` if given; a ``.pyc``'s time is set to zero."""
    running, time_cleared, head = hashlib.sha256(), False, True
    for chunk in content_of(archive, member):
        if head:
            head, time_cleared = False, _timed(member.name, chunk)
            chunk = b"".join((chunk[:8], bytes(4), chunk[12:])) if time_cleared else chunk
        running.update(chunk)
        if out is not None:
            out.write(chunk)
    return Digest(running.hexdigest()), time_cleared


def _timed(name: str, head: bytes) -> bool:
    """Whether this is compiled Python that records its source's time (PEP 552)."""
    flags = head[4:8]
    return (
        name.endswith(".pyc")
        and len(head) >= _PYC_HEAD
        and head[2:4] == b"\r\n"
        and flags == bytes(4)
    )


def _clean(name: str) -> str:
    """Return a member's path in the tree: engines drop leading slashes and dots, too."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BrokenLayer(f"{name[:200]!r} leads out of the image")
    if len(name) > _LONGEST_PATH or any("\0" in part for part in parts):
        raise BrokenLayer(f"{name[:200]!r}… is not a valid path")
    return "/".join(parts)
