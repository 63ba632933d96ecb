"""What may be in a layer, and in which order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpack.oci.descriptor import UnsafeEntry
from mlpack.oci.layer import Entry, arrange, escapes

SAFE = st.text(st.characters(codec="utf-8", exclude_characters="/\\\0"), min_size=1, max_size=8)
PATHS = st.lists(
    SAFE.filter(lambda part: part not in (".", "..") and not part.startswith(".wh.")),
    min_size=1,
    max_size=4,
).map("/".join)


@given(st.lists(PATHS, max_size=8), st.randoms())
def test_arranging_depends_on_nothing_but_the_files(paths: list[str], random: object) -> None:
    files = [path for path in paths if not any(o.startswith(path + "/") for o in paths)]
    entries = [Entry(path) for path in files]
    turned = list(entries)
    random.shuffle(turned)  # type: ignore[attr-defined]
    arranged = arrange(entries)
    assert arrange(turned) == arranged
    names = [entry.path for entry in arranged]
    assert len(set(names)) == len(names)
    for place, name in enumerate(names):
        parent = name.rpartition("/")[0]
        assert not parent or parent in names[:place], "a parent stands before its children"


def test_a_directory_stands_before_its_content_and_nothing_between() -> None:
    names = [entry.path for entry in arrange([Entry("a-b"), Entry("a/b"), Entry("a.c")])]
    assert names == ["a", "a/b", "a-b", "a.c"]


@pytest.mark.parametrize(
    ("kind", "mode", "normal"),
    [
        ("file", 0o600, 0o644),
        ("file", 0o4711, 0o755),
        ("directory", 0o700, 0o755),
        ("directory", 0o1777, 0o1777),
        ("directory", 0o2775, 0o755),
    ],
)
def test_modes_are_normalised(kind: str, mode: int, normal: int) -> None:
    (entry,) = arrange([Entry("a", kind, mode)])  # type: ignore[arg-type]
    assert entry.mode == normal


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../a",
        "a/../b",
        "a/..",
        "a//b",
        "./a",
        "a/",
        "a\\b",
        "a\0b",
        ".wh.a",
        "a/.wh..wh..opq",
        "\udcff",
    ],
)
def test_unsafe_paths_are_refused(path: str) -> None:
    with pytest.raises(UnsafeEntry):
        arrange([Entry(path)])


@pytest.mark.parametrize(
    ("path", "target", "out"),
    [
        ("link", "a", False),
        ("link", "/etc/passwd", False),
        ("link", "..", True),
        ("a/link", "..", False),
        ("a/link", "../..", True),
        ("a/link", "b/../../..", True),
        ("link", "/../a", True),
        ("link", "./a/./b", False),
    ],
)
def test_symlinks_may_not_climb_above_the_root(path: str, target: str, out: bool) -> None:
    assert escapes(path, target) is out
    if out:
        with pytest.raises(UnsafeEntry, match="symlink out of the tree"):
            arrange([Entry(path, "symlink", target=target)])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([Entry("a", size=1), Entry("a", size=2)], "given twice"),
        ([Entry("a"), Entry("a/b")], "lies below 'a', a file"),
        ([Entry("a", "symlink", target="b"), Entry("a/c")], "lies below 'a', a symlink"),
        ([Entry("a", "device")], "is a device"),  # type: ignore[arg-type]
        ([Entry("a", "hardlink", target="b")], "hardlink to 'b'"),
        ([Entry("a", "hardlink", target="../b")], "'..' part"),
        ([Entry("a", "symlink")], "symlink out of the tree"),
        ([Entry("a", "directory", size=3)], "a directory of 3 bytes"),
        ([Entry("a", size=-1)], "a file of -1 bytes"),
    ],
)
def test_what_cannot_be_a_layer_is_refused(entries: list[Entry], message: str) -> None:
    with pytest.raises(UnsafeEntry, match=message):
        arrange(entries)


def test_whiteouts_have_the_names_of_the_specification() -> None:
    names = [
        entry.name
        for entry in arrange([Entry("a/gone", "whiteout"), Entry("b", "opaque"), Entry("b/new")])
    ]
    assert names == ["a", "a/.wh.gone", "b", "b/.wh..wh..opq", "b/new"]


def test_the_same_entry_twice_is_one() -> None:
    assert len(arrange([Entry("a", size=1), Entry("a", size=1)])) == 1
