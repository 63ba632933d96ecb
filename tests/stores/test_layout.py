"""The layout on disk: others read it, processes share it, damage is noticed, crashes do no harm."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.image import ImageConfig, build_image
from mlpack.stores.files import atomic
from mlpack.stores.integrity import validate
from mlpack.stores.layout import LayoutStore, NotALayout
from mlpack.stores.store import Corrupt, NotFound, put_bytes, put_image, read
from tests.support import AMD64, make_project, real_layer


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
