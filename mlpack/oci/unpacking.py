"""What engines unpack a layer to on overlayfs, which is not always what the specification says.

They tell its compression by its first bytes, which its media type may contradict. They unpack each
layer into an empty directory, and the kernel shows these one upon the other. So a layer cannot see
the ones below it: a path through a symlink of a lower layer makes a directory in that symlink's
place, a hardlink finds only files of its own layer, an opaque mark of the root has no directory to
mark, and a directory that is removed and made again still shows what it held. Measured on all three
engines, which differ in :class:`Unpacking` (``tests/e2e/test_engine_rules.py``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from mlpack.oci.descriptor import WHITEOUT
from mlpack.oci.filesystem import (
    MAX_HOPS,
    AddHardlink,
    BrokenLayer,
    FileNode,
    LayerChange,
    Tree,
    Whiteout,
)
from mlpack.oci.layer import parents

Cause = Literal["symlink", "root", "parent", "kept", "mark"]
"""Why a path is not what the specification says: a path of the layer leads through a symlink below
it; the root has an opaque mark; the layer does not list the directory; it removes the directory and
makes it again; it gives the directory overlayfs's own attribute."""

_OPAQUE = ("trusted.overlay.opaque", b"y")
_MADE = FileNode(kind="directory", mode=0o755)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacking:
    """How one engine unpacks a layer into its directory; the default is moby's and podman's way."""

    copies_parents: bool = False
    """Whether a directory that the layer does not list gets owner, mode and attributes of the one
    below; else it is root's, with mode 0755."""

    makes_behind_symlinks: bool = False
    """Whether a symlink of the same layer may lead to a directory that the layer lacks."""

    repeats: bool = False
    """Whether a layer may list a path twice."""

    keeps_marks: bool = True
    """Whether overlayfs's own attributes (``trusted.overlay.opaque``) are taken from the layer."""

    marks_symlinks: bool = False
    """Whether ``user.`` attributes of a symlink are set, which Linux refuses."""


Compression = Literal["none", "gzip", "zstd", "zstd-skippable", "bzip2", "xz"]
_MAGIC: tuple[tuple[bytes, Compression], ...] = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)
MAGIC_BYTES = 8


def compression_of(first: bytes) -> Compression:
    """Tell the compression by the first :data:`MAGIC_BYTES`, as engines do.

    ``zstd-skippable`` begins with a frame for other readers (RFC 8878, 3.1.2).

    >>> compression_of(bytes.fromhex("1f8b08")), compression_of(b"etc/passwd")
    ('gzip', 'none')
    """
    if 0x50 <= (first or b"\0")[0] <= 0x5F and first[1:4] == b"\x2a\x4d\x18":
        return "zstd-skippable"
    return next((name for magic, name in _MAGIC if first.startswith(magic)), "none")


@dataclass(frozen=True, slots=True)
class Altered:
    """A path that an engine unpacks to something else than the specification says."""

    path: str
    cause: Cause


class NotUnpacked(BrokenLayer):
    """A layer that an engine ends with an error on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """What only the content of a layer tells about whether an engine takes it."""

    compression: Compression
    altered: tuple[Altered, ...] = ()
    """Paths that an engine's :class:`Unpacking` turns into something else."""

    broken: str = ""
    """Why it ends with an error; empty if it does not."""


def alterations(below: Tree, wanted: Tree, found: Tree) -> tuple[Altered, ...]:
    """Say why the tree that an engine shows of a layer differs from the one that is wanted.

    ``below`` is the tree under the layer. The topmost paths stand for what is below them.
    """
    differing = {
        path for path in {*wanted, *found} if not _alike(wanted.get(path), found.get(path))
    }
    top = sorted(path for path in differing if differing.isdisjoint(parents(path)))
    causes = [Altered(path, _cause(path, below, wanted, found)) for path in top]
    through = [each for each in causes if each.cause == "symlink"]
    if through:
        return tuple(through)  # what should lie at their targets is missing there, too
    if any(each.cause == "root" for each in causes):
        return (Altered("", "root"),)
    return tuple(causes)


def _alike(one: FileNode | None, other: FileNode | None) -> bool:
    if one is None or other is None:
        return one is other
    return replace(one, first="") == replace(other, first="")


def _cause(path: str, below: Tree, wanted: Tree, found: Tree) -> Cause:
    held, ours, theirs = below.get(path), wanted.get(path), found.get(path)
    if held is not None and held.kind == "symlink" and theirs and theirs.kind == "directory":
        return "symlink"
    if theirs is None:
        return "mark"
    if ours is None:
        return "kept" if "/" in path else "root"
    return "parent"


def unpacked(below: Tree, changes: Iterable[LayerChange], how: Unpacking) -> dict[str, FileNode]:
    """Return the tree an engine shows of a layer on ``below``; or raise :class:`NotUnpacked`."""
    upper = _Directory(below, how)
    for change in changes:
        upper.add(change)
    return upper.shown()


class _Directory:
    """The directory of one layer, while an engine unpacks into it."""

    def __init__(self, below: Tree, how: Unpacking) -> None:
        self._below, self._how = below, how
        self._nodes: dict[str, FileNode] = {}
        self._links: dict[str, str] = {}
        """The first name of a file with several, by each other name."""

        self._others: dict[str, list[str]] = defaultdict(list)
        """The other names by the first; some may have been replaced since."""

        self._hidden: set[str] = set()
        self._opaque: set[str] = set()
        self._listed: set[str] = set()

    def add(self, change: LayerChange) -> None:
        self._once(change)
        if isinstance(change, Whiteout):
            self._whiteout(change)
            return
        path = self._place(change.path)
        if isinstance(change, AddHardlink):
            self._link(path, change)
        else:
            self._put(path, change.node)
        self._hidden.discard(path)

    def _once(self, change: LayerChange) -> None:
        name = change.path
        if isinstance(change, Whiteout):
            folder, slash, last = name.rpartition("/")
            name = f"{name}/{WHITEOUT}" if change.inside else f"{folder}{slash}{WHITEOUT}{last}"
        if name in self._listed and not self._how.repeats:
            raise NotUnpacked(f"{name!r} is listed twice")
        self._listed.add(name)

    def _whiteout(self, change: Whiteout) -> None:
        if change.inside:
            path = self._place(f"{change.path}/.") if change.path else ""
            if path:
                self._opaque.add(path)
            return
        path = self._place(change.path)
        if path in self._nodes:
            raise NotUnpacked(f"{path!r} is added and then removed")
        self._hidden.add(path)

    def _put(self, path: str, node: FileNode) -> None:
        held = self._nodes.get(path)
        if held is not None and "directory" in (held.kind, node.kind) and held.kind != node.kind:
            self._drop(path)
        attributes = [name for name, _ in node.xattrs if name.startswith("user.")]
        if node.kind == "symlink" and attributes and self._how.marks_symlinks:
            raise NotUnpacked(f"{path!r} is a symlink with the attribute {attributes[0]}")
        self._release(path)
        self._nodes[path] = node
        if node.kind == "directory" and self._how.keeps_marks and _OPAQUE in node.xattrs:
            self._opaque.add(path)

    def _drop(self, path: str) -> None:
        for each in [each for each in self._nodes if each == path or each.startswith(f"{path}/")]:
            self._release(each)
            del self._nodes[each]
        self._opaque = {each for each in self._opaque if not f"{each}/".startswith(f"{path}/")}

    def _release(self, path: str) -> None:
        """Part a name that is taken again from the other names of its file."""
        self._links.pop(path, None)
        others = [each for each in self._others.pop(path, ()) if self._links.get(each) == path]
        for each in others[:1]:
            del self._links[each]
            self._links.update(dict.fromkeys(others[1:], each))
            self._others[each] = others[1:]

    def _link(self, path: str, change: AddHardlink) -> None:
        target = self._place(change.target)
        held = self._nodes.get(target)
        if held is None or held.kind == "directory" or path == target:
            raise NotUnpacked(
                f"{path!r} is a hardlink to {target!r}, and the layer has no such file"
            )
        self._release(path)
        first, own = self._links.get(target, target), change.node
        node = replace(
            held,
            mode=held.mode if held.kind == "symlink" else own.mode,
            uid=own.uid,
            gid=own.gid,
            xattrs=tuple(sorted({**dict(held.xattrs), **dict(own.xattrs)}.items())),
        )
        self._links[path] = first
        self._others[first].append(path)
        for each in (first, *self._others[first]):
            if self._links.get(each, first) == first:
                self._nodes[each] = node

    def _place(self, path: str) -> str:
        """Return where ``path`` is in the directory; its parents are made."""
        *left, name = path.split("/")
        left.reverse()
        trail: list[str] = []
        hops = 0
        while left:
            part = left.pop()
            if part == "..":
                trail = trail[:-1]
            if part in ("", ".", ".."):
                continue
            link = self._nodes.get("/".join((*trail, part)))
            if link is not None and link.kind == "symlink":
                hops += 1
                if hops > MAX_HOPS:
                    raise NotUnpacked(f"{path!r} leads through more than {MAX_HOPS} symlinks")
                trail = [] if link.target.startswith("/") else trail
                left += link.target.split("/")[::-1]
                continue
            trail.append(part)
            self._enter("/".join(trail), path, linked=hops > 0)
        return "/".join(trail) if name == "." else "/".join((*trail, name))

    def _enter(self, folder: str, path: str, *, linked: bool) -> None:
        """Make ``folder``, on the way to ``path``, unless the layer has it."""
        node = self._nodes.get(folder)
        if node is None:
            if linked and not self._how.makes_behind_symlinks:
                raise NotUnpacked(f"{path!r} leads through a symlink to nothing of the layer")
            self._nodes[folder] = self._made(folder)
            self._hidden.discard(folder)
        elif node.kind != "directory":
            raise NotUnpacked(f"{path!r} lies below {folder!r}, a {node.kind}")

    def _made(self, path: str) -> FileNode:
        held = self._below.get(path)
        if held is not None and held.kind == "directory" and self._how.copies_parents:
            return held
        return _MADE

    def shown(self) -> dict[str, FileNode]:
        """Return what is seen of the directory on the tree below it."""
        gone = {path for path in self._hidden if path in self._below}
        for path, node in self._nodes.items():
            held = self._below.get(path)
            if held is not None and (held.kind, node.kind) != ("directory", "directory"):
                gone.add(path)
        folders = {path for path in gone if self._below[path].kind == "directory"} | self._opaque
        kept = {
            path: node
            for path, node in self._below.items()
            if path not in gone
            and path not in self._nodes
            and (not folders or folders.isdisjoint(parents(path)))
        }
        return {**_named_again(kept), **self._own()}

    def _own(self) -> Mapping[str, FileNode]:
        groups: dict[str, list[str]] = defaultdict(list)
        for name, first in self._links.items():
            groups[first].append(name)
        own = {path: replace(node, first="") for path, node in self._nodes.items()}
        for first, others in groups.items():
            names = sorted(name for name in (first, *others) if name in own)
            if len(names) > 1:
                own.update((name, replace(own[name], first=names[0])) for name in names)
        return own


def _named_again(tree: dict[str, FileNode]) -> dict[str, FileNode]:
    """Name files with several names by the first one that is left."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path, node in tree.items():
        if node.first:
            groups[node.first].append(path)
    for first, names in groups.items():
        if len(names) == 1 or first not in tree:
            told = min(names) if len(names) > 1 else ""
            tree.update((name, replace(tree[name], first=told)) for name in names)
    return tree
