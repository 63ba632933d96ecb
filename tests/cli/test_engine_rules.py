"""What an engine does not take is not published for it, and is named before anybody pulls it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard
from click.testing import Result

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest
from mlpack.oci.image import Image, ImageConfig, Layer, build_image
from mlpack.plan.engines import engine
from mlpack.project.references import find_image
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import put_image
from mlpack.stores.trees import LayeredTree, read_tree
from tests.registry.registry import running
from tests.stores.test_trees import tar
from tests.support import AMD64, run

FOLDER, LINK, HARD = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
Members = Sequence[tuple[str, Mapping[str, object], bytes]]
NOISE = random.Random(4).randbytes(30_000)

BELOW: Members = [
    ("d", {"type": FOLDER, "mode": 0o755}, b""),
    ("d/a", {}, b"a"),
    ("lnk", {"type": LINK, "linkname": "d"}, b""),
    ("owned", {"type": FOLDER, "mode": 0o700, "uid": 33}, b""),
    ("h1", {}, b"linked"),
    ("big", {}, NOISE),
]


def pack(content: bytes) -> bytes:
    return gzip.compress(content, 6, mtime=0)


def add(
    store: LayoutStore,
    name: str,
    *layers: Members,
    kind: str = media.LAYER_GZIP,
    packing: Callable[[bytes], bytes] = pack,
) -> Image:
    """An image whose top layer is of media type ``kind``; those below are gzip."""
    made = []
    for number, members in enumerate(layers, 1):
        content, top = tar(*members), number == len(layers)
        blob = packing(content) if top else pack(content)
        target = Descriptor.of(blob, kind if top else media.LAYER_GZIP)
        store.put(target, io.BytesIO(blob))
        made.append(Layer(target, Digest.of(content)))
    image = build_image(ImageConfig(platform=AMD64, cmd=("/none",)), made)
    store.tag(put_image(store, image), name)
    return image


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    return LayoutStore(tmp_path / "oci")


def graft(store: LayoutStore, name: str = "moby", *, status: int = 0) -> dict[str, Any]:
    """Graft ``new`` on ``old`` as ``graft``; what was said."""
    names = [f"oci:{store.root}:{each}" for each in ("old", "new", "graft")]
    done = run("--json", "graft", *names[:2], "-o", names[2], "--engine", name)
    assert done.exit_code == status, done.stderr
    if status:
        return {"error": done.stderr}
    found: dict[str, Any] = json.loads(done.stdout)["platforms"]["linux/amd64"]
    return found


def shown(store: LayoutStore, tag: str, name: str) -> LayeredTree:
    """What an engine shows of an image, and what the specification says."""
    image = find_image(None, f"oci:{store.root}:{tag}", AMD64).image
    return read_tree(store, image.layers, unpacking=engine(name).support.unpacking)


SMALL: Members = [("app", {}, b"2"), ("more", {}, random.Random(6).randbytes(3000))]


@pytest.mark.parametrize(
    ("kind", "packing", "who"),
    [
        (media.LAYER_ZSTD, zstandard.compress, "moby"),
        (media.LAYER_GZIP, zstandard.compress, "moby"),
        (media.LAYER_TAR, pack, "containerd"),
        (media.LAYER_TAR, lzma.compress, "containerd"),
        (media.LAYER_GZIP, bz2.compress, "containerd"),
    ],
)
def test_what_an_engine_cannot_unpack_is_grafted_in_gzip(
    store: LayoutStore, kind: str, packing: Callable[[bytes], bytes], who: str
) -> None:
    add(store, "old", BELOW)
    new = add(store, "new", BELOW, SMALL, kind=kind, packing=packing)
    said = graft(store, who)
    assert said["strategy"] == "graft"
    assert [each["effect"] for each in said["refusals_new"]] == ["refused"]
    made = find_image(None, f"oci:{store.root}:graft", AMD64).image
    assert made.layers[-1].descriptor.media_type == media.LAYER_GZIP
    assert engine(who).refusals(made) == ()
    assert new.layers[-1] not in made.layers


ODD: Mapping[str, tuple[Members, str, str]] = {
    "a file through a symlink": ([("lnk/new", {}, b"n")], "symlink below it", "all"),
    "a whiteout through a symlink": ([("lnk/.wh.a", {}, b"")], "symlink below it", "all"),
    "an opaque root": ([(".wh..wh..opq", {}, b""), ("only", {}, NOISE[:99])], "opaque mark", "all"),
    "a directory made again": (
        [(".wh.d", {}, b""), ("d", {"type": FOLDER, "mode": 0o755}, b""), ("d/q", {}, b"q")],
        "makes it again",
        "all",
    ),
    "a parent not listed": ([("owned/new", {}, b"n")], "does not list 'owned'", "moby podman"),
    "a hardlink into a layer below": (
        [("h2", {"type": HARD, "linkname": "h1"}, b"")],
        "no such file",
        "all",
    ),
    "a file twice": ([("n", {}, b"1"), ("n", {}, b"2")], "listed twice", "moby podman"),
}


@pytest.mark.parametrize("name", ["moby", "containerd", "podman"])
@pytest.mark.parametrize("case", ODD)
def test_what_an_engine_unpacks_to_other_files_is_grafted_to_what_is_meant(
    store: LayoutStore, case: str, name: str
) -> None:
    members, why, who = ODD[case]
    add(store, "old", BELOW)
    add(store, "new", BELOW, members)
    said = graft(store, name)
    concerned = who == "all" or name in who
    assert bool(said["refusals_new"]) == concerned
    if concerned:
        assert why in said["refusals_new"][0]["why"]
        assert said["strategy"] == "graft"
        assert shown(store, "graft", name).shown == shown(store, "new", name).tree


@pytest.mark.parametrize("name", ["moby", "containerd", "podman"])
def test_a_graft_leads_from_the_files_that_devices_have_of_old(
    store: LayoutStore, name: str
) -> None:
    # Both images have the layer through a symlink: devices have a directory there.
    through: Members = [("lnk/new", {}, b"n")]
    add(store, "old", BELOW, through)
    add(store, "new", BELOW, through, SMALL)
    said = graft(store, name)
    assert [each["effect"] for each in said["refusals_old"]] == ["altered"]
    assert shown(store, "old", name).shown["lnk"].kind == "directory"
    made = shown(store, "graft", name)
    assert made.shown == shown(store, "new", name).tree
    assert made.shown["lnk"].kind == "symlink"
    done = run("--json", "diff", *(f"oci:{store.root}:{each}" for each in ("old", "graft")))
    assert json.loads(done.stdout)["refusals"] == []


def test_an_old_image_packed_otherwise_is_taken_as_devices_have_it(store: LayoutStore) -> None:
    add(store, "old", BELOW)
    add(store, "new", BELOW, kind=media.LAYER_ZSTD, packing=zstandard.compress)
    said = graft(store)
    assert (said["strategy"], said["layer"]) == ("graft", None)
    made = find_image(None, f"oci:{store.root}:graft", AMD64).image
    assert engine("moby").refusals(made) == ()


def test_nothing_is_published_where_an_engine_takes_neither(store: LayoutStore) -> None:
    add(store, "old", BELOW, SMALL, kind=media.LAYER_ZSTD, packing=zstandard.compress)
    new = add(store, "new", BELOW, SMALL, kind=media.LAYER_ZSTD, packing=zstandard.compress)
    assert new.layers
    add(
        store,
        "new",
        BELOW,
        [("x", {}, b"x")],
        SMALL,
        kind=media.LAYER_ZSTD,
        packing=zstandard.compress,
    )
    said = graft(store, status=1)["error"]
    assert "neither the graft nor NEW can be published" in said
    assert "is zstd, which is not unpacked" in said
    assert "hint" in said
    assert "graft" not in store.tags()
    names = [f"oci:{store.root}:{each}" for each in ("old", "new", "graft")]
    done = run("graft", *names[:2], "-o", names[2])
    assert done.exit_code == 0, "no engine was named: moby is only what is assumed"
    assert "warning: Docker 20.10.24 refuses layer" in " ".join(done.stderr.split())
    assert graft(store, "containerd")["strategy"] in ("graft", "new")


def test_a_graft_of_too_many_layers_is_not_the_way(store: LayoutStore) -> None:
    many: list[Members] = [
        [(f"f{number}", {}, random.Random(number).randbytes(1000))] for number in range(125)
    ]
    add(store, "old", *many)
    add(store, "new", [*(each[0] for each in many), ("app", {}, b"2")])
    said = graft(store)
    assert said["strategy"] == "new"
    assert "126 layers, and 125 are the most" in said["why"]
    assert graft(store, "podman")["strategy"] == "graft"


def test_diff_warns_and_names_the_engine(store: LayoutStore) -> None:
    add(store, "old", BELOW)
    add(store, "zstd", BELOW, SMALL, kind=media.LAYER_ZSTD, packing=zstandard.compress)
    add(store, "through", BELOW, [("lnk/new", {}, b"n")])
    old = f"oci:{store.root}:old"
    for tag, why in (("zstd", "it is zstd"), ("through", "through 'lnk', a symlink below it")):
        done = run("diff", old, f"oci:{store.root}:{tag}")
        assert done.exit_code == 0
        assert "Docker 20.10.24" in done.stdout
        assert why in " ".join(done.stdout.split())
        assert "mlpack graft OLD NEW" in " ".join(done.stdout.split())
        (told,) = json.loads(run("--json", "diff", old, f"oci:{store.root}:{tag}").stdout)[
            "refusals"
        ]
        assert told["engine"] == "Docker 20.10.24"
    assert json.loads(run("--json", "diff", old, old).stdout)["refusals"] == []
    done = run("--json", "diff", old, f"oci:{store.root}:zstd", "--engine", "containerd")
    assert json.loads(done.stdout)["refusals"] == []


def bundle(store: LayoutStore, tag: str, name: str) -> Result:
    made = f"{store.root.parent}/{tag}.tar"
    names = [f"oci:{store.root}:{tag}", "--onto", f"oci:{store.root}:old"]
    return run("--json", "bundle", *names, "-o", made, "--engine", name, "--name", "l/x:1")


def test_a_bundle_that_its_engine_does_not_take_is_not_written(store: LayoutStore) -> None:
    add(store, "old", BELOW)
    add(store, "zstd", BELOW, SMALL, kind=media.LAYER_ZSTD, packing=zstandard.compress)
    add(store, "tar", BELOW, SMALL, kind=media.LAYER_TAR)
    add(store, "linked", BELOW, [("h2", {"type": HARD, "linkname": "h1"}, b"")])
    add(store, "through", BELOW, [("lnk/new", {}, b"n")])
    # docker load is given plain tars, whatever the registry has.
    assert bundle(store, "zstd", "moby").exit_code == 0
    assert bundle(store, "zstd", "podman").exit_code == 0
    refused = bundle(store, "tar", "containerd")
    assert refused.exit_code == 1
    assert "says plain tar" in refused.stderr
    assert not (store.root.parent / "tar.tar").exists()
    refused = bundle(store, "linked", "moby")
    assert "'h2' is a hardlink to 'h1'" in refused.stderr
    warned = bundle(store, "through", "moby")
    assert warned.exit_code == 0
    assert "warning: Docker 20.10.24 unpacks other files of layer 2" in " ".join(
        warned.stderr.split()
    )
    assert [each["effect"] for each in json.loads(warned.stdout)["refusals"]] == ["altered"]


def release(folder: Path, settings: str) -> None:
    """A project with a grafted release of a zstd layer."""
    text = f'[model]\nname = "fan"\n[image]\nrepository = "localhost/fan"\n{settings}'
    (folder / "mlpack.toml").write_text(text)
    store = LayoutStore(folder / "foreign")
    add(store, "old", BELOW)
    # zstd is so much smaller here that NEW itself is the cheaper way.
    zeros: Members = [("zeros", {}, bytes(3_000_000))]
    add(store, "new", BELOW, zeros, kind=media.LAYER_ZSTD, packing=zstandard.compress)
    names = [f"oci:{store.root}:old", f"oci:{store.root}:new"]
    at = ["-C", str(folder)]
    done = run(*at, "graft", *names, "-o", "fan:2", "--engine", "containerd")
    assert done.exit_code == 0, done.stderr


GROUP = """[deploy.groups.{name}]
target = "tags.x = '{name}'"
engine = "{engine}"
"""


@pytest.mark.parametrize(
    ("settings", "status", "said"),
    [
        ("", 0, "warning: Docker 20.10.24 refuses layer 2"),
        ('[device]\nengine = "moby"\n', 1, "Docker 20.10.24 refuses layer 2"),
        ('[device]\nengine = "containerd"\n', 0, ""),
        (GROUP.format(name="a", engine="moby"), 1, "Docker 20.10.24 refuses layer 2"),
        (
            GROUP.format(name="a", engine="moby") + GROUP.format(name="b", engine="containerd"),
            0,
            "warning: Docker 20.10.24 refuses layer 2",
        ),
    ],
)
def test_a_push_is_refused_if_no_device_that_is_named_takes_it(
    tmp_path: Path, settings: str, status: int, said: str
) -> None:
    release(tmp_path, settings)
    with running(tmp_path / "registry") as registry:
        done = run("-C", str(tmp_path), "--json", "push", "fan:2", "--to", f"{registry.host}/fan")
    assert done.exit_code == status, done.stderr
    assert said in " ".join(done.stderr.split())
    if not status:
        assert bool(json.loads(done.stdout)["refusals"]) == bool(said)
