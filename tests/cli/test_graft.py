"""Grafting images of other tools: what the layer holds, when NEW is better, what is refused."""

from __future__ import annotations

import gzip
import io
import json
import random
import subprocess
import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mlpack.api import graft as api
from mlpack.api.requests import Graft
from mlpack.api.session import Progress, Session
from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest, canonical
from mlpack.oci.filesystem import Tree
from mlpack.oci.image import Image, Layer, assemble
from mlpack.project.references import find_image
from mlpack.stores.integrity import validate
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import put_image
from mlpack.stores.trees import read_tree
from tests.registry.registry import Registry
from tests.support import AMD64, require, run

NOW = datetime(2026, 11, 21, tzinfo=UTC)

Files = Mapping[str, bytes | None]
"""Contents by path; ``None`` is a directory, ``.wh.`` names are whiteouts."""


def packed(files: Files, time: int) -> bytes:
    """A layer as a common tool writes it: gzip by zlib, real times."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.mtime = time
            member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            member.mode = 0o755 if content is None else 0o644
            member.size = len(content or b"")
            archive.addfile(member, io.BytesIO(content or b""))
    return out.getvalue()


def add(store: LayoutStore, name: str, *layers: tuple[Files, int], os: str = "linux") -> Image:
    """An image of another tool in ``store``, called ``name``."""
    made = []
    for files, time in layers:
        content = packed(files, time)
        blob = gzip.compress(content, 6, mtime=time)
        target = Descriptor.of(blob, media.LAYER_GZIP)
        store.put(target, io.BytesIO(blob))
        made.append(Layer(target, Digest.of(content)))
    config = {
        "architecture": "amd64",
        "os": os,
        "created": "2026-01-01T00:00:00Z",
        "docker_version": "20.10.24",
        "container_config": {"Hostname": "x" * 100},
        "history": [{"created_by": "RUN pip install " + "x" * 200}],
        "config": {
            "Image": "sha256:" + "0" * 64,
            "Cmd": None,
            "Entrypoint": ["/bin/serve", name],
            "Env": [f"VERSION={name}"],
            "User": "1000:1000",
            "Labels": {"team": "fans"},
            "Healthcheck": {"Test": ["CMD", "/bin/check"]},
            "WorkingDir": "/srv",
        },
        "rootfs": {"type": "layers", "diff_ids": [str(each.diff_id) for each in made]},
    }
    image = assemble(canonical(config), made)
    store.tag(put_image(store, image), name)
    return image


def tree(reference: str) -> Tree:
    found = find_image(None, reference, AMD64)
    return read_tree(found.store, found.image.layers).tree


DEPENDENCIES = random.Random(5).randbytes(3_000_000)
SYSTEM: Files = {"bin": None, "bin/serve": b"serve", "etc": None, "etc/passwd": b"root:x:0"}


def dependencies(version: str = "1", time: int = 1) -> Files:
    """What ``pip install`` leaves, with the times of its sources in what it compiled."""
    compiled = b"\xa7\r\r\n" + bytes(4) + time.to_bytes(4, "little") + b"code" * 20
    return {
        "lib": None,
        "lib/big.so": DEPENDENCIES,
        f"lib/pkg-{version}.dist-info": None,
        f"lib/pkg-{version}.dist-info/METADATA": f"Version: {version}".encode(),
        f"lib/pkg-{version}.dist-info/RECORD": b"lib/big.so,,",
        f"lib/pkg-{version}.dist-info/WHEEL": b"wheel",
        "lib/pkg": None,
        "lib/pkg/__init__.py": f"v = {version}".encode(),
        "lib/pkg/__pycache__": None,
        "lib/pkg/__pycache__/__init__.cpython-311.pyc": compiled + version.encode(),
        "lib/pkg/same.py": b"same",
        "lib/pkg/__pycache__/same.cpython-311.pyc": compiled,
    }


def model(content: bytes) -> Files:
    return {"models": None, "models/m.onnx": content}


CASES: dict[str, tuple[list[tuple[Files, int]], list[str] | None, int]] = {
    "only times": ([(SYSTEM, 1), (model(b"one"), 9), (dependencies(time=9), 9)], None, 0),
    "the model": (
        [(SYSTEM, 1), (model(b"two"), 9), (dependencies(time=9), 9)],
        ["models", "models/m.onnx"],
        400,
    ),
    "a package upgraded": (
        [(SYSTEM, 1), (model(b"one"), 1), (dependencies("2", 9), 9)],
        [
            "lib",
            "lib/.wh.pkg-1.dist-info",
            "lib/pkg",
            "lib/pkg/__init__.py",
            "lib/pkg/__pycache__",
            "lib/pkg/__pycache__/__init__.cpython-311.pyc",
            "lib/pkg-2.dist-info",
            "lib/pkg-2.dist-info/METADATA",
            "lib/pkg-2.dist-info/RECORD",
            "lib/pkg-2.dist-info/WHEEL",
        ],
        1000,
    ),
    "a file becomes a directory": (
        [
            ({**SYSTEM, "etc/passwd": None, "etc/passwd/root": b"x"}, 2),
            (model(b"one"), 1),
            (dependencies(), 1),
        ],
        ["etc", "etc/passwd", "etc/passwd/root"],
        400,
    ),
    "deletions": (
        [
            ({"bin": None, "bin/serve": b"serve"}, 2),
            ({"lib": None, "lib/big.so": DEPENDENCIES, "lib/pkg": None}, 1),
        ],
        [
            ".wh.etc",
            ".wh.models",
            "lib",
            "lib/.wh.pkg-1.dist-info",
            "lib/pkg",
            "lib/pkg/.wh..wh..opq",
        ],
        400,
    ),
}


@pytest.fixture
def images(tmp_path: Path) -> LayoutStore:
    """A layout with ``v1``: system, model, dependencies, as the usual build stacks them."""
    store = LayoutStore(tmp_path / "images")
    add(store, "v1", (SYSTEM, 1), (model(b"one"), 1), (dependencies(), 1))
    return store


def grafted(images: LayoutStore, *more: str, new: str = "v2") -> dict[str, Any]:
    """Graft v1 → ``new`` and return what the command said."""
    root = images.root
    command = ["graft", f"oci:{root}:v1", f"oci:{root}:{new}", "-o", f"oci:{root}-out:g"]
    done = run("--json", *command, *more)
    assert done.exit_code == 0, done.stderr
    return one(json.loads(done.stdout))


def one(document: dict[str, Any]) -> dict[str, Any]:
    """What was said of the only platform, and of the whole."""
    (found,) = document["platforms"].values()
    return {**found, "reference": document["reference"], "digest": document["digest"]}


@pytest.mark.parametrize("case", CASES)
def test_the_layer_holds_what_differs(images: LayoutStore, case: str) -> None:
    layers, names, most = CASES[case]
    new = add(images, "v2", *layers)
    old = images.resolve("v1")
    said = grafted(images)
    assert said["strategy"] == "graft"
    assert (said["old"], said["new"]) == (str(old.digest), str(new.digest))
    result = find_image(None, f"oci:{images.root}-out:g").image
    before = find_image(None, f"oci:{images.root}:v1").image
    assert result.layers[: len(before.layers)] == before.layers
    added = result.layers[len(before.layers) :]
    assert sum(layer.size for layer in added) <= most
    if names is None:
        assert (added, said["layer"]) == ((), None)
    else:
        out = LayoutStore(Path(f"{images.root}-out"))
        with out.open(added[0].descriptor) as blob, tarfile.open(fileobj=blob) as archive:
            assert sorted(archive.getnames()) == sorted(names)
            assert {member.mtime for member in archive} == {0}
    assert tree(f"oci:{images.root}-out:g") == tree(f"oci:{images.root}:v2")
    assert validate(LayoutStore(Path(f"{images.root}-out"))) == ()


def test_the_settings_are_new_s_without_what_no_engine_reads(images: LayoutStore) -> None:
    layers, _, _ = CASES["the model"]
    add(images, "v2", *layers)
    grafted(images)
    config = json.loads(find_image(None, f"oci:{images.root}-out:g").image.config)
    assert set(config) == {"architecture", "os", "config", "rootfs"}
    assert config["config"] == {
        "Entrypoint": ["/bin/serve", "v2"],
        "Env": ["VERSION=v2"],
        "User": "1000:1000",
        "Labels": {"team": "fans"},
        "Healthcheck": {"Test": ["CMD", "/bin/check"]},
        "WorkingDir": "/srv",
    }


def test_the_same_images_give_the_same_graft(images: LayoutStore) -> None:
    add(images, "v2", *CASES["a package upgraded"][0])
    assert grafted(images)["digest"] == grafted(images)["digest"]


def test_the_graft_costs_what_diff_says(images: LayoutStore) -> None:
    add(images, "v2", *CASES["the model"][0])
    said = grafted(images, "--engine", "podman")
    command = ["diff", f"oci:{images.root}:v1", f"oci:{images.root}-out:g", "--engine", "podman"]
    assert json.loads(run("--json", *command).stdout)["transfer"] == said["transfer"]
    whole, graft = said["transfer_new"], said["transfer_graft"]
    assert whole["total"] > 3_000_000 > 20_000 > graft["total"]


def test_new_is_taken_where_it_is_cheaper(images: LayoutStore) -> None:
    """NEW is OLD and one layer: a graft could only repeat that, and names directories too."""
    v1 = find_image(None, f"oci:{images.root}:v1").image
    weights = random.Random(6).randbytes(200_000)
    content = packed({"models/m.onnx": weights, "models/n.onnx": weights}, 3)
    blob = gzip.compress(content)
    target = Descriptor.of(blob, media.LAYER_GZIP)
    images.put(target, io.BytesIO(blob))
    new = assemble(
        canonical(
            {
                "architecture": "amd64",
                "os": "linux",
                "rootfs": {
                    "type": "layers",
                    "diff_ids": [*map(str, v1.diff_ids), str(Digest.of(content))],
                },
            }
        ),
        [*v1.layers, Layer(target, Digest.of(content))],
    )
    images.tag(put_image(images, new), "v2")
    done = run(
        "graft", f"oci:{images.root}:v1", f"oci:{images.root}:v2", "-o", f"oci:{images.root}-out:g"
    )
    assert done.exit_code == 0, done.stderr
    assert "what was written is NEW, unchanged" in done.stderr
    out = find_image(None, f"oci:{images.root}-out:g")
    assert out.image.digest == new.digest
    assert validate(LayoutStore(Path(f"{images.root}-out"))) == ()


def test_new_is_taken_where_it_is_old(images: LayoutStore) -> None:
    said = grafted(images, new="v1")
    assert (said["strategy"], said["digest"]) == ("new", said["old"])


def test_what_docker_saved_can_be_grafted(images: LayoutStore, tmp_path: Path) -> None:
    require(Path("/usr/bin/skopeo"))
    add(images, "v2", *CASES["the model"][0])
    names = []
    for version in ("v1", "v2"):
        names.append(f"docker-archive:{tmp_path / version}.tar")
        target = f"{names[-1]}:fan:{version}"
        command = ["skopeo", "copy", "-q", f"oci:{images.root}:{version}", target]
        subprocess.run(command, check=True)
    done = run("--json", "graft", *names, "-o", f"oci:{tmp_path}/out:g")
    assert done.exit_code == 0, done.stderr
    said = one(json.loads(done.stdout))
    assert said["layer"]["bytes"] < 400
    assert tree(f"oci:{tmp_path}/out:g") == tree(f"oci:{images.root}:v2")


def test_registries_on_both_ends(images: LayoutStore, registry: Registry, tmp_path: Path) -> None:
    add(images, "v2", *CASES["a package upgraded"][0])
    root = images.root
    host = registry.host
    for name in ("v1", "v2"):
        done = run("copy", f"oci:{root}:{name}", f"{host}/built/fan:{name}")
        assert done.exit_code == 0, done.stderr
    there = [f"{host}/built/fan:v1", f"{host}/built/fan:v2"]
    for out in (f"{host}/built/fan:g", f"{host}/other/fan:g"):
        done = run("--json", "graft", *there, "-o", out)
        assert done.exit_code == 0, done.stderr
        said = one(json.loads(done.stdout))
        assert said["reference"] == f"{out.removesuffix(':g')}@{said['digest']}"
        moved = run("copy", out, f"oci:{tmp_path}/back:{out.split('/')[1]}")
        assert moved.exit_code == 0, moved.stderr
        assert tree(f"oci:{tmp_path}/back:{out.split('/')[1]}") == tree(f"oci:{root}:v2")
    assert said["digest"] == grafted(images)["digest"], "the same from a layout"


@pytest.mark.parametrize(
    ("old", "new", "out", "said"),
    [
        ("none", "v2", "oci:{}-out:g", "needs an image"),
        ("v1", "windows", "oci:{}-out:g", "windows"),
        ("v1", "v2", "oci::g", "oci:PATH:TAG"),
        ("v1", "v2", "docker-archive:{}-out", "cannot copy to"),
        ("v1", "evil", "oci:{}-out:g", "leads out of the image"),
        ("v1", "arm", "oci:{}-out:g", "arm64"),
    ],
)
def test_what_is_refused_leaves_no_name(
    images: LayoutStore, old: str, new: str, out: str, said: str
) -> None:
    root = images.root
    add(images, "v2", *CASES["the model"][0])
    add(images, "windows", (SYSTEM, 1), os="windows")
    add(images, "evil", ({"../etc/passwd": b"x"}, 1))
    v1 = find_image(None, f"oci:{root}:v1").image
    arm = v1.config.replace(b'"amd64"', b'"arm64"')
    images.tag(put_image(images, assemble(arm, v1.layers)), "arm")
    first = old if old == "none" else f"oci:{root}:{old}"
    done = run("graft", first, f"oci:{root}:{new}", "-o", out.format(root))
    assert done.exit_code in (1, 2)
    assert said in done.stderr
    assert not (Path(f"{root}-out") / "index.json").exists()


def test_a_damaged_layer_is_noticed_before_anything_is_named(images: LayoutStore) -> None:
    new = add(images, "v2", *CASES["the model"][0])
    path = images.path(new.layers[-1].descriptor)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(content))
    root = images.root
    with pytest.raises(MlpackError, match=new.layers[-1].digest.hex):
        api.graft(Session(), Graft(f"oci:{root}:v1", f"oci:{root}:v2", f"oci:{root}-out:g"))
    assert not (Path(f"{root}-out") / "index.json").exists()


def test_progress_counts_each_layer_once(images: LayoutStore) -> None:
    new = add(images, "v2", (SYSTEM, 1), (model(b"two"), 9), (dependencies(time=9), 9))
    old = find_image(None, f"oci:{images.root}:v1").image
    seen: list[Progress] = []
    root = images.root
    made = api.graft(
        Session(progress=seen.append),
        Graft(f"oci:{root}:v1", f"oci:{root}:v2", f"oci:{root}-out:g", platform=AMD64),
    )
    read = {layer.digest: layer.size for layer in (*old.layers, *new.layers)}
    assert (seen[-1].done, seen[-1].finished) == (sum(read.values()), True)
    (only,) = made.platforms
    assert only.difference.files == ("models/m.onnx",)
    assert only.old.descriptor == old.descriptor
