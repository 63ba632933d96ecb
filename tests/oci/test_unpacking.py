"""What engines unpack layers to, as measured in tests/e2e/test_engine_rules.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings

from mlpack.oci.difference import difference
from mlpack.oci.filesystem import (
    AddHardlink,
    AddNode,
    FileNode,
    LayerChange,
    Tree,
    Whiteout,
    apply,
)
from mlpack.oci.unpacking import (
    Altered,
    Compression,
    NotUnpacked,
    Unpacking,
    alterations,
    compression_of,
    unpacked,
)
from mlpack.plan.engines import engine
from tests.oci.trees import changes, file, pairs
from tests.support import repeats

MOBY, CONTAINERD, PODMAN = (
    engine(name).support.unpacking for name in ("moby", "containerd", "podman")
)
A, B = file(b"one"), file(b"two")
FOLDER = FileNode(kind="directory", mode=0o755)
OWNED = FileNode(kind="directory", mode=0o700, uid=33)


def link(target: str, **fields: object) -> FileNode:
    return replace(FileNode(kind="symlink", mode=0o777, target=target), **fields)  # type: ignore[arg-type]


BELOW: Tree = {
    "d": FOLDER,
    "d/a": A,
    "d/b": B,
    "owned": OWNED,
    "owned/in": A,
    "lnk": link("d"),
    "abs": link("/d"),
    "h1": replace(A, first="h1"),
    "h2": replace(A, first="h1"),
    "h3": replace(A, first="h1"),
}


@settings(max_examples=repeats(60, 600))
@given(pairs())
def test_every_engine_unpacks_a_graft_to_the_tree_that_is_meant(
    both: tuple[dict[str, FileNode], dict[str, FileNode]],
) -> None:
    old, new = both
    made = tuple(changes(difference(old, new).entries, new))
    for how in (MOBY, CONTAINERD, PODMAN):
        if how.marks_symlinks and any(n.kind == "symlink" and n.xattrs for n in new.values()):
            continue
        assert unpacked(old, made, how) == new


ALTERED: Mapping[str, tuple[Sequence[LayerChange], tuple[Altered, ...]]] = {
    "a file through a symlink": ([AddNode("lnk/new", A)], (Altered("lnk", "symlink"),)),
    "through an absolute one": ([AddNode("abs/new", A)], (Altered("abs", "symlink"),)),
    "a whiteout through a symlink": ([Whiteout("lnk/a")], (Altered("lnk", "symlink"),)),
    "an opaque mark through one": ([Whiteout("lnk", inside=True)], (Altered("lnk", "symlink"),)),
    "an opaque mark of the root": ([Whiteout("", inside=True)], (Altered("", "root"),)),
    "a directory removed and made": (
        [Whiteout("d"), AddNode("d", FOLDER)],
        (Altered("d/a", "kept"), Altered("d/b", "kept")),
    ),
    "a directory listed in a symlink's place": ([AddNode("lnk", FOLDER)], ()),
    "an opaque mark": ([Whiteout("d", inside=True), AddNode("d/new", A)], ()),
    "a whiteout and the file again": ([Whiteout("d/a"), AddNode("d/a", B)], ()),
    "one name of a file": ([AddNode("h1", B)], ()),
    "a symlink and a file through it": (
        [AddNode("e", FOLDER), AddNode("le", link("e")), AddNode("le/new", A)],
        (),
    ),
}


@pytest.mark.parametrize("case", ALTERED)
@pytest.mark.parametrize("how", [MOBY, CONTAINERD, PODMAN])
def test_what_all_engines_make_of_a_layer(case: str, how: Unpacking) -> None:
    made, told = ALTERED[case]
    wanted, shown = apply(BELOW, made), unpacked(BELOW, made, how)
    assert alterations(BELOW, wanted, shown) == told
    assert (shown == wanted) == (not told)


def test_a_name_taken_again_leaves_the_other_names_of_its_file_together() -> None:
    made: list[LayerChange] = [
        AddNode("k1", A),
        AddHardlink("k2", "k1", A),
        AddHardlink("k3", "k2", A),
        AddNode("k1", B),
    ]
    assert unpacked(BELOW, made, CONTAINERD) == apply(BELOW, made)
    assert unpacked(BELOW, made, CONTAINERD)["k3"].first == "k2"


MARK = replace(FOLDER, xattrs=(("trusted.overlay.opaque", b"y"),))
SOME: Mapping[str, tuple[Sequence[LayerChange], tuple[Altered, ...]]] = {
    "a parent that is not listed": ([AddNode("owned/new", A)], (Altered("owned", "parent"),)),
    "a whiteout below one": ([Whiteout("owned/in")], (Altered("owned", "parent"),)),
    "overlayfs's own mark": (
        [AddNode("d", MARK)],
        (Altered("d/a", "mark"), Altered("d/b", "mark")),
    ),
}


@pytest.mark.parametrize("case", SOME)
def test_what_moby_and_podman_alone_make_of_a_layer(case: str) -> None:
    made, told = SOME[case]
    wanted = apply(BELOW, made)
    assert alterations(BELOW, wanted, unpacked(BELOW, made, MOBY)) == told
    assert unpacked(BELOW, made, CONTAINERD) == wanted


REFUSED: Mapping[str, tuple[Sequence[LayerChange], str, Sequence[Unpacking]]] = {
    "a hardlink into a layer below": (
        [AddHardlink("h4", "h1", A)],
        "the layer has no such file",
        (MOBY, CONTAINERD, PODMAN),
    ),
    "a file and its whiteout": (
        [AddNode("d", FOLDER), AddNode("d/a", B), Whiteout("d/a")],
        "added and then removed",
        (MOBY, CONTAINERD, PODMAN),
    ),
    "a path twice": ([AddNode("n", A), AddNode("n", B)], "listed twice", (MOBY, PODMAN)),
    "a whiteout twice": ([Whiteout("d/a"), Whiteout("d/a")], "listed twice", (MOBY, PODMAN)),
    "a symlink to what the layer lacks": (
        [AddNode("le", link("d")), AddNode("le/new", A)],
        "symlink to nothing of the layer",
        (MOBY, PODMAN),
    ),
    "a file below a file": ([AddNode("n", A), AddNode("n/in", A)], "lies below", (MOBY, PODMAN)),
    "a loop": (
        [AddNode("x", link("x")), AddNode("x/in", A)],
        "more than 40 symlinks",
        (MOBY, CONTAINERD, PODMAN),
    ),
    "a user attribute of a symlink": (
        [AddNode("n", link("d", xattrs=(("user.said", b"so"),)))],
        "a symlink with the attribute user.said",
        (PODMAN,),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_layers_that_an_engine_ends_with_an_error_on(case: str) -> None:
    made, message, who = REFUSED[case]
    for how in (MOBY, CONTAINERD, PODMAN):
        if how in who:
            with pytest.raises(NotUnpacked, match=message):
                unpacked(BELOW, made, how)
    if CONTAINERD not in who and "below" not in case:
        assert unpacked(BELOW, made, CONTAINERD) == apply(BELOW, made)


@pytest.mark.parametrize(
    ("first", "found"),
    [
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\x28\xb5\x2f\xfd\x04", "zstd"),
        (b"\x50\x2a\x4d\x18\x04", "zstd-skippable"),
        (b"\x5f\x2a\x4d\x18\x04", "zstd-skippable"),
        (b"BZh91AY", "bzip2"),
        (b"\xfd7zXZ\x00\x00", "xz"),
        (b"etc/pass", "none"),
        (b"", "none"),
    ],
)
def test_a_compression_is_told_by_its_first_bytes(first: bytes, found: Compression) -> None:
    assert compression_of(first) == found
