"""The files of a layer, decided before a byte is written.

:func:`arrange` takes what a caller wants in a layer and returns what the tar
will hold: checked, completed with parent directories, normalised and sorted.
:func:`ordered` checks and sorts what must stay as it is: owners, modes, extended
attributes and devices of somebody else's image.
Whiteouts are named as the image-spec's layer.md says.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

from mlpack.errors import MlpackError

Kind = Literal[
    "file",
    "directory",
    "symlink",
    "hardlink",
    "whiteout",
    "opaque",
    "character",
    "block",
    "fifo",
]
DEVICES = frozenset({"character", "block", "fifo"})

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
_STICKY_SHARED = 0o1002
_NOT_LINKED = frozenset({"directory", "hardlink", "whiteout", "opaque"})


class UnsafeEntry(MlpackError, ValueError):
    """A path, link or kind of file that must not be in a layer."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of a layer."""

    path: str
    """Relative POSIX path in the image (``var/azureml-app/score.py``)."""

    kind: Kind = "file"
    mode: int = 0o644
    size: int = 0
    """Bytes of a file; 0 for every other kind."""

    target: str = ""
    """Where a symlink points (its text) or which path of the layer a hardlink repeats."""

    uid: int = 0
    gid: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    """Extended attributes by name, in the order of the names."""

    device: tuple[int, int] = (0, 0)
    """Major and minor number of a character or block device."""

    @property
    def name(self) -> str:
        """The member's name in the tar: whiteouts have a name of their own."""
        folder, base = posixpath.split(self.path)
        if self.kind == "whiteout":
            return posixpath.join(folder, WHITEOUT + base)
        return posixpath.join(self.path, OPAQUE) if self.kind == "opaque" else self.path


def arrange(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Check, complete, normalise and sort ``entries``.

    Every parent directory is listed (engines differ in what they make of a
    missing one), modes become 0644, 0755 or 1777, and the order is that of the
    names, so the same files give the same bytes whatever the order they came in.
    Raises :class:`UnsafeEntry`.

    >>> [each.path for each in arrange([Entry("a/b")])]
    ['a', 'a/b']
    """
    kept: dict[str, Entry] = {}
    for entry in entries:
        _check(entry)
        if entry.name in kept and kept[entry.name] != _normal(entry):
            raise UnsafeEntry(f"{entry.path!r} is given twice, with different content")
        kept[entry.name] = _normal(entry)
    for entry in list(kept.values()):
        for parent in _parents(entry.path if entry.kind != "opaque" else entry.name):
            found = kept.setdefault(parent, Entry(parent, "directory", 0o755))
            if found.kind != "directory":
                raise UnsafeEntry(f"{entry.path!r} lies below {parent!r}, a {found.kind}")
    _check_hardlinks(kept)
    return tuple(sorted(kept.values(), key=_order))


def ordered(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Check and sort ``entries``, and change nothing in them.

    Whoever calls this gives every parent directory too: mlpack cannot know its
    owner and mode. Names that are not UTF-8 are held with ``surrogateescape``.
    Raises :class:`UnsafeEntry`.
    """
    kept: dict[str, Entry] = {}
    for entry in entries:
        _check_clean(entry.path)
        _check_size(entry)
        if kept.setdefault(entry.name, entry) != entry:
            raise UnsafeEntry(f"{entry.path!r} is given twice, with different content")
    for entry in kept.values():
        parent = posixpath.dirname(entry.name)
        if parent and (parent not in kept or kept[parent].kind != "directory"):
            raise UnsafeEntry(f"{entry.path!r} lies below {parent!r}, no directory of the layer")
        first = kept.get(entry.target) if entry.kind == "hardlink" else None
        if entry.kind == "hardlink" and (first is None or first.kind in _NOT_LINKED):
            raise UnsafeEntry(f"{entry.path!r} is a hardlink to {entry.target!r}, not a file here")
    return tuple(sorted(kept.values(), key=_exact_order))


def escapes(path: str, target: str) -> bool:
    """Whether a symlink at ``path`` with text ``target`` climbs above the root of the tree.

    An absolute target starts at that root, as in a container.

    >>> escapes("a/link", "../b"), escapes("a/link", "../../b")
    (False, True)
    """
    start = "" if target.startswith("/") else posixpath.dirname(path)
    depth = len([part for part in start.split("/") if part])
    for part in target.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            return True
    return False


def check_path(path: str) -> None:
    """Raise :class:`UnsafeEntry` unless ``path`` is relative, clean and cannot leave the tree."""
    if "\\" in path:
        raise UnsafeEntry(f"{path!r} is not a relative path")
    _check_clean(path)
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise UnsafeEntry(f"{path!r} is not UTF-8") from error


def _check_clean(path: str) -> None:
    parts = path.split("/")
    if not path or path.startswith("/") or "\0" in path:
        raise UnsafeEntry(f"{path!r} is not a relative path")
    if any(part in ("", ".", "..") for part in parts):
        raise UnsafeEntry(f"{path!r} has an empty, '.' or '..' part")
    if any(part.startswith(WHITEOUT) for part in parts):
        raise UnsafeEntry(f"{path!r} looks like a whiteout: engines would delete a file")


def _check(entry: Entry) -> None:
    check_path(entry.path)
    if entry.kind not in get_args(Kind) or entry.kind in DEVICES:
        raise UnsafeEntry(f"{entry.path!r} is a {entry.kind}: a layer holds files and links only")
    _check_size(entry)
    if entry.kind == "symlink" and (not entry.target or escapes(entry.path, entry.target)):
        raise UnsafeEntry(f"{entry.path!r} is a symlink out of the tree, to {entry.target!r}")
    if entry.kind == "hardlink":
        check_path(entry.target)


def _check_size(entry: Entry) -> None:
    if entry.size < 0 or (entry.size and entry.kind != "file"):
        raise UnsafeEntry(f"{entry.path!r}: a {entry.kind} of {entry.size} bytes")


def _normal(entry: Entry) -> Entry:
    entry = replace(entry, uid=0, gid=0, xattrs=(), device=(0, 0))
    if entry.kind == "file" or entry.kind == "hardlink":
        return replace(entry, mode=0o755 if entry.mode & 0o111 else 0o644)
    if entry.kind == "directory":
        shared = entry.mode & _STICKY_SHARED == _STICKY_SHARED
        return replace(entry, mode=0o1777 if shared else 0o755)
    return replace(entry, mode=0o777 if entry.kind == "symlink" else 0o644)


def _parents(path: str) -> Iterable[str]:
    while path := posixpath.dirname(path):
        yield path


def _check_hardlinks(kept: dict[str, Entry]) -> None:
    for entry in kept.values():
        if entry.kind == "hardlink":
            first = kept.get(entry.target)
            if first is None or first.kind != "file":
                raise UnsafeEntry(
                    f"{entry.path!r} is a hardlink to {entry.target!r}, not a file here"
                )


def _order(entry: Entry) -> tuple[object, ...]:
    # By parts, so that a directory stands right before its content ("a", "a/b", "a-b"); an
    # opaque mark before what replaces it; hardlinks last, after the files they repeat.
    return (entry.kind == "hardlink", *entry.name.split("/"))


def _exact_order(entry: Entry) -> tuple[object, ...]:
    # As above, but by the path: an opaque mark stands right after its directory, before
    # anything in it, whatever that is called.
    mark = ("",) if entry.kind == "opaque" else ()
    return (entry.kind == "hardlink", *entry.path.split("/"), *mark)
