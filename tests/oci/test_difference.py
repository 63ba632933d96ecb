"""A layer of the difference turns the old tree into the new one, and is the least that does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from mlpack.oci.difference import difference
from mlpack.oci.filesystem import (
    MAX_HOPS,
    AddHardlink,
    AddNode,
    BrokenLayer,
    FileNode,
    Tree,
    Whiteout,
    apply,
)
from tests.oci.trees import changes, file, pairs, trees
from tests.support import repeats

FOLDER = FileNode(kind="directory", mode=0o755)


def names(old: Tree, new: Tree) -> list[str]:
    made = difference(old, new).entries
    assert apply(old, changes(made, new)) == new
    return [entry.name for entry in made]


@settings(max_examples=repeats(60, 600))
@given(pairs())
def test_the_difference_applied_to_old_is_new(
    both: tuple[dict[str, FileNode], dict[str, FileNode]],
) -> None:
    old, new = both
    made = difference(old, new)
    assert apply(old, changes(made.entries, new)) == new


@given(trees())
def test_nothing_changed_needs_nothing(tree: dict[str, FileNode]) -> None:
    assert difference(tree, tree).entries == ()
    assert apply(tree, ()) == tree


def folders(*paths: str) -> dict[str, FileNode]:
    return dict.fromkeys(paths, FOLDER)


A, B = file(b"one"), file(b"two")

CASES: dict[str, tuple[Tree, Tree, list[str]]] = {
    "a changed file takes its directories along": (
        {**folders("m"), "m/x": A, "m/y": A},
        {**folders("m"), "m/x": B, "m/y": A},
        ["m", "m/x"],
    ),
    "a mode is a change": (
        {"x": A},
        {"x": replace(A, mode=0o4755)},
        ["x"],
    ),
    "an owner is a change": ({"x": A}, {"x": replace(A, uid=1000)}, ["x"]),
    "an attribute is a change": ({"x": A}, {"x": replace(A, xattrs=(("user.a", b"1"),))}, ["x"]),
    "a directory's own mode is a change, its content is not": (
        {"d": FOLDER, "d/x": A},
        {"d": replace(FOLDER, mode=0o700), "d/x": A},
        ["d"],
    ),
    "a deleted directory is one whiteout": (
        {**folders("d", "d/e"), "d/x": A, "d/e/y": B, "z": A},
        {"z": A},
        [".wh.d"],
    ),
    "a file becomes a directory": (
        {"x": A},
        {"x": FOLDER, "x/y": B},
        ["x", "x/y"],
    ),
    "a directory becomes a file": (
        {**folders("x", "x/d"), "x/y": B, "x/d/z": B},
        {"x": A},
        ["x"],
    ),
    "a directory becomes a symlink": (
        {**folders("x"), "x/y": B},
        {"x": FileNode(kind="symlink", mode=0o777, target="/y")},
        ["x"],
    ),
    "one file of a directory is deleted": (
        {**folders("d"), "d/x": A, "d/y": A},
        {**folders("d"), "d/y": A},
        ["d", "d/.wh.x"],
    ),
    "a directory of which nothing stays is opaque": (
        {**folders("d"), "d/x": A, "d/y": A, "d/z": A},
        {**folders("d"), "d/!new": B},
        ["d", "d/.wh..wh..opq", "d/!new"],
    ),
    "an opaque directory deep down takes its parents along": (
        {**folders("a", "a/d", "a/d/e"), "a/d/x": A, "a/d/y": A, "a/keep": A},
        {**folders("a", "a/d"), "a/keep": A},
        ["a", "a/d", "a/d/.wh..wh..opq"],
    ),
    "one deletion needs no opaque mark": (
        {**folders("d"), "d/x": A},
        {**folders("d")},
        ["d", "d/.wh.x"],
    ),
    "hardlinks are written with what they link to": (
        {"a": replace(A, first="a"), "b": replace(A, first="a")},
        {"a": replace(B, first="a"), "b": replace(B, first="a")},
        ["a", "b"],
    ),
    "two files become one": (
        {"a": A, "b": A},
        {"a": replace(A, first="a"), "b": replace(A, first="a")},
        ["a", "b"],
    ),
    "one file becomes two": (
        {"a": replace(A, first="a"), "b": replace(A, first="a")},
        {"a": A, "b": A},
        ["a", "b"],
    ),
    "the first name of a file is deleted, the others stay": (
        {each: replace(A, first="a") for each in ("a", "b", "c")},
        {each: replace(A, first="b") for each in ("b", "c")},
        [".wh.a"],
    ),
    "a source takes what was compiled of it along, for its time": (
        {**folders("__pycache__"), "m.py": A, "__pycache__/m.cpython-311.pyc": A},
        {
            **folders("__pycache__"),
            "m.py": B,
            "__pycache__/m.cpython-311.pyc": replace(A, time_cleared=True),
        },
        ["__pycache__", "__pycache__/m.cpython-311.pyc", "m.py"],
    ),
    "names that are no UTF-8 or hold a backslash": (
        {},
        {"system\\x2d.slice": A, "\udcff": B},
        ["system\\x2d.slice", "\udcff"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_change_takes(case: str) -> None:
    old, new, expected = CASES[case]
    assert names(old, new) == expected


def test_hardlinks_stand_after_their_file() -> None:
    new = {"a": replace(A, first="a"), "b": replace(A, first="a")}
    assert [entry.kind for entry in difference({}, new).entries] == ["file", "hardlink"]


def test_it_counts() -> None:
    made = difference({"a": A, "b": A, "c": A}, {"a": A, "b": B, "d": A})
    assert (made.added, made.changed, made.removed) == (1, 1, 1)
    assert made.files == ("b", "d")


def test_a_layer_reaches_through_symlinks_as_engines_do() -> None:
    old = {**folders("usr", "usr/lib"), "lib": FileNode(kind="symlink", target="usr/lib")}
    new = apply(old, [AddNode("lib/a", A), AddNode("made/on/the/way", A)])
    assert "usr/lib/a" in new
    assert new["made/on"].mode == 0o755
    up = {"up": FileNode(kind="symlink", target="../../..")}
    assert "x" in apply(up, [AddNode("up/x", A)]), "no path leads above the root"


def test_whiteouts_leave_what_their_own_layer_has() -> None:
    old = {**folders("d"), "d/x": A, "d/y": A}
    after = apply(
        old, [AddNode("d/x", B), Whiteout("d/x"), Whiteout("d", inside=True), AddNode("d/z", A)]
    )
    assert after == {"d": FOLDER, "d/x": B, "d/z": A}
    assert apply(old, [AddNode("n", A), Whiteout("", inside=True)]) == {"n": A}
    assert apply(old, [Whiteout("no/where"), Whiteout("none")]) == old


def test_a_link_to_a_lower_file_shares_it() -> None:
    after = apply({"a": A}, [AddHardlink("b", "a", replace(A, mode=0o600, uid=5))])
    assert after["a"] == after["b"] == replace(A, mode=0o600, uid=5, first="a")
    assert apply({"a": A}, [AddHardlink("b", "a", A), Whiteout("a")]) == {"b": A}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (AddHardlink("b", "nothing", A), "not a file"),
        (AddHardlink("b", "d", A), "not a file"),
        (AddNode("a/b", A), "not a directory"),
        (AddNode("loop/x", A), f"more than {MAX_HOPS} symlinks"),
    ],
)
def test_what_cannot_be_unpacked_is_refused(change: AddNode | AddHardlink, said: str) -> None:
    old = {"a": A, "d": FOLDER, "loop": FileNode(kind="symlink", target="loop")}
    with pytest.raises(BrokenLayer, match=said):
        apply(old, [change])
