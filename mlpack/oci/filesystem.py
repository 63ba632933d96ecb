"""The file system of an image as a value, and how a layer changes it: by the specification.

What engines unpack the same layer to on overlayfs is in :mod:`mlpack.oci.unpacking`.

A tree maps paths to nodes. Times are not part of it: a rebuilt layer differs in them alone, and
no program should depend on them. For the same reason the source's time inside a ``.pyc`` counts
as zero (see :attr:`FileNode.time_cleared`). The root directory is left out, because engines choose
its owner and mode.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from mlpack.errors import MlpackError
from mlpack.oci.descriptor import Digest

NodeKind = Literal["file", "directory", "symlink", "character", "block", "fifo"]
MAX_HOPS = 40
"""Symlinks followed in one path, as in Linux (path_resolution(7))."""


class BrokenLayer(MlpackError, ValueError):
    """A layer that engines cannot unpack, or should not."""

    hint = "the image was not made by a tool that follows the OCI image specification"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileNode:
    """Everything about one path except its name and times."""

    kind: NodeKind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    size: int = 0
    content: Digest | None = None
    """The digest of a file; of a ``.pyc`` with its source's time, with that time as zero."""

    target: str = ""
    """The text of a symlink."""

    device: tuple[int, int] = (0, 0)
    first: str = ""
    """The first name, in order, of a file with several (hardlinks); empty for others."""

    source: tuple[int, int] = field(default=(0, 0), compare=False)
    """Where the content is: number of the layer, and of the member in it."""

    time_cleared: bool = field(default=False, compare=False)
    """Whether the content is a ``.pyc`` whose source's time was set to zero."""


Tree = Mapping[str, FileNode]


@dataclass(frozen=True, slots=True)
class AddNode:
    """A member of a layer that replaces what was at ``path``."""

    path: str
    node: FileNode


@dataclass(frozen=True, slots=True)
class AddHardlink:
    """A member that adds a name to the file at ``target``; ``node`` has its owner and mode."""

    path: str
    target: str
    node: FileNode


@dataclass(frozen=True, slots=True)
class Whiteout:
    """A member that removes ``path`` of the layers below, or with ``inside`` its content only."""

    path: str
    inside: bool = False


LayerChange = AddNode | AddHardlink | Whiteout


def apply(tree: Tree, changes: Iterable[LayerChange]) -> dict[str, FileNode]:
    """Return the tree after one layer (image-spec, layer.md, *Applying Changesets*).

    Whiteouts remove what is in the layers below only, wherever they are in this layer. Parents
    are resolved through symlinks, and created if missing, as engines do. Raises
    :class:`BrokenLayer`.
    """
    changed = _MutableTree(tree)
    for change in changes:
        changed.change(change)
    return changed.tree()


class _File:
    """What the names of one file share: any node except a directory."""

    __slots__ = ("node",)

    def __init__(self, node: FileNode) -> None:
        self.node = node


class _Folder:
    __slots__ = ("children", "fresh", "node")

    def __init__(self, node: FileNode) -> None:
        self.node = node
        self.children: dict[str, _Folder | _File] = {}
        self.fresh: set[str] = set()
        """Names that the current layer has added; its whiteouts do not remove them."""


_IMPLICIT = FileNode(kind="directory", mode=0o755)


class _MutableTree:
    """A tree that one layer changes."""

    def __init__(self, tree: Tree) -> None:
        self._root = _Folder(_IMPLICIT)
        folders, firsts = {"": self._root}, dict[str, _File]()
        # A directory must exist before its content: shorter paths first.
        for path in sorted(tree, key=lambda each: (each.count("/"), each)):
            node, (parent, name) = tree[path], posixpath.split(path)
            if node.kind == "directory":
                folders[path] = folder = _Folder(node)
                folders[parent].children[name] = folder
                continue
            made = firsts.get(node.first) or _File(replace(node, first=""))
            if node.first:
                firsts[node.first] = made
            folders[parent].children[name] = made

    def tree(self) -> dict[str, FileNode]:
        names: dict[int, list[str]] = {}
        found: dict[str, FileNode] = {}
        for path, item in sorted(_walk(self._root)):
            found[path] = item.node
            if isinstance(item, _File):
                names.setdefault(id(item), []).append(path)
        for linked in names.values():
            if len(linked) > 1:
                found.update((path, replace(found[path], first=linked[0])) for path in linked)
        return found

    def change(self, change: LayerChange) -> None:
        if isinstance(change, Whiteout):
            self._hide(change)
            return
        folder, name = self._parent(change.path, make=True)
        if folder is None:
            raise BrokenLayer(f"{change.path!r} has no parent")
        if isinstance(change, AddHardlink):
            folder.children[name] = self._linked(change)
        else:
            _put(folder, name, change.node)
        folder.fresh.add(name)

    def _hide(self, change: Whiteout) -> None:
        folder, name = self._parent(change.path + "/." * change.inside, make=False)
        if folder is None:
            return  # a whiteout without effect
        if change.inside:
            _empty(folder)
            return
        found = folder.children.get(name)
        if isinstance(found, _Folder):
            _empty(found)
        _forget(folder, name)

    def _linked(self, change: AddHardlink) -> _File:
        folder, name = self._parent(change.target, make=False)
        found = folder.children.get(name) if folder else None
        if not isinstance(found, _File):
            raise BrokenLayer(f"{change.path!r} is a hardlink to {change.target!r}, not a file")
        # moby and containerd set owner and mode of a link's header on the file it names.
        own = change.node
        found.node = replace(
            found.node,
            mode=found.node.mode if found.node.kind == "symlink" else own.mode,
            uid=own.uid,
            gid=own.gid,
            xattrs=tuple(sorted({**dict(found.node.xattrs), **dict(own.xattrs)}.items())),
        )
        return found

    def _parent(self, path: str, *, make: bool) -> tuple[_Folder | None, str]:
        """Return the directory of ``path``, through symlinks, and its name there."""
        parts = path.split("/")
        left, name, hops = parts[:-1][::-1], parts[-1], 0
        trail = [self._root]
        while left:
            part = left.pop()
            if part in ("", "."):
                continue
            if part == "..":
                trail = trail[:-1] or trail
                continue
            found = trail[-1].children.get(part)
            if isinstance(found, _File) and found.node.kind == "symlink":
                hops += 1
                if hops > MAX_HOPS:
                    raise BrokenLayer(f"{path!r} leads through more than {MAX_HOPS} symlinks")
                trail = trail[:1] if found.node.target.startswith("/") else trail
                left += found.node.target.split("/")[::-1]
                continue
            entered = found if found or not make else _made(trail[-1], part)
            if not isinstance(entered, _Folder):
                if make:
                    raise BrokenLayer(f"{path!r} lies below {part!r}, which is not a directory")
                return None, name
            trail.append(entered)
        return trail[-1], name


def _made(folder: _Folder, name: str) -> _Folder:
    folder.fresh.add(name)
    made = folder.children[name] = _Folder(_IMPLICIT)
    return made


def _put(folder: _Folder, name: str, node: FileNode) -> None:
    found = folder.children.get(name)
    if node.kind != "directory":
        folder.children[name] = _File(node)
    elif isinstance(found, _Folder):
        found.node = node
    else:
        folder.children[name] = _Folder(node)


def _empty(top: _Folder) -> None:
    """Remove everything below ``top`` that this layer did not add."""
    folders = [top]
    for folder in folders:
        folders += [each for each in folder.children.values() if isinstance(each, _Folder)]
    for folder in reversed(folders):
        for name in list(folder.children):
            _forget(folder, name)


def _forget(folder: _Folder, name: str) -> None:
    found = folder.children.get(name)
    holds = isinstance(found, _Folder) and found.children
    if found is not None and name not in folder.fresh and not holds:
        del folder.children[name]


def _walk(root: _Folder) -> Iterator[tuple[str, _Folder | _File]]:
    waiting = [("", root)]
    while waiting:
        place, folder = waiting.pop()
        for name, item in folder.children.items():
            path = f"{place}/{name}" if place else name
            yield path, item
            if isinstance(item, _Folder):
                waiting.append((path, item))
