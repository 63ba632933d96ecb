"""Trees out of thin air, and layers of entries as changes, for tests."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from hypothesis import strategies as st

from mlpack.oci.descriptor import Digest
from mlpack.oci.filesystem import AddHardlink, AddNode, FileNode, LayerChange, Tree, Whiteout
from mlpack.oci.layer import Entry

NAMES = st.sampled_from(["a", "b", "c", "-x", "!y", "d.py", "__pycache__", "d.cpython-311.pyc"])
MODES = st.sampled_from([0o644, 0o755, 0o4711, 0o600])
OWNERS = st.sampled_from([0, 0, 0, 1000, 3_000_000])
XATTRS = st.sampled_from([(), (), (("user.a", b"1"),), (("user.a", b"\0\n\xff"), ("user.b", b"="))])
CONTENTS = [b"", b"one", b"two", b"three" * 300]


def file(content: bytes, **more: object) -> FileNode:
    """A file with this content."""
    made = FileNode(kind="file", size=len(content), content=Digest.of(content))
    return replace(made, **more)  # type: ignore[arg-type]


BY_DIGEST: Mapping[Digest | None, bytes] = {Digest.of(each): each for each in CONTENTS}

_files = st.builds(
    lambda content, mode, uid, xattrs: file(content, mode=mode, uid=uid, gid=uid, xattrs=xattrs),
    st.sampled_from(CONTENTS),
    MODES,
    OWNERS,
    XATTRS,
)
_links = st.builds(
    lambda target: FileNode(kind="symlink", mode=0o777, target=target),
    st.sampled_from(["a", "../b", "/c", "../../../.."]),
)
_pipes = st.just(FileNode(kind="fifo"))
_folders = st.builds(
    lambda mode, uid: FileNode(kind="directory", mode=mode, uid=uid),
    st.sampled_from([0o755, 0o700, 0o1777]),
    OWNERS,
)
_paths = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, FileNode]:
    """A whole tree: parents are directories, some files have several names."""
    drawn = draw(st.dictionaries(_paths, st.one_of(_files, _files, _links, _pipes), max_size=10))
    found: dict[str, FileNode] = {}
    for path in sorted(drawn):
        if not any(found.get(parent, _DIR).kind != "directory" for parent in parents(path)):
            for parent in parents(path):
                if parent not in found:
                    found[parent] = draw(_folders)
            if path not in found:
                found[path] = drawn[path]
    files = sorted(path for path, node in found.items() if node.kind == "file")
    linked = draw(st.lists(st.sampled_from(files), unique=True, max_size=3)) if files else []
    for path in linked if len(linked) > 1 else []:
        found[path] = replace(found[min(linked)], first=min(linked))
    return found


@st.composite
def pairs(draw: st.DrawFn) -> tuple[dict[str, FileNode], dict[str, FileNode]]:
    """Two trees that share much."""
    old, other = draw(trees()), draw(trees())
    kept = draw(st.sets(st.sampled_from(sorted(old)))) if old else set()
    new = dict(other)
    for path in sorted(kept):
        if all(new.get(parent, _DIR).kind == "directory" for parent in parents(path)):
            for each in (*parents(path), path):
                if not any(below.startswith(f"{each}/") for below in new):
                    new[each] = replace(old[each], first="") if each in old else _DIR
                new.setdefault(each, old[each])
    return old, whole(new)


def whole(tree: Mapping[str, FileNode]) -> dict[str, FileNode]:
    """``tree`` with its groups of names made right again."""
    found = dict(tree)
    groups: dict[str, list[str]] = {}
    for path in sorted(found):
        if found[path].first:
            groups.setdefault(found[path].first, []).append(path)
    for paths in groups.values():
        node = found[paths[0]]
        first = paths[0] if len(paths) > 1 else ""
        found.update((path, replace(node, first=first)) for path in paths)
    return found


def parents(path: str) -> list[str]:
    """The directories above ``path``, nearest first."""
    found = []
    while path := posixpath.dirname(path):
        found.append(path)
    return found


def changes(entries: Iterable[Entry], new: Tree) -> Iterator[LayerChange]:
    """What a layer of ``entries`` does, without writing it."""
    for entry in entries:
        if entry.kind in ("whiteout", "opaque"):
            yield Whiteout(entry.path, inside=entry.kind == "opaque")
        elif entry.kind == "hardlink":
            yield AddHardlink(entry.path, entry.target, new[entry.path])
        else:
            yield AddNode(entry.path, replace(new[entry.path], first=""))


_DIR = FileNode(kind="directory", mode=0o755)
