"""The smallest layer that turns one file system into another.

:func:`difference` of two trees returns entries, and applying them to the first tree gives the
second. Two rules follow from how engines unpack. A hardlink must have its file in the same layer
(overlayfs unpacks each into its own directory), so a file with several names is written whole or
not at all. And every parent directory is written with its owner and mode, because engines create
missing ones with any.
"""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict
from dataclasses import dataclass, replace

from mlpack.oci.filesystem import FileNode, Tree
from mlpack.oci.layer import Entry, ordered, parents


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The entries of the layer in its order, and counts of what they do."""

    entries: tuple[Entry, ...]
    added: int
    changed: int
    """Paths in both trees whose content, kind, owner, mode or links differ."""

    removed: int
    """Paths of the old tree that are not in the new one."""

    @property
    def files(self) -> tuple[str, ...]:
        """The paths whose content is in the layer."""
        return tuple(entry.path for entry in self.entries if entry.kind == "file")


def difference(old: Tree, new: Tree) -> Difference:
    """Return what turns ``old`` into ``new``.

    >>> file = FileNode(kind="file")
    >>> [each.name for each in difference({"a": file}, {"b": file}).entries]
    ['.wh.a', 'b']
    """
    written = _written(old, new)
    again = len([path for path in written if path in old])
    gone = [path for path in old if path not in new]
    hidden = {path for path in gone if _stays_folder(posixpath.dirname(path), old, new)}
    opaque = _opaque(old, new, written, hidden)
    hidden = {path for path in hidden if opaque.isdisjoint(parents(path))}
    written |= {path for path in new if not opaque.isdisjoint(parents(path))}
    reached = written | hidden | opaque
    written |= {parent for path in reached for parent in parents(path)} | opaque
    entries = [_entry(path, new[path]) for path in written]
    entries += [Entry(path, "opaque") for path in opaque]
    entries += [Entry(path, "whiteout") for path in hidden]
    return Difference(
        entries=ordered(entries),
        added=len([path for path in new if path not in old]),
        changed=again,
        removed=len(gone),
    )


def _stays_folder(path: str, old: Tree, new: Tree) -> bool:
    """Whether ``path`` is a directory before and after; if not, its content goes with it."""
    if not path:
        return True
    before, after = old.get(path), new.get(path)
    return before is not None and after is not None and before.kind == after.kind == "directory"


def _entry(path: str, node: FileNode) -> Entry:
    link = bool(node.first) and node.first != path
    return Entry(
        path,
        "hardlink" if link else node.kind,
        node.mode,
        size=0 if link else node.size,
        target=node.first if link else node.target,
        uid=node.uid,
        gid=node.gid,
        xattrs=node.xattrs,
        device=node.device,
    )


def _opaque(old: Tree, new: Tree, written: set[str], hidden: set[str]) -> set[str]:
    """Return directories without unchanged files where one opaque whiteout is shorter than many.

    It must be shorter even with the directories below it that have to be written again.
    """
    keeps: Counter[str] = Counter()
    saved: Counter[str] = Counter()
    for path in hidden:
        saved.update(parents(path))
    for path, node in new.items():
        if path not in written and node.kind == "directory":
            saved.subtract(parents(path))
        elif path not in written:
            keeps.update(parents(path))
    found: set[str] = set()
    for path in sorted(saved, key=lambda each: each.count("/")):
        shorter = saved[path] > 1 and not keeps[path] and _stays_folder(path, old, new)
        if shorter and found.isdisjoint(parents(path)):
            found.add(path)
    return found


def _written(old: Tree, new: Tree) -> set[str]:
    """Return the paths of ``new`` that must be in the layer."""
    found = {path for path, node in new.items() if not _same(old.get(path), node)}
    names, pairs = _groups(new), _pairs(new)
    found |= _torn(old, new)
    waiting = list(found)
    while waiting:
        path = waiting.pop()
        for other in (*names.get(new[path].first, ()), *pairs.get(path, ())):
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found


def _torn(old: Tree, new: Tree) -> set[str]:
    """Return names that are hardlinks of others in one tree only, though all else is equal."""
    found: set[str] = set()
    for group in _groups(new).values():
        if len({old[path].first or path for path in group if path in old}) > 1:
            found |= group
    for group in _groups(old).values():
        held = [path for path in group if _same(old[path], new.get(path))]
        if len({new[path].first or path for path in held}) > 1:
            found.update(held)
    return found


def _groups(tree: Tree) -> dict[str, set[str]]:
    """Return the names of each file with several, by its first."""
    found: dict[str, set[str]] = defaultdict(set)
    for path, node in tree.items():
        if node.first:
            found[node.first].add(path)
    return dict(found)


def _same(one: FileNode | None, other: FileNode | None) -> bool:
    """Whether at most the other names of the file differ."""
    if one is None or other is None:
        return one is other
    return one == other or replace(one, first="") == replace(other, first="")


def _pairs(new: Tree) -> dict[str, set[str]]:
    """Return sources and their ``.pyc`` files with the source's time, in both directions.

    Python ignores a ``.pyc`` whose time is not the source's. So both are written with time zero,
    or neither is.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for path, node in new.items():
        folder, name = posixpath.split(path)
        if not node.time_cleared or posixpath.basename(folder) != "__pycache__":
            continue
        source = posixpath.join(posixpath.dirname(folder), name.split(".", 1)[0] + ".py")
        if source in new and new[source].kind == "file":
            found[source].add(path)
            found[path].add(source)
    return found
