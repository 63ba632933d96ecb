"""Grafts for several platforms, and grafts as releases of a project."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Platform
from mlpack.oci.image import Image, ImageConfig, build_image, build_index
from mlpack.project.directory import ProjectDirectory
from mlpack.project.ledger import Ledger
from mlpack.project.references import find_image
from mlpack.stores.integrity import validate
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import put_bytes, put_image, read_index
from mlpack.stores.trees import read_tree
from tests.registry.registry import Registry
from tests.support import AMD64, ARM64, real_layer, released_project, run, tiny_onnx

ARMV7 = Platform("linux", "arm", "v7")


def usual(store: LayoutStore, model: bytes, platform: Platform) -> Image:
    """A model below its dependencies: a new model has engines fetch these again."""
    below = real_layer(store, {"models/m.onnx": model})
    packages = {"lib/big.so": random.Random(str(platform)).randbytes(50_000)}
    layers = [below, real_layer(store, packages)]
    image = build_image(ImageConfig(platform=platform, cmd=("/serve",)), layers)
    put_image(store, image)
    return image


def add(store: LayoutStore, name: str, model: bytes, *platforms: Platform) -> None:
    """An image of the usual build for ``platforms``, under one name."""
    made = [usual(store, model, each) for each in platforms]
    index = build_index(made)
    store.tag(put_bytes(store, index.content, media.INDEX), name)


@pytest.fixture
def images(tmp_path: Path) -> LayoutStore:
    store = LayoutStore(tmp_path / "images")
    add(store, "v1", b"one", AMD64, ARM64)
    add(store, "v2", b"two", AMD64, ARM64)
    return store


def graft(*args: str, directory: Path | None = None) -> dict[str, Any]:
    at = ("-C", str(directory)) if directory else ()
    done = run(*at, "--json", "graft", *args)
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_platform_of_both_is_grafted_in_one_run(images: LayoutStore, tmp_path: Path) -> None:
    old, new, out = (f"oci:{images.root}:v1", f"oci:{images.root}:v2", f"oci:{tmp_path}/out:g")
    said = graft(old, new, "-o", out)
    store = LayoutStore.existing(tmp_path / "out")
    assert validate(store) == ()
    target = store.resolve("g")
    assert (target.media_type, str(target.digest)) == (media.INDEX, said["digest"])
    assert list(said["platforms"]) == ["linux/amd64", "linux/arm64"]
    for platform in (AMD64, ARM64):
        one = said["platforms"][str(platform)]
        assert one["strategy"] == "graft"
        assert one["layer"]["bytes"] < 500
        trees = []
        for name in (out, new):
            found = find_image(None, name, platform)
            trees.append(read_tree(found.store, found.image.layers).tree)
        assert trees[0] == trees[1]
        how = ["--platform", str(platform), "--engine", "moby"]
        planned = json.loads(run("--json", "diff", old, out, *how).stdout)["transfer"]
        assert planned == one["transfer"], "the index is paid for, too"
        whole = json.loads(run("--json", "diff", old, new, *how).stdout)["transfer"]
        assert whole == one["transfer_new"]


def test_one_platform_can_be_asked_for(images: LayoutStore, tmp_path: Path) -> None:
    names = [f"oci:{images.root}:v1", f"oci:{images.root}:v2", "-o", f"oci:{tmp_path}/out:g"]
    said = graft(*names, "--platform", "linux/arm64")
    assert list(said["platforms"]) == ["linux/arm64"]
    target = LayoutStore.existing(tmp_path / "out").resolve("g")
    assert target.media_type == media.MANIFEST


def test_a_platform_that_old_lacks_is_left_out_and_named(
    images: LayoutStore, tmp_path: Path
) -> None:
    add(images, "v3", b"three", AMD64, ARM64, ARMV7)
    names = [f"oci:{images.root}:v1", f"oci:{images.root}:v3", "-o", f"oci:{tmp_path}/out:g"]
    done = run("graft", *names)
    assert done.exit_code == 0
    assert "left out, since OLD has no image for it: linux/arm/v7" in done.stderr
    assert "linux/arm64: one layer of" in done.stderr
    assert graft(*names)["left_out"] == ["linux/arm/v7"]
    add(images, "other", b"three", ARMV7)
    done = run("graft", names[0], f"oci:{images.root}:other", *names[2:])
    assert done.exit_code == 1
    assert "v1 is for linux/amd64, linux/arm64, " in done.stderr


def listing(store: LayoutStore, name: str, model: bytes, *entries: tuple[Platform, str]) -> None:
    """An index that names variants as BuildKit's does; the configs name the architecture only."""
    made = []
    for listed, text in entries:
        built_for = Platform(listed.os, listed.architecture)
        layers = [real_layer(store, {"m.onnx": model}), real_layer(store, {"lib": text.encode()})]
        image = build_image(ImageConfig(platform=built_for), layers)
        put_image(store, image)
        made.append(replace(image, listed=listed))
    store.tag(put_bytes(store, build_index(made).content, media.INDEX), name)


def test_variants_are_grafted_each_on_its_own_and_keep_their_platforms(tmp_path: Path) -> None:
    store = LayoutStore(tmp_path / "images")
    v5, v7, v8 = (Platform.parse(f"linux/{each}") for each in ("arm/v5", "arm/v7", "arm64/v8"))
    noise = {each: random.Random(str(each)).randbytes(9000).hex() for each in (v5, v7, v8)}
    for name in ("v1", "v2"):
        listing(store, name, name.encode(), *noise.items())
    both, out = (f"oci:{store.root}:v1", f"oci:{store.root}:v2"), f"oci:{tmp_path}/out:g"
    said = graft(*both, "-o", out)
    assert list(said["platforms"]) == ["linux/arm/v5", "linux/arm/v7", "linux/arm64/v8"]
    made = LayoutStore.existing(tmp_path / "out")
    assert validate(made) == ()
    assert read_index(made, made.resolve("g")).platforms == (v5, v7, v8)
    for platform in (v5, v7, v8):
        old, new = (find_image(None, name, platform).image for name in (both[0], out))
        assert new.layers[:2] == old.layers
    how = ["--engine", "containerd", "--name", "x.example.com/fan:2", "--platform", "linux/arm/v6"]
    bundle = ["bundle", "make", both[1], "--onto", both[0], "-o", str(tmp_path / "b.tar"), *how]
    assert json.loads(run("--json", *bundle).stdout)["platform"] == "linux/arm/v5"
    said = graft(*both, "-o", f"oci:{tmp_path}/out:one", "--platform", "linux/arm/v7")
    assert list(said["platforms"]) == ["linux/arm/v7"]
    assert made.resolve("one").platform == v7


def test_images_for_windows_and_second_ones_are_left_out_and_named(tmp_path: Path) -> None:
    store = LayoutStore(tmp_path / "images")
    windows = [Platform("windows", "amd64", "", f"10.0.{build}") for build in (17763, 20348)]
    for name in ("v1", "v2"):
        entries = [(each, str(each)) for each in (*windows, AMD64, ARM64)]
        listing(store, name, name.encode() * 9000, *entries, (AMD64, "zstd"))
    names = (f"oci:{store.root}:v1", f"oci:{store.root}:v2", "-o", f"oci:{tmp_path}/out:g")
    said = graft(*names)
    assert list(said["platforms"]) == ["linux/amd64", "linux/arm64"]
    apart = ["windows(10.0.17763)/amd64", "windows(10.0.20348)/amd64"]
    assert sorted(said["left_out"]) == ["linux/amd64", *apart]
    told = run("graft", *names).stderr
    assert f"left out, since only images for linux are grafted: {', '.join(apart)}" in told
    assert "left out, since NEW lists another image for it first: linux/amd64" in told
    listing(store, "windows", b"two", (windows[0], "x"))
    done = run("graft", names[0], f"oci:{store.root}:windows", *names[2:])
    assert (done.exit_code, "for windows(10.0.17763)/amd64" in done.stderr) == (1, True)


def test_where_each_image_is_new_s_its_own_index_is_written(
    images: LayoutStore, tmp_path: Path
) -> None:
    same = f"oci:{images.root}:v1"
    said = graft(same, same, "-o", f"oci:{tmp_path}/out:g")
    assert said["digest"] == str(images.resolve("v1").digest)
    assert validate(LayoutStore.existing(tmp_path / "out")) == ()


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    """A project with the release fan:1, made by mlpack."""
    return released_project(tmp_path / "fan", 1)


def test_a_graft_as_a_release_is_one(
    project: ProjectDirectory, images: LayoutStore, registry: Registry, tmp_path: Path
) -> None:
    at = ("-C", str(project.root), "--json")
    before = f"oci:{images.root}:v1"
    first = graft(before, before, "-o", "fan:2", directory=project.root)
    assert (first["release"], first["reference"]) == ("fan:2", "fan:2")
    said = graft("fan:2", f"oci:{images.root}:v2", "-o", "fan:3", directory=project.root)
    assert validate(project.layout) == ()

    moved = json.loads(run(*at, "diff", "fan:2", "fan:3").stdout)
    assert moved["transfer"] == said["platforms"]["linux/amd64"]["transfer"]
    report = json.loads(run(*at, "report", "fan:3").stdout)
    assert (report["release"], report["old"]) == ("fan:3", "fan:2")
    pushed = json.loads(run(*at, "push", "fan:3", "--to", f"{registry.host}/graft/fan").stdout)
    assert (pushed["digest"], pushed["tag"]) == (said["digest"], "3")
    shown = run(*at, "render", "fan:3")
    assert said["digest"] in shown.stdout, shown.stderr

    known = {each.version: each for each in Ledger(project.ledger).releases("fan")}
    layer = said["platforms"]["linux/amd64"]["layer"]
    assert (known["3"].strategy, known["3"].layer_bytes) == ("graft", layer["bytes"])
    assert str(known["3"].base_digest) == said["platforms"]["linux/amd64"]["old"]
    assert known["3"].identity["strategy"] == {"linux/amd64": "graft", "linux/arm64": "graft"}
    assert known["2"].strategy == "new"

    again = json.loads(run(*at, "register", str(tiny_onnx(tmp_path / "n.onnx", bias=7))).stdout)
    assert again["version"] == "4", "2 and 3 are taken"


def test_a_graft_that_goes_elsewhere_is_in_the_ledger_too(
    project: ProjectDirectory, images: LayoutStore, tmp_path: Path
) -> None:
    names = (f"oci:{images.root}:v1", f"oci:{images.root}:v2", "-o", f"oci:{tmp_path}/out:g")
    said = graft(*names, directory=project.root)
    (found,) = Ledger(project.ledger).releases(f"oci:{tmp_path}/out")
    assert (found.version, str(found.digest)) == ("g", said["digest"])


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("fan", "fan:VERSION"),
        ("fan:latest", "fan:VERSION"),
        ("fan:1", "fan:1 is a registered model"),
        ("fan:2", "fan:2 is already another image"),
        ("Fan:2", "not a model name"),
    ],
)
def test_names_that_cannot_be_given(
    project: ProjectDirectory, images: LayoutStore, out: str, said: str
) -> None:
    v1, v2 = f"oci:{images.root}:v1", f"oci:{images.root}:v2"
    graft(v1, v1, "-o", "fan:2", directory=project.root)
    held = dict(project.layout.tags())
    done = run("-C", str(project.root), "graft", v1, v2, "-o", out)
    assert done.exit_code in (1, 2)
    assert said in done.stderr
    assert "hint: " in done.stderr
    assert dict(project.layout.tags()) == held


def test_a_release_needs_a_project(images: LayoutStore, tmp_path: Path) -> None:
    v1 = f"oci:{images.root}:v1"
    done = run("-C", str(tmp_path), "graft", v1, v1, "-o", "fan:2")
    assert "'fan:2' names a release" in done.stderr


def test_the_platforms_of_an_index_keep_their_own_layers(
    images: LayoutStore, tmp_path: Path
) -> None:
    graft(f"oci:{images.root}:v1", f"oci:{images.root}:v2", "-o", f"oci:{tmp_path}/out:g")
    out = LayoutStore.existing(tmp_path / "out")
    for entry in read_index(out, out.resolve("g")).manifests:
        assert entry.platform is not None
        found = find_image(None, f"oci:{tmp_path}/out:g", entry.platform).image
        before = find_image(None, f"oci:{images.root}:v1", entry.platform).image
        assert found.layers[: len(before.layers)] == before.layers
