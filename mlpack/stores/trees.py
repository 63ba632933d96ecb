"""Reading an image's layers into the tree a container of it would see."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mlpack.oci.digest import Digest
from mlpack.oci.filesystem import BrokenLayer, Change, Hide, Link, Node, NodeKind, Put, Tree, apply
from mlpack.oci.image import Layer
from mlpack.oci.tree import OPAQUE, WHITEOUT
from mlpack.stores.base import Readable
from mlpack.stores.layers import LIMITS, Archive, Limits, content_of, members, open_tar

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
"""What aufs kept for itself; engines skip all of it but the opaque mark."""

_PYC_HEAD = 16
_PYC_TIME = slice(8, 12)


@dataclass(frozen=True)
class Pile:
    """Some layers of one image, bottom first, each with the store it lies in, and their tree."""

    layers: tuple[tuple[Readable, Layer], ...]
    tree: Tree


def read_tree(
    store: Readable, layers: Sequence[Layer], on: Pile | None = None, limits: Limits = LIMITS
) -> Pile:
    """Read ``layers``, bottom first; on top of ``on``, where that is already read.

    Times are left out, and a ``.pyc`` made by time counts as made at time zero. Raises
    :class:`~mlpack.oci.filesystem.BrokenLayer`, :class:`~mlpack.stores.base.Corrupt`,
    :class:`~mlpack.stores.layers.TooMuch`.
    """
    pile = on or Pile((), {})
    for layer in layers:
        with open_tar(store, layer, limits) as archive:
            tree = apply(pile.tree, _changes(archive, len(pile.layers), limits))
        pile = Pile((*pile.layers, (store, layer)), tree)
    return pile


def copy_contents(pile: Pile, paths: Iterable[str], folder: Path) -> None:
    """Write the files at ``paths`` into ``folder``, as the tree has them, named by their content.

    Each layer is read once, and only where one of the files lies in it.
    """
    nodes = (pile.tree[path] for path in paths)
    wanted = {node.content: node.source for node in nodes if node.content is not None}
    by_source = {source: content for content, source in wanted.items()}
    for number in sorted({layer for layer, _ in by_source}):
        with open_tar(*pile.layers[number]) as archive:
            for place, member in enumerate(members(archive)):
                content = by_source.get((number, place))
                if content is not None:
                    _copy(archive, member, folder, content)


def _copy(archive: Archive, member: tarfile.TarInfo, folder: Path, content: Digest) -> None:
    with (folder / content.hex).open("wb") as out:
        found, _ = _read(archive, member, out)
    if found != content:
        raise BrokenLayer(f"{member.name!r} is not what it was a moment ago")


def _changes(archive: Archive, number: int, limits: Limits) -> Iterator[Change]:
    for place, member in enumerate(members(archive, limits)):
        path = _clean(member.name)
        folder, _, name = path.rpartition("/")
        if name == OPAQUE:
            yield Hide(folder, inside=True)
        elif f"/{path}".find(f"/{_AUFS}") >= 0 or not path:
            continue  # the root's own entry, and what aufs kept beside
        elif name.startswith(WHITEOUT):
            yield Hide(f"{folder}/{name[len(WHITEOUT) :]}".lstrip("/"))
        elif member.islnk():
            yield Link(path, _clean(member.linkname), _node(member, "file"))
        else:
            yield Put(path, _filled(archive, member, (number, place)))


def _filled(archive: Archive, member: tarfile.TarInfo, source: tuple[int, int]) -> Node:
    kind = _KINDS.get(member.type)
    if kind is None:
        raise BrokenLayer(f"{member.name!r} is of a kind no engine unpacks ({member.type!r})")
    if kind == "character" and (member.devmajor, member.devminor) == (0, 0):
        raise BrokenLayer(
            f"{member.name!r} is a character device 0:0, which overlayfs takes for a deletion",
            hint="make the image again with whiteout files, as the OCI specification has them",
        )
    if kind != "file":
        return _node(member, kind)
    content, settled = _read(archive, member)
    return _node(member, kind, content=content, source=source, settled=settled)


def _node(
    member: tarfile.TarInfo,
    kind: NodeKind,
    *,
    content: Digest | None = None,
    source: tuple[int, int] = (0, 0),
    settled: bool = False,
) -> Node:
    xattrs = {
        key.removeprefix(XATTR): value.encode("utf-8", "surrogateescape")
        for key, value in member.pax_headers.items()
        if key.startswith(XATTR)
    }
    if not 0 <= member.uid <= _MAX_ID or not 0 <= member.gid <= _MAX_ID:
        raise BrokenLayer(f"{member.name!r} belongs to {member.uid}:{member.gid}, which is nobody")
    device = kind in ("character", "block")
    return Node(
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
        settled=settled,
    )


def _read(
    archive: Archive, member: tarfile.TarInfo, out: BinaryIO | None = None
) -> tuple[Digest, bool]:
    """Hash a file, and write it where asked to; a ``.pyc``'s time is set to zero."""
    running, settled, head = hashlib.sha256(), False, True
    for chunk in content_of(archive, member):
        if head:
            head, settled = False, _timed(member.name, chunk)
            chunk = b"".join((chunk[:8], bytes(4), chunk[12:])) if settled else chunk
        running.update(chunk)
        if out is not None:
            out.write(chunk)
    return Digest(running.hexdigest()), settled


def _timed(name: str, head: bytes) -> bool:
    """Whether this is compiled Python that names its source's time (PEP 552)."""
    flags = head[4:8]
    return (
        name.endswith(".pyc")
        and len(head) >= _PYC_HEAD
        and head[2:4] == b"\r\n"
        and flags == bytes(4)
    )


def _clean(name: str) -> str:
    """A member's path in the tree: engines drop leading slashes and dots, as we do."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BrokenLayer(f"{name[:200]!r} leads out of the image")
    if len(name) > _LONGEST_PATH or any("\0" in part for part in parts):
        raise BrokenLayer(f"{name[:200]!r}… is no path")
    return "/".join(parts)
