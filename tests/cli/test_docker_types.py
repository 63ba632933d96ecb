"""Images with Docker's media types: what a layout shows, what devices pull, and what is said."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Reference
from mlpack.oci.image import build_index
from mlpack.project.directory import ProjectDirectory
from mlpack.project.references import find_image
from mlpack.registry.repository import Registries, RegistryStore
from mlpack.stores.copy import copy
from mlpack.stores.integrity import validate
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import Store, put_bytes
from tests.cli.test_graft_targets import usual
from tests.docker_images import as_docker, families
from tests.registry.registry import Registry
from tests.support import AMD64, ARM64, released_project, run


def mlpack(*args: str | Path) -> dict[str, Any]:
    done = run("--json", *map(str, args))
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    changed = found.get("converted")
    assert ("the digest changed" in done.stderr) is bool(changed)
    if changed:
        assert changed["from"] in done.stderr
        assert changed["to"] in done.stderr
    return found


@pytest.fixture
def remote(registry: Registry) -> Iterator[RegistryStore]:
    place = Reference.parse(f"{registry.host}/edge/{uuid.uuid4().hex}")
    with Registries() as registries:
        yield registries.store(place, push=True)


def publish(remote: RegistryStore, layout: LayoutStore, target: Descriptor, tag: str) -> str:
    """Put an image with Docker's types into the registry; return its name."""
    made = as_docker(layout, target)
    copy(layout, remote, made)
    remote.tag(made, tag)
    return f"{remote.place}:{tag}"


def shown(layout: LayoutStore, name: str) -> Descriptor:
    """What other tools find under ``name``."""
    return next(
        each
        for each in layout.listed()
        if each.annotations["org.opencontainers.image.ref.name"] == name
    )


def test_a_relayed_image_has_the_digest_that_deployments_name(
    remote: RegistryStore, tmp_path: Path
) -> None:
    work = LayoutStore(tmp_path / "work")
    index = build_index([usual(work, b"1", each) for each in (AMD64, ARM64)])
    source = publish(remote, work, put_bytes(work, index.content, media.INDEX), "1")
    before = remote.resolve("1")
    usb = LayoutStore(tmp_path / "usb")
    for _ in range(2):
        said = mlpack("copy", source, f"oci:{usb.root}:fan")
        entry = shown(usb, "fan")
        assert families(usb, entry) == {"oci"}
        assert said["digest"] == str(entry.digest)
        assert said["converted"] == {"from": str(before.digest), "to": str(entry.digest)}
    names = sorted(path.name for path in (usb.root / "blobs/sha256").iterdir())
    again = mlpack("copy", f"oci:{usb.root}:fan", f"oci:{usb.root}:again")
    assert (again["digest"], again["converted"]) == (said["digest"], None)
    assert sorted(path.name for path in (usb.root / "blobs/sha256").iterdir()) == names
    back = mlpack("copy", f"oci:{usb.root}:fan", f"{remote.place}:back")
    assert back["digest"] == str(before.digest)
    assert back["converted"] == {"from": said["digest"], "to": str(before.digest)}
    assert remote.resolve("back") == before
    aside = mlpack("copy", source, f"{str(remote.place)[:-1]}x:1")
    assert (aside["digest"], aside["converted"]) == (str(before.digest), None)
    assert len(aside["mounted"]) == 5, "the model, and packages and a config of each platform"
    assert validate(usb) == ()


def test_a_pulled_release_of_docker_s_is_what_devices_pull(
    remote: RegistryStore, tmp_path: Path
) -> None:
    built = released_project(tmp_path / "built", 2)
    for version in ("1", "2"):
        target = find_image(built, f"fan:{version}").target
        publish(remote, built.layout, target, version)
    there = {version: str(remote.resolve(version).digest) for version in ("1", "2")}
    root = tmp_path / "fan"
    root.mkdir()
    (root / "mlpack.toml").write_text(
        f'[model]\nname = "fan"\n[image]\nrepository = "{remote.place}"\n'
    )
    project = ProjectDirectory(root)
    for version, digest in there.items():
        for _ in range(2):
            said = mlpack("-C", root, "pull", f"{remote.place}:{version}")
            entry = shown(project.layout, f"fan-{version}")
            assert (said["digest"], said["reference"]) == (digest, f"{remote.place}@{digest}")
            assert said["converted"] == {"from": digest, "to": str(entry.digest)}
            assert families(project.layout, entry) == {"oci"}
    rendered = mlpack("-C", root, "render", "fan:2")
    assert rendered["image"] == f"{remote.place}@{there['2']}"
    one = mlpack("-C", root, "render", "fan:2", "--platform", "linux/arm64")
    assert remote.resolve(one["image"].partition("@")[2]).media_type == media.DOCKER_MANIFEST
    here = mlpack("-C", root, "diff", "fan:1", "fan:2")
    afar = mlpack("-C", root, "diff", f"{remote.place}:1", f"{remote.place}:2")
    assert {**here, "old": 0, "new": 0} == {**afar, "old": 0, "new": 0}
    assert [each["digest"] for each in mlpack("-C", root, "releases")["releases"]] == [
        *there.values()
    ]
    pushed = mlpack("-C", root, "push", "fan:2", "--to", f"{str(remote.place)[:-1]}y:2")
    assert pushed["digest"] == there["2"]
    assert validate(project.layout) == ()


@pytest.mark.parametrize("to", ["layout", "registry", "release"])
@pytest.mark.parametrize("docker", [("v1",), ("v2",), ("v1", "v2")])
def test_a_graft_has_one_family(
    docker: tuple[str, ...], to: str, remote: RegistryStore, tmp_path: Path
) -> None:
    """A graft on one platform, and on the other NEW, which costs a device on OLD no more."""
    images = LayoutStore(tmp_path / "images")
    for name in ("v1", "v2"):
        made = [usual(images, name.encode(), AMD64), usual(images, b"same", ARM64)]
        target = put_bytes(images, build_index(made).content, media.INDEX)
        images.tag(as_docker(images, target) if name in docker else target, name)
    out = {
        "layout": f"oci:{tmp_path / 'out'}:g",
        "registry": f"{remote.place}:g",
        "release": "fan:g",
    }[to]
    project = released_project(tmp_path / "fan")
    old, new = (f"oci:{images.root}:{name}" for name in ("v1", "v2"))
    said = mlpack("-C", project.root, "graft", old, new, "-o", out)
    strategies = {str(key): each["strategy"] for key, each in said["platforms"].items()}
    # Only Docker's manifest of NEW is longer than that of a graft.
    same = "graft" if docker == ("v2",) else "new"
    assert strategies == {"linux/amd64": "graft", "linux/arm64": same}
    written: dict[str, Store] = {"layout": LayoutStore(tmp_path / "out"), "registry": remote}
    store = written.get(to, project.layout)
    target = store.resolve("fan-g" if to == "release" else "g")
    assert families(store, target) == {"oci"}
    assert str(target.digest) == said["digest"]
    assert said["converted"] is None


@pytest.mark.parametrize("to", ["layout", "registry", "release"])
def test_new_itself_keeps_its_digest_where_that_can_be(
    to: str, remote: RegistryStore, tmp_path: Path
) -> None:
    images = LayoutStore(tmp_path / "images")
    made = usual(images, b"same", AMD64)
    docker = as_docker(images, made.descriptor)
    for name in ("v1", "v2"):
        images.tag(docker, name)
    out = {
        "layout": f"oci:{tmp_path / 'out'}:g",
        "registry": f"{remote.place}:g",
        "release": "fan:g",
    }[to]
    project = released_project(tmp_path / "fan")
    old, new = (f"oci:{images.root}:{name}" for name in ("v1", "v2"))
    said = mlpack("-C", project.root, "graft", old, new, "-o", out)
    if to == "registry":
        assert (said["digest"], said["converted"]) == (str(docker.digest), None)
        return
    store = LayoutStore(tmp_path / "out") if to == "layout" else project.layout
    entry = shown(store, "g" if to == "layout" else "fan-g")
    assert families(store, entry) == {"oci"}
    assert said["converted"] == {"from": str(docker.digest), "to": str(entry.digest)}
    assert said["digest"] == said["converted"]["to" if to == "layout" else "from"]


@pytest.mark.parametrize("engine", ["containerd", "podman", "moby"])
def test_a_bundle_of_a_docker_image_is_an_oci_layout_or_has_no_manifest(
    engine: str, tmp_path: Path
) -> None:
    images = LayoutStore(tmp_path / "images")
    docker = as_docker(images, usual(images, b"1", AMD64).descriptor)
    images.tag(docker, "v1")
    out = tmp_path / "b.tar"
    said = mlpack(
        "bundle", "make", f"oci:{images.root}:v1", "--onto", "none", "--engine", engine,
        "--name", "localhost/v:1", "-o", out,
    )  # fmt: skip
    if engine == "moby":
        assert (said["image"], said["converted"]) == (str(docker.digest), None)
    else:
        assert said["image"] == str(images.as_oci(docker).root.digest)
        assert said["converted"] == {"from": str(docker.digest), "to": said["image"]}


def test_what_pull_says_is_what_other_commands_take(remote: RegistryStore, tmp_path: Path) -> None:
    images = LayoutStore(tmp_path / "images")
    source = publish(remote, images, usual(images, b"1", AMD64).descriptor, "x")
    (tmp_path / "mlpack.toml").write_text('[model]\nname = "fan"\n')
    pulled = run("-C", str(tmp_path), "pull", source, "--as", "candidate")
    assert pulled.exit_code == 0, pulled.stderr
    assert "for other commands: oci:.mlpack/oci:candidate\n" in pulled.stderr
    found = mlpack("-C", tmp_path, "diff", "none", "oci:.mlpack/oci:candidate")
    assert found["layers"]
