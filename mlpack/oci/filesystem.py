"""The file system of an image as a value, and how a layer changes it.

A tree maps paths to nodes. Times are no part of it: a layer that a build made anew
differs in them alone, and no program should. For the same reason the time of the
source inside a ``.pyc`` counts as zero (see :attr:`Node.settled`). The root directory
itself is left out, because engines take its owner and mode from nowhere but themselves.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from mlpack.errors import MlpackError
from mlpack.oci.digest import Digest

NodeKind = Literal["file", "directory", "symlink", "character", "block", "fifo"]
MAX_HOPS = 40
"""Symlinks followed in one path, as in Linux (path_resolution(7))."""


class BrokenLayer(MlpackError, ValueError):
    """A layer that no engine could unpack, or should."""

    hint = "the image was not made by a tool that follows the OCI image specification"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Everything about one path but its name and its times."""

    kind: NodeKind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    size: int = 0
    content: Digest | None = None
    """What a file holds; of a ``.pyc`` made by time, with that time as zero."""

    target: str = ""
    """The text of a symlink."""

    device: tuple[int, int] = (0, 0)
    first: str = ""
    """The first name, in order, of a file that has several (hardlinks); else empty."""

    source: tuple[int, int] = field(default=(0, 0), compare=False)
    """Where the content lies: number of the layer, number of the member in it."""

    settled: bool = field(default=False, compare=False)
    """Whether the content is a ``.pyc`` whose source's time was set to zero."""


Tree = Mapping[str, Node]


@dataclass(frozen=True, slots=True)
class Put:
    """A member of a layer that is something: it replaces what was at ``path``."""

    path: str
    node: Node


@dataclass(frozen=True, slots=True)
class Link:
    """A member that is one more name of the file at ``target``; ``node`` has its owner and mode."""

    path: str
    target: str
    node: Node


@dataclass(frozen=True, slots=True)
class Hide:
    """A whiteout: ``path`` of the layers below, or with ``inside`` only what is in it, is gone."""

    path: str
    inside: bool = False


Change = Put | Link | Hide


def apply(tree: Tree, changes: Iterable[Change]) -> dict[str, Node]:
    """The tree after one layer (image-spec, layer.md, *Applying Changesets*).

    Whiteouts hide what lies below this layer only, wherever in it they stand.
    Parents are resolved through symlinks and made where they are missing, as engines
    do. Raises :class:`BrokenLayer`.
    """
    place = _Place(tree)
    for change in changes:
        place.change(change)
    return place.tree()


class _File:
    """What the names of one file share: any node but a directory."""

    __slots__ = ("node",)

    def __init__(self, node: Node) -> None:
        self.node = node


class _Folder:
    __slots__ = ("children", "fresh", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.children: dict[str, _Folder | _File] = {}
        self.fresh: set[str] = set()
        """Names the layer at hand has put here: its whiteouts leave them."""


_IMPLICIT = Node(kind="directory", mode=0o755)


class _Place:
    """A tree that one layer is changing."""

    def __init__(self, tree: Tree) -> None:
        self._root = _Folder(_IMPLICIT)
        folders, firsts = {"": self._root}, dict[str, _File]()
        # A folder has to be there before what is in it: shorter paths first.
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

    def tree(self) -> dict[str, Node]:
        names: dict[int, list[str]] = {}
        found: dict[str, Node] = {}
        for path, item in sorted(_walk(self._root)):
            found[path] = item.node
            if isinstance(item, _File):
                names.setdefault(id(item), []).append(path)
        for linked in names.values():
            if len(linked) > 1:
                found.update((path, replace(found[path], first=linked[0])) for path in linked)
        return found

    def change(self, change: Change) -> None:
        if isinstance(change, Hide):
            self._hide(change)
            return
        folder, name = self._parent(change.path, make=True)
        if folder is None:
            raise BrokenLayer(f"{change.path!r} has no parent")
        if isinstance(change, Link):
            folder.children[name] = self._linked(change)
        else:
            _put(folder, name, change.node)
        folder.fresh.add(name)

    def _hide(self, change: Hide) -> None:
        folder, name = self._parent(change.path + "/." * change.inside, make=False)
        if folder is None:
            return  # a whiteout of what is not there
        if change.inside:
            _empty(folder)
            return
        found = folder.children.get(name)
        if isinstance(found, _Folder):
            _empty(found)
        _forget(folder, name)

    def _linked(self, change: Link) -> _File:
        folder, name = self._parent(change.target, make=False)
        found = folder.children.get(name) if folder else None
        if not isinstance(found, _File):
            raise BrokenLayer(f"{change.path!r} is a hardlink to {change.target!r}, no file")
        # moby and containerd set owner and mode of a link's header on the file it names.
        said = change.node
        found.node = replace(
            found.node,
            mode=found.node.mode if found.node.kind == "symlink" else said.mode,
            uid=said.uid,
            gid=said.gid,
            xattrs=tuple(sorted({**dict(found.node.xattrs), **dict(said.xattrs)}.items())),
        )
        return found

    def _parent(self, path: str, *, make: bool) -> tuple[_Folder | None, str]:
        """The folder ``path`` lies in, through symlinks, and its name there."""
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
                    raise BrokenLayer(f"{path!r} lies below {part!r}, which is no directory")
                return None, name
            trail.append(entered)
        return trail[-1], name


def _made(folder: _Folder, name: str) -> _Folder:
    folder.fresh.add(name)
    made = folder.children[name] = _Folder(_IMPLICIT)
    return made


def _put(folder: _Folder, name: str, node: Node) -> None:
    found = folder.children.get(name)
    if node.kind != "directory":
        folder.children[name] = _File(node)
    elif isinstance(found, _Folder):
        found.node = node
    else:
        folder.children[name] = _Folder(node)


def _empty(top: _Folder) -> None:
    """Take away everything below ``top`` that this layer did not put there."""
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
