"""Images as sources: finding the Python in them, and taking their layers over."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from pathlib import Path

import pytest

from mlpack.base.source import (
    Inspection,
    NoPython,
    UnreadableSource,
    check_taken,
    copy_layers,
    inspect,
    open_source,
)
from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest
from mlpack.oci.image import Image, ImageConfig, Layer, build_image
from mlpack.plan.engines import engine
from mlpack.plan.refusals import NotTaken
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import put_bytes, put_image, verified
from mlpack.stores.trees import LayerTooLarge
from tests.base.doubles import GLIBC, source_image, system
from tests.doubles.memory_store import MemoryStore
from tests.support import AMD64, ARM64

LIBC = "usr/lib/x86_64-linux-gnu/libc.so.6"


def look(store: MemoryStore, image: Image) -> Inspection:
    """Look into an image that lies in ``store``."""
    return inspect(store, image.layers, image.env, "oci:x")


def test_the_first_python_on_the_path_is_taken() -> None:
    store = MemoryStore()
    files = {"usr/bin/python3.11": b"", "opt/conda/bin/python3.12": b"", LIBC: GLIBC}
    env = ("PATH=/opt/conda/bin:/usr/bin",)
    found = look(store, source_image(store, [files], env=env)).interpreter
    assert (found.path, found.version, found.glibc) == ("opt/conda/bin/python3.12", (3, 12), 36)
    other = look(store, source_image(store, [files], env=())).interpreter
    assert other.path == "usr/bin/python3.11"


def test_of_two_in_one_place_the_newer_is_taken() -> None:
    store = MemoryStore()
    files = {"usr/bin/python3.9": b"", "usr/bin/python3.11": b"", LIBC: GLIBC}
    found = look(store, source_image(store, [files]))
    assert found.interpreter.version == (3, 11)
    assert "libc.so.6" in found.libraries


@pytest.mark.parametrize(
    "whiteout",
    ["usr/local/bin/.wh.python3.11", "usr/local/bin/.wh..wh..opq", "usr/local/.wh.bin"],
)
def test_a_python_that_a_later_layer_removes_is_not_there(whiteout: str) -> None:
    store = MemoryStore()
    image = source_image(store, [system()])
    below, above = image.layers[0], tar_layer(store, {whiteout: b""})
    removed = build_image(ImageConfig(platform=AMD64), [below, above])
    with pytest.raises(NoPython, match="oci:x has no Python"):
        look(store, removed)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"etc/passwd": b""}, "has no C library"),
        ({LIBC: GLIBC}, "has no Python"),
        (system(python="usr/bin/python3.9"), r"has Python 3\.9 \(/usr/bin/python3\.9\)"),
        (system(libc=b"no banner"), "has no C library"),
    ],
)
def test_images_without_a_usable_python_are_refused(files: dict[str, bytes], message: str) -> None:
    store = MemoryStore()
    with pytest.raises(NoPython, match=message) as refused:
        look(store, source_image(store, [files]))
    assert "debian:bookworm" in refused.value.hint


@pytest.mark.parametrize("kind", [media.LAYER_ZSTD, media.LAYER_GZIP])
def test_a_layer_that_devices_cannot_unpack_is_refused(kind: str) -> None:
    store = MemoryStore()
    blob = put_bytes(store, b"\x28\xb5\x2f\xfd", kind)
    layers = [Layer(blob, Digest.of(b"x"))]
    with pytest.raises(NotTaken, match=r"^oci:x: Docker 20.10.24 refuses .* is zstd") as refused:
        check_taken(engine("moby"), store, layers, "oci:x")
    assert "gzip" in refused.value.hint
    check_taken(engine("containerd"), store, layers, "oci:x")


def test_a_damaged_layer_is_refused() -> None:
    store = MemoryStore()
    blob = put_bytes(store, gzip.compress(b"not a tar" * 100), media.LAYER_GZIP)
    image = build_image(ImageConfig(platform=AMD64), [Layer(blob, Digest.of(b"x"))])
    with pytest.raises(UnreadableSource, match="not a readable tar"):
        look(store, image)


def test_a_bomb_is_given_up_before_it_is_unpacked() -> None:
    """1.2 GB of zeros in 1.2 MB: more than a layer of that size can be."""
    packer = zlib.compressobj(9, wbits=31)
    zeros, info = bytes(2**20), tarfile.TarInfo("zeros")
    info.size = 1200 * len(zeros)
    blob = packer.compress(info.tobuf()) + packer.flush(zlib.Z_FULL_FLUSH)
    # What lies between two full flushes can be repeated.
    blob += 1200 * (packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)) + packer.flush()
    store = MemoryStore()
    target = put_bytes(store, blob, media.LAYER_GZIP)
    image = build_image(ImageConfig(platform=AMD64), [Layer(target, Digest.of(b"x"))])
    with pytest.raises(LayerTooLarge, match="unpacks to more than"):
        look(store, image)


def test_layers_of_a_layout_keep_their_digests(tmp_path: Path) -> None:
    store = LayoutStore(tmp_path / "source")
    image = source_image(store, [system(), {"a": b"b"}])
    store.tag(image.descriptor, "python")
    target = LayoutStore(tmp_path / "target")
    source = open_source("oci:source:python", tmp_path, AMD64)
    assert copy_layers(source, target) == image.layers
    for layer in image.layers:
        with target.open(layer.descriptor) as content:
            assert b"".join(verified(content, layer.descriptor))


def test_a_layer_under_dockers_name_keeps_its_digest() -> None:
    store = MemoryStore()
    made = tar_layer(store, {"usr/bin/python3.11": b"", LIBC: GLIBC}, media.DOCKER_LAYER_GZIP)
    image = build_image(ImageConfig(platform=AMD64), [made])
    put_image(store, image)
    from mlpack.base.source import SourceImage

    [copied] = copy_layers(SourceImage("oci:x", store, image, False), MemoryStore())
    assert copied.digest == made.digest
    assert copied.descriptor.media_type == media.LAYER_GZIP


def test_plain_layers_of_docker_save_are_compressed(tmp_path: Path) -> None:
    path = docker_save(tmp_path / "image.tar", [dict(system()), {"big": b"a" * 1_000_000}])
    source = open_source(f"docker-archive:{path.name}", tmp_path, AMD64)
    target = MemoryStore()
    layers = copy_layers(source, target)
    found = inspect(target, layers, source.image.env, source.text)
    assert found.interpreter.path == "usr/local/bin/python3.11"
    assert [each.diff_id for each in layers] == list(source.image.diff_ids)
    assert {each.descriptor.media_type for each in layers} == {media.LAYER_GZIP}
    assert layers[1].size < 10_000
    with target.open(layers[1].descriptor) as content:
        assert Digest.of(gzip.decompress(content.read())) == layers[1].diff_id
    assert copy_layers(source, MemoryStore()) == layers


@pytest.mark.parametrize("text", ["fedora", "oci:", "ubuntu:22.04"])
def test_other_sources_are_refused_with_what_to_write(text: str, tmp_path: Path) -> None:
    with pytest.raises(MlpackError) as refused:
        open_source(text, tmp_path, AMD64)
    assert "debian:bookworm" in refused.value.hint


def test_an_image_for_another_platform_is_refused(tmp_path: Path) -> None:
    path = docker_save(tmp_path / "image.tar", [dict(system())])
    with pytest.raises(MlpackError, match=r"is an image for linux/amd64.*linux/arm64"):
        open_source(f"docker-archive:{path}", tmp_path, ARM64)


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def tar_layer(
    store: MemoryStore, files: dict[str, bytes], media_type: str = media.LAYER_GZIP
) -> Layer:
    plain = tar(files)
    blob = gzip.compress(plain, mtime=0)
    target = Descriptor.of(blob, media_type)
    store.put(target, io.BytesIO(blob))
    return Layer(target, Digest.of(plain))


def docker_save(path: Path, layers: list[dict[str, bytes]]) -> Path:
    """What ``docker save`` of Docker 20.10 writes."""
    tars = [tar(files) for files in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(each)) for each in tars]},
    }
    names = [f"{number}/layer.tar" for number in range(len(tars))]
    manifest = [{"Config": "config.json", "RepoTags": ["python:1"], "Layers": names}]
    members = {
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(manifest).encode(),
        **dict(zip(names, tars, strict=True)),
    }
    path.write_bytes(tar(members))
    return path
