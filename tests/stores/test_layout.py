"""The layout on disk: others read it, processes share it, damage is noticed, crashes do no harm."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.image import ImageConfig, build_image, build_index
from mlpack.stores.files import atomic
from mlpack.stores.garbage import remove, unnamed
from mlpack.stores.integrity import validate
from mlpack.stores.layout import IMAGE_NAME, REF_NAME, LayoutStore, NamedTwice, NotALayout
from mlpack.stores.store import Corrupt, NotFound, put_bytes, put_image, read
from tests.docker_images import as_docker, families
from tests.support import AMD64, ARM64, make_project, real_layer


@pytest.fixture
def layout(tmp_path: Path) -> LayoutStore:
    return LayoutStore(tmp_path / "oci")


def release(layout: LayoutStore, name: str = "fan-1") -> Descriptor:
    made = build_image(ImageConfig(platform=AMD64), [real_layer(layout, {"a": name.encode()})])
    layout.tag(put_image(layout, made), name)
    return made.descriptor


def test_the_files_are_those_of_the_specification(layout: LayoutStore) -> None:
    target = release(layout)
    assert json.loads((layout.root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((layout.root / "index.json").read_text())["manifests"]
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "fan-1"}
    assert entry["digest"] == str(target.digest)
    assert (layout.root / "blobs/sha256" / target.digest.hex).stat().st_mode & 0o777 == 0o644
    assert validate(layout) == ()


def test_entries_of_other_tools_survive(layout: LayoutStore) -> None:
    target = release(layout)
    index = json.loads((layout.root / "index.json").read_text())
    index["manifests"].append(target.to_json())
    (layout.root / "index.json").write_text(json.dumps(index))
    release(layout, "fan-2")
    assert len(layout.entries()) == 3
    assert list(layout.tags()) == ["fan-1", "fan-2"]


def foreign(layout: LayoutStore, **members: object) -> dict[str, Any]:
    """Write an index.json as another tool might, with an image called ``win``; return it."""
    entry = release(layout).to_json() | {
        "annotations": {"x": "y", REF_NAME: "win"},
        "platform": {
            "os": "windows",
            "architecture": "amd64",
            "os.version": "10.0.17763.1",
            "os.features": ["win32k"],
            "features": ["sse4"],
        },
        "urls": ["https://images.example.com/x"],
        "data": "e30=",
        "org.example.member": {"b": 1.5, "a": [None]},
    }
    other = {"mediaType": "application/xml", "digest": f"sha512:{'0' * 128}", "size": 7}
    listed = {"schemaVersion": 2, "manifests": [entry, other, entry | {"annotations": {}}]}
    document = listed | {"annotations": {"org.example.keep": "me"}, "subject": None} | members
    (layout.root / "index.json").write_text(json.dumps(document, indent=3))
    return document


def index_of(layout: LayoutStore) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((layout.root / "index.json").read_text())
    return found


def test_what_is_written_into_another_tools_layout_changes_nothing_else(
    layout: LayoutStore,
) -> None:
    before = foreign(layout, artifactType="application/x")
    target = release(layout, "mine")
    after = index_of(layout)
    assert list(after) == list(before)
    added = [each for each in after["manifests"] if each not in before["manifests"]]
    assert [each["annotations"] for each in added] == [{REF_NAME: "mine"}]
    assert after == before | {"manifests": [*before["manifests"], *added]}
    assert layout.resolve("mine") == target
    layout.untag("mine")
    assert index_of(layout) == before


def test_a_name_that_is_given_again_keeps_its_place_and_members(layout: LayoutStore) -> None:
    before = foreign(layout)
    held = layout.resolve("win")
    layout.tag(replace(held, annotations={"z": "1"}), "win")
    changed = before["manifests"][0] | {"annotations": {REF_NAME: "win", "z": "1"}}
    assert index_of(layout)["manifests"] == [changed, *before["manifests"][1:]]
    layout.tag(release(layout, "other"), "win")
    assert index_of(layout)["manifests"][0]["annotations"] == {REF_NAME: "win"}
    assert "urls" not in index_of(layout)["manifests"][0]


@pytest.mark.parametrize(
    "change",
    [
        {"manifests": None},
        {"manifests": []},
        {"mediaType": media.INDEX},
        {"annotations": {"half": "\ud800"}},
        {"schemaVersion": 2.0, "unknown": 12345678901234567890},
    ],
    ids=["null", "empty", "type", "surrogate", "numbers"],
)
def test_unusual_indexes_are_read_and_kept(layout: LayoutStore, change: dict[str, object]) -> None:
    before = foreign(layout, **change)
    release(layout, "mine")
    after = index_of(layout)
    assert after.pop("manifests")[: len(before["manifests"] or [])] == (before["manifests"] or [])
    assert after == {key: value for key, value in before.items() if key != "manifests"}


def test_names_of_new_entries_are_in_order(layout: LayoutStore) -> None:
    for name in ("b", "c", "a", "b"):
        release(layout, name)
    names = [each["annotations"][REF_NAME] for each in index_of(layout)["manifests"]]
    assert names == ["a", "b", "c"]


def test_a_name_of_two_images_is_refused_with_both_and_each_found_by_its_digest(
    layout: LayoutStore,
) -> None:
    both = [release(layout, name) for name in ("a", "b")]
    document = index_of(layout)
    for name, each in zip("ab", document["manifests"], strict=True):
        whole = f"docker.io/library/{name}:latest"
        each["annotations"] = {REF_NAME: "latest", IMAGE_NAME: whole}
    (layout.root / "index.json").write_text(json.dumps(document))
    with pytest.raises(NamedTwice) as caught:
        layout.resolve("latest")
    for name, each in zip("ab", both, strict=True):
        assert f"{each.digest} (docker.io/library/{name}:latest" in str(caught.value)
        assert layout.find(each.digest) == each
        assert layout.resolve(f"docker.io/library/{name}:latest") == each
    assert f"oci:{layout.root}@{both[0].digest}" in caught.value.hint
    with pytest.raises(NamedTwice):
        layout.tag(both[0], "latest")
    assert index_of(layout) == document
    layout.tag(both[0], "mine")
    assert [each for each in index_of(layout)["manifests"] if each in document["manifests"]] == (
        document["manifests"]
    )


def test_a_name_given_twice_to_one_image_is_no_question(layout: LayoutStore) -> None:
    target = release(layout)
    document = index_of(layout)
    document["manifests"] *= 2
    (layout.root / "index.json").write_text(json.dumps(document))
    assert layout.resolve("fan-1") == target
    layout.tag(target, "fan-1")
    assert len(layout.entries()) == 1


def test_a_flipped_byte_is_noticed_and_named(layout: LayoutStore) -> None:
    target = release(layout)
    document = json.loads(read(layout, target))
    path = layout.root / "blobs/sha256" / document["layers"][0]["digest"].removeprefix("sha256:")
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    (problem,) = validate(layout)
    assert problem.startswith("fan-1: ")
    assert path.name in problem


@pytest.mark.parametrize(
    "damage",
    [
        lambda index: index.write_text("{"),
        lambda index: index.write_text('{"manifests": [{"digest": "x"}]}'),
        lambda index: index.write_bytes(b" " * (5 * 1024 * 1024)),
    ],
    ids=["cut", "wrong", "large"],
)
def test_a_damaged_index_is_one_clear_error(layout: LayoutStore, damage: object) -> None:
    release(layout)
    damage(layout.root / "index.json")  # type: ignore[operator]
    with pytest.raises(Corrupt, match=r"index\.json"):
        layout.tags()


def test_a_truncated_blob_does_not_count_as_there(layout: LayoutStore) -> None:
    target = release(layout)
    layout.path(target).write_bytes(b"{")
    assert not layout.exists(target)
    with pytest.raises(Corrupt):
        read(layout, target)


def test_a_truncated_blob_is_replaced_by_putting_it_again(layout: LayoutStore) -> None:
    target = put_bytes(layout, b"content", media.CONFIG)
    layout.path(target).write_bytes(b"con")
    layout.put(target, io.BytesIO(b"content"))
    assert read(layout, target) == b"content"


def test_a_directory_that_is_no_layout(tmp_path: Path) -> None:
    with pytest.raises(NotALayout, match="is not an OCI image layout"):
        LayoutStore.existing(tmp_path)


def test_skopeo_and_podman_can_read_what_is_written(tmp_path: Path) -> None:
    import shutil

    from tests.support import unavailable

    if shutil.which("skopeo") is None:
        unavailable("skopeo is not installed")
    project = make_project(tmp_path / "p")
    done = subprocess.run(
        ["skopeo", "copy", "--all", f"oci:{project.layout.root}:base", f"oci:{tmp_path}/out:base"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert LayoutStore(tmp_path / "out").resolve("base") == project.layout.resolve("base")


WRITER = """
import sys
from pathlib import Path
from mlpack.oci import descriptor as media
from mlpack.stores.store import put_bytes
from mlpack.stores.layout import LayoutStore
layout, number = LayoutStore(Path(sys.argv[1])), sys.argv[2]
for turn in range(20):
    target = put_bytes(layout, f"{turn}".encode(), media.CONFIG)
    layout.tag(target, f"name-{number}-{turn}")
"""


def test_processes_share_a_layout_and_lose_no_name(layout: LayoutStore) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(layout.root), str(number)])
        for number in range(4)
    ]
    assert [each.wait() for each in running] == [0] * 4
    assert len(layout.tags()) == 80
    assert sorted(path.name for path in layout.root.rglob(".part-*")) == []


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), atomic(path) as out:
        out.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["lock"]


def test_opening_what_is_not_there_names_the_layout(layout: LayoutStore) -> None:
    with (
        pytest.raises(NotFound, match="does not hold sha256:"),
        layout.open(Descriptor.of(b"x", media.CONFIG)),
    ):
        pass


@pytest.fixture
def docker_list(layout: LayoutStore) -> Descriptor:
    """An image for two platforms with Docker's media types, not named yet."""
    made = [
        build_image(ImageConfig(platform=each), [real_layer(layout, {"a": str(each).encode()})])
        for each in (AMD64, ARM64)
    ]
    for image in made:
        put_image(layout, image)
    return as_docker(layout, put_bytes(layout, build_index(made).content, media.INDEX))


def entry_of(layout: LayoutStore) -> Descriptor:
    (entry,) = layout.listed()
    return entry


@pytest.mark.parametrize("times", [1, 2])
def test_an_image_of_docker_is_shown_with_oci_s_types_and_known_as_it_was(
    layout: LayoutStore, docker_list: Descriptor, times: int
) -> None:
    for _ in range(times):
        layout.tag(layout.entries()[0] if layout.entries() else docker_list, "fan")
    shown = entry_of(layout)
    assert shown.digest != docker_list.digest
    assert families(layout, shown) == {"oci"}
    assert layout.resolve("fan") == docker_list == layout.entries()[0]
    assert families(layout, docker_list) == {"docker"}
    assert layout.as_oci(docker_list).root == shown
    assert validate(layout) == ()


def test_what_an_image_was_outlives_gc(layout: LayoutStore, docker_list: Descriptor) -> None:
    layout.tag(docker_list, "fan")
    tuple(remove(layout, unnamed(layout)))
    assert layout.resolve("fan") == docker_list
    layout.untag("fan")
    tuple(remove(layout, unnamed(layout)))
    assert list((layout.root / "blobs/sha256").iterdir()) == []


@pytest.mark.parametrize("damage", ["removed", "cut", "another image", "no digest"])
def test_without_what_it_was_an_image_is_what_it_is_shown_as(
    layout: LayoutStore, docker_list: Descriptor, damage: str
) -> None:
    """Another tool removes what it does not know, or points the name at an image of its own."""
    layout.tag(docker_list, "fan")
    shown, index = entry_of(layout), layout.root / "index.json"
    if damage == "removed":
        layout.path(docker_list).unlink()
    elif damage == "cut":
        layout.path(docker_list).write_bytes(b"{")
    elif damage == "another image":
        other = release(LayoutStore(layout.root), "other")
        layout.untag("other")
        document = json.loads(index.read_text())
        document["manifests"][0] |= {"digest": str(other.digest), "size": other.size}
        index.write_text(json.dumps(document))
        shown = entry_of(layout)
    else:
        index.write_text(index.read_text().replace(str(docker_list.digest), "sha256:x"))
    assert layout.resolve("fan") == shown


def test_a_docker_list_without_all_its_images_is_shown_as_far_as_it_is_here(
    layout: LayoutStore, docker_list: Descriptor
) -> None:
    missing = json.loads(read(layout, docker_list))["manifests"][1]
    layout.path(docker_list).with_name(missing["digest"][7:]).unlink()
    layout.tag(docker_list, "fan")
    listed = json.loads(read(layout, entry_of(layout)))["manifests"]
    assert [each["mediaType"] for each in listed] == [media.MANIFEST, media.DOCKER_MANIFEST]
    assert listed[1] == missing
    assert layout.resolve("fan") == docker_list
