"""What a user may write where an image is asked for."""

from __future__ import annotations

import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from mlpack.errors import MlpackError, UsageError
from mlpack.model.version import ModelVersion
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Digest
from mlpack.oci.image import ImageConfig, build_image, build_index
from mlpack.project.directory import ModelStore, ProjectDirectory
from mlpack.project.references import NoSuchImage, find_image, releases
from mlpack.stores.archive import ArchiveStore
from mlpack.stores.layout import LayoutStore
from mlpack.stores.records import MODEL, VERSION
from mlpack.stores.store import NotAnImage, NotFound, put_bytes, put_image, read_image, verified
from mlpack.stores.tar_files import NotAnArchive
from tests.support import AMD64, ARM64, make_project, real_layer, require


@pytest.fixture
def project(tmp_path: Path) -> ProjectDirectory:
    return make_project(tmp_path / "p")


def add_release(project: ProjectDirectory, name: str, version: str) -> Digest:
    layer = real_layer(project.layout, {"m": f"{name} {version}".encode()})
    made = build_image(ImageConfig(platform=AMD64), [layer])
    target = put_image(project.layout, made)
    target = replace(target, annotations={MODEL: name, VERSION: version})
    project.layout.tag(target, f"{name}-{version}")
    return made.digest


def test_a_model_name_means_its_latest_release(project: ProjectDirectory) -> None:
    digests = {version: add_release(project, "fan", version) for version in ("9", "10", "2")}
    assert find_image(project, "fan").image.digest == digests["10"]
    assert find_image(project, "fan:2").image.digest == digests["2"]
    assert list(releases(project.layout, "fan")) == ["2", "9", "10"]


def test_a_name_that_starts_like_another_is_another(project: ProjectDirectory) -> None:
    add_release(project, "fan-failure", "1")
    assert releases(project.layout, "fan") == {}
    with pytest.raises(NoSuchImage, match="there is no model 'fan'"):
        find_image(project, "fan")


def test_a_release_by_the_digest_build_printed(project: ProjectDirectory) -> None:
    digest = add_release(project, "fan", "1")
    for text in (f"fan@{digest}", f"registry.example.com/edge/fan@{digest}"):
        assert find_image(project, text).image.digest == digest


def test_the_base_of_a_platform(project: ProjectDirectory) -> None:
    assert find_image(project, "base", ARM64).image.platform == ARM64
    found = find_image(project, "base")
    assert found.index is not None
    assert found.image.platform == AMD64


def test_a_layout_by_path(project: ProjectDirectory) -> None:
    digest = add_release(project, "fan", "1")
    root = project.layout.root
    assert find_image(None, f"oci:{root}:fan-1").image.digest == digest
    with pytest.raises(UsageError, match="holds 2 images") as caught:
        find_image(None, f"oci:{root}")
    assert "base, fan-1" in caught.value.hint
    with pytest.raises(NotFound, match="no name 'nothing'"):
        find_image(None, f"oci:{root}:nothing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fan", "there is no model 'fan'"),
        ("fan:3", "there is no model 'fan'"),
        ("fan@champion", "there is no model 'fan'"),
        ("../fan", "names no registry"),
        ("r.example.com/fan:1", "in a registry"),
        ("fan:latest", "there is no model 'fan'"),
        ("none", "none means an empty device"),
        ("oci:", "'oci:' names no path"),
        ("docker-archive::name", "names no path"),
        ("fan@sha256:1", "is not a digest"),
        (f"r.example.com/fan@sha256:{'0' * 64}", "is in a registry"),
        ("oci:/nowhere", "is not an OCI image layout"),
        ("docker-archive:/nowhere.tar", "does not exist"),
        ("Fan", "not a model name"),
    ],
)
def test_references_to_nothing(project: ProjectDirectory, text: str, message: str) -> None:
    with pytest.raises(MlpackError, match=message):
        find_image(project, text)


@pytest.mark.parametrize("text", ["alpine", "alpine:3.20", f"alpine@sha256:{'0' * 64}"])
@pytest.mark.parametrize("in_project", [True, False])
def test_an_image_of_docker_hub_is_named_as_it_works(
    project: ProjectDirectory, in_project: bool, text: str
) -> None:
    with pytest.raises(MlpackError) as caught:
        find_image(project if in_project else None, text)
    assert f"docker.io/library/{text}" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("dir:image", "skopeo copy dir:image oci:DIR:TAG"),
        ("docker-daemon:alpine", "docker save"),
        ("docker-daemon:r.example.com/fan:1", "docker save"),
        ("docker-daemon:sha256:0123", "docker save"),
        ("dir:some/image", "skopeo copy dir:some/image oci:DIR:TAG"),
        ("containers-storage:alpine", "podman save"),
        ("containers-storage:localhost/a:1", "podman save"),
        ("oci://r.example.com/fan:1", "leave out oci://"),
        ("https://r.example.com/fan:1", "leave out https://"),
    ],
)
@pytest.mark.parametrize("in_project", [True, False])
def test_prefixes_of_other_tools_are_told_what_to_do(
    project: ProjectDirectory, in_project: bool, text: str, hint: str
) -> None:
    with pytest.raises(MlpackError) as caught:
        find_image(project if in_project else None, text)
    assert hint in caught.value.hint


def test_a_model_may_have_the_name_of_another_tools_prefix(project: ProjectDirectory) -> None:
    model = ModelVersion(name="dir", version="1", framework="onnx", files=())
    ModelStore(project.layout).describe(model)
    digest = add_release(project, "dir", "1")
    assert find_image(project, "dir:1").image.digest == digest


def test_what_is_in_a_registry_needs_no_project_to_be_told() -> None:
    with pytest.raises(UsageError, match="is in a registry"):
        find_image(None, f"r.example.com/fan@sha256:{'0' * 64}")


def test_a_layout_by_whole_name_or_by_digest(tmp_path: Path) -> None:
    layout = LayoutStore(tmp_path / "a:b")
    made = {}
    for platform in (AMD64, ARM64):
        layer = real_layer(layout, {"m": str(platform).encode()})
        made[platform] = build_image(ImageConfig(platform=platform), [layer])
        put_image(layout, made[platform])
    index = build_index(list(made.values()))
    target = put_bytes(layout, index.content, media.INDEX)
    layout.tag(target, "docker.io/library/fan:latest")
    for text in (":docker.io/library/fan:latest", f"@{index.digest}", f":x@{index.digest}", ""):
        found = find_image(None, f"oci:a:b{text}", ARM64, directory=tmp_path)
        assert (found.target, found.image) == (target, made[ARM64])
    arm64 = find_image(None, f"oci:a:b@{made[ARM64].digest}", directory=tmp_path)
    assert (arm64.image, arm64.index) == (made[ARM64], None)
    for text, message in (
        (f"@sha256:{'0' * 64}", "lists no image sha256:000"),
        ("@sha256:0", "'sha256:0' is not a digest"),
        (":docker.io/library/fan", "has no name 'docker.io/library/fan'"),
        (":docker.io/library/fan:2", "has no name 'docker.io/library/fan:2'"),
    ):
        with pytest.raises(MlpackError, match=message):
            find_image(None, f"oci:a:b{text}", directory=tmp_path)


def test_what_a_layout_offers_can_be_written_as_it_is_told(tmp_path: Path) -> None:
    layout = LayoutStore(tmp_path / "oci")
    for name in ("fan", "a", "b"):
        made = build_image(ImageConfig(platform=AMD64), [real_layer(layout, {"m": name.encode()})])
        layout.tag(put_image(layout, made), name)
    path = layout.root / "index.json"
    path.write_text(path.read_text().replace('"a"', '"same"').replace('"b"', '"same"'))
    with pytest.raises(UsageError, match="holds 3 images") as caught:
        find_image(None, "oci:oci", directory=tmp_path)
    offered = caught.value.hint.partition("one of: ")[2].split(", ")
    assert len(offered) == 3
    for each in offered:
        text = each if each.startswith("@") else f":{each}"
        assert find_image(None, f"oci:oci{text}", directory=tmp_path).image.platform == AMD64


def test_a_model_version_is_no_image(project: ProjectDirectory) -> None:
    ModelStore(project.layout).describe(
        ModelVersion(name="fan", version="1", framework="onnx", files=())
    )
    with pytest.raises(NotAnImage, match="is not an image"):
        find_image(None, f"oci:{project.layout.root}:model/fan/1")
    add_release(project, "fan", "1")
    with pytest.raises(UsageError, match="holds 2 images") as caught:
        find_image(None, f"oci:{project.layout.root}")
    assert caught.value.hint == "add :TAG, one of: base, fan-1"


@pytest.fixture
def saved(project: ProjectDirectory, tmp_path: Path) -> Path:
    """The base as ``docker save`` writes it, by skopeo."""
    require(Path("/usr/bin/skopeo"))
    path = tmp_path / "saved.tar"
    subprocess.run(
        [
            *("skopeo", "copy", "--override-arch", "amd64", "--override-os", "linux"),
            f"oci:{project.layout.root}:base",
            f"docker-archive:{path}:edge/base:1",
        ],
        check=True,
        capture_output=True,
    )
    return path


def test_a_docker_archive(project: ProjectDirectory, saved: Path) -> None:
    found = find_image(None, f"docker-archive:{saved}")
    expected = find_image(project, "base", AMD64).image
    assert found.image.diff_ids == expected.diff_ids
    assert all(layer.digest == layer.diff_id for layer in found.image.layers), "plain tars"
    for layer in found.image.layers:
        with found.store.open(layer.descriptor) as content:
            assert sum(map(len, verified(content, layer.descriptor))) == layer.size
    assert ArchiveStore(saved).exists(found.target)
    named = find_image(None, f"docker-archive:{saved}:docker.io/edge/base:1")
    assert named.image.digest == found.image.digest
    relative = find_image(None, f"docker-archive:{saved.name}", directory=saved.parent)
    assert relative.image.digest == found.image.digest


def test_an_oci_archive(project: ProjectDirectory, tmp_path: Path) -> None:
    require(Path("/usr/bin/skopeo"))
    source, path = f"oci:{project.layout.root}:base", tmp_path / "saved.tar"
    command = ["skopeo", "copy", "--all", source, f"oci-archive:{path}:edge/base:1"]
    subprocess.run(command, check=True, capture_output=True)
    expected = find_image(project, "base", ARM64)
    for text in (f"oci-archive:{path}", f"oci-archive:{path}:edge/base:1"):
        found = find_image(None, text, ARM64)
        assert found.target.digest == expected.target.digest
        assert found.image == expected.image
        assert found.location == (path,)
    assert find_image(None, f"docker-archive:{path}").target.digest == expected.target.digest


def test_files_that_are_no_docker_archive(tmp_path: Path) -> None:
    text = tmp_path / "text.tar"
    text.write_text("not a tar")
    empty = tmp_path / "empty.tar"
    tarfile.open(empty, "w").close()
    for path in (text, empty, tmp_path):
        with pytest.raises(NotAnArchive):
            ArchiveStore(path)


def test_images_are_read_whole_from_any_store(project: ProjectDirectory) -> None:
    layout = LayoutStore.existing(project.layout.root)
    for entry in (find_image(project, "base", p) for p in (AMD64, ARM64)):
        assert read_image(layout, entry.image.descriptor) == entry.image
