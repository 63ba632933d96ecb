"""Tars of images as Docker, containerd, other builders and people with ``tar`` make them."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import random
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import zstandard

from mlpack.errors import MlpackError, UsageError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest, canonical
from mlpack.oci.image import Image
from mlpack.stores.archive import ArchiveStore, split
from mlpack.stores.copy import copy
from mlpack.stores.store import Corrupt, NotFound, read_image, read_index, verify
from mlpack.stores.tar_files import NotAnArchive
from mlpack.stores.trees import LayerLimits, LayerTooLarge, read_tree
from tests.doubles.memory_store import MemoryStore

Members = Mapping[str, bytes | tarfile.TarInfo]


def tar(members: Members | tuple[tuple[str, bytes | tarfile.TarInfo], ...]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                archive.addfile(content)
            else:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def link(target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    found = tarfile.TarInfo()
    found.type, found.linkname = kind, target
    return found


BIG = random.Random(3).randbytes(50_000)
LAYERS = (tar({"bin/sh": b"sh", "big": BIG}), tar({"app": b"1"}))
TREE = {"bin", "bin/sh", "big", "app"}


def config_of(*layers: bytes, **more: object) -> bytes:
    ids = [str(Digest.of(each)) for each in layers]
    platform = {"os": "linux", "architecture": "amd64"}
    return json.dumps({**platform, "rootfs": {"type": "layers", "diff_ids": ids}, **more}).encode()


def listed(*images: tuple[str, list[str], list[str] | None]) -> bytes:
    names = ("Config", "Layers", "RepoTags")
    return json.dumps([dict(zip(names, each, strict=True)) for each in images]).encode()


CONFIG = config_of(*LAYERS)
ONE = listed(("c.json", ["a/layer.tar", "b/layer.tar"], ["ex/app:1"]))
SAVED: Members = {
    "c.json": CONFIG,
    "a/layer.tar": LAYERS[0],
    "b/layer.tar": LAYERS[1],
    "manifest.json": ONE,
}


def packed(first: Callable[[bytes], bytes], second: Callable[[bytes], bytes]) -> Members:
    return {**SAVED, "a/layer.tar": first(LAYERS[0]), "b/layer.tar": second(LAYERS[1])}


def skippable(content: bytes) -> bytes:
    return b"\x50\x2a\x4d\x18\4\0\0\0head" + zstandard.compress(content)


def folder() -> tarfile.TarInfo:
    found = tarfile.TarInfo()
    found.type = tarfile.DIRTYPE
    return found


READ: dict[str, bytes] = {
    "docker save": tar(SAVED),
    "made again with ./": tar({"./": folder(), **{f"./{key}": SAVED[key] for key in SAVED}}),
    "absolute names": tar({f"/{key}": SAVED[key] for key in SAVED}),
    "./ in the list": tar(
        {**SAVED, "manifest.json": listed(("./c.json", ["./a/layer.tar", "./b/layer.tar"], None))}
    ),
    "a layer is a symlink": tar({**SAVED, "b/layer.tar": link("../x.tar"), "x.tar": LAYERS[1]}),
    "a layer is a hardlink": tar(
        {"x.tar": LAYERS[1], **SAVED, "b/layer.tar": link("x.tar", tarfile.LNKTYPE)}
    ),
    "a link to a link": tar(
        {**SAVED, "b/layer.tar": link("../y"), "y": link("./x.tar"), "x.tar": LAYERS[1]}
    ),
    "the list is added twice": tar(
        (("manifest.json", listed(("c.json", ["a/layer.tar"], None))), *SAVED.items())
    ),
    "no names": tar(
        {**SAVED, "manifest.json": listed(("c.json", ["a/layer.tar", "b/layer.tar"], None))}
    ),
    "gzip layers": tar(packed(gzip.compress, gzip.compress)),
    "zstd layers": tar(packed(zstandard.compress, skippable)),
    "xz and bzip2 layers": tar(packed(lzma.compress, bz2.compress)),
    "gzip": gzip.compress(tar(SAVED)),
    "zstd": skippable(tar(SAVED)),
    "xz": lzma.compress(tar(SAVED)),
    "bzip2": bz2.compress(tar(SAVED)),
    "xz in gzip": gzip.compress(tar(packed(lzma.compress, lzma.compress))),
    "gnu format": tar(SAVED),
}


@pytest.mark.parametrize("case", READ)
def test_images_are_read_whoever_made_the_tar(case: str, tmp_path: Path) -> None:
    path = tmp_path / "saved.tar"
    path.write_bytes(READ[case])
    archive = ArchiveStore(path)
    target = archive.resolve("")
    image = read_image(archive, target)
    assert image.config == CONFIG
    assert set(read_tree(archive, image.layers).tree) == TREE
    copied = MemoryStore()
    copy(archive, copied, target)
    assert set(read_tree(copied, read_image(copied, target).layers).tree) == TREE
    kinds = {each.descriptor.media_type for each in image.layers}
    assert kinds <= {media.LAYER_TAR, media.LAYER_GZIP, media.LAYER_ZSTD}
    for each in image.layers:
        assert (each.descriptor.media_type == media.LAYER_TAR) == (each.digest == each.diff_id)
        with archive.open(each.descriptor) as content:
            start = content.read(100)
            assert content.seekable()
            content.seek(0)
            assert content.read(100) == start, "an upload that failed begins again"


def test_layers_without_a_byte_and_layers_twice(tmp_path: Path) -> None:
    layers = (LAYERS[0], b"", LAYERS[1], b"", LAYERS[1])
    names = ["a/layer.tar", "none", "b/layer.tar", "none", "b/layer.tar"]
    path = tmp_path / "saved.tar"
    members = {**SAVED, "c.json": config_of(*layers), "none": b""}
    path.write_bytes(tar({**members, "manifest.json": listed(("c.json", names, None))}))
    archive = ArchiveStore(path)
    copied = MemoryStore()
    copy(archive, copied, archive.resolve(""))
    image = read_image(copied, archive.resolve(""))
    assert [each.size for each in image.layers][1::2] == [0, 0]
    assert set(read_tree(copied, image.layers).tree) == TREE


def layout(*manifests: bytes, layers: tuple[bytes, ...] = LAYERS, held: int = 1) -> Members:
    """A tar that is a layout and a ``docker save`` in one, as Docker 25 and ctr write it.

    Of several manifests an index is made, of which only ``held`` are in the archive.
    """
    kept = {Digest.of(each): each for each in (CONFIG, *layers, *manifests[:held])}
    entry = Descriptor.of(manifests[0], media.MANIFEST)
    if len(manifests) > 1:
        listed_ = [Descriptor.of(each, media.MANIFEST).to_json() for each in manifests]
        for each in listed_:
            each["platform"] = {"os": "linux", "architecture": "amd64"}
        index = canonical({"schemaVersion": 2, "mediaType": media.INDEX, "manifests": listed_})
        kept[Digest.of(index)] = index
        entry = Descriptor.of(index, media.INDEX)
    notes = {
        "io.containerd.image.name": "docker.io/ex/app:1",
        "org.opencontainers.image.ref.name": "1",
    }
    named = {**entry.to_json(), "annotations": notes}
    blobs = {f"blobs/sha256/{digest.hex}": content for digest, content in kept.items()}
    at = [f"blobs/sha256/{Digest.of(each).hex}" for each in (CONFIG, *layers)]
    return {
        **blobs,
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [named]}).encode(),
        "manifest.json": listed((at[0], at[1:], ["ex/app:1"])),
    }


def manifest_of(*layers: bytes, kind: str = media.LAYER_TAR, note: str = "") -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media.MANIFEST,
            "config": Descriptor.of(CONFIG, media.CONFIG).to_json(),
            "layers": [Descriptor.of(each, kind).to_json() for each in layers],
            "annotations": {"note": note},
        },
        indent=1,
    ).encode()


PLAIN = manifest_of(*LAYERS)
ZIPPED = tuple(gzip.compress(each, mtime=0) for each in LAYERS)


@pytest.mark.parametrize("listing", [True, False], ids=["both", "layout"])
@pytest.mark.parametrize("whole", ["tar", "gzip"])
def test_a_layout_keeps_its_manifest_and_digest(listing: bool, whole: str, tmp_path: Path) -> None:
    zipped = manifest_of(*ZIPPED, kind=media.LAYER_GZIP)
    for manifest, layers in ((PLAIN, LAYERS), (zipped, ZIPPED)):
        members = dict(layout(manifest, layers=layers))
        if not listing:
            del members["manifest.json"]
        path = tmp_path / "saved.tar"
        path.write_bytes(gzip.compress(tar(members)) if whole == "gzip" else tar(members))
        archive = ArchiveStore(path)
        for name in ("", "docker.io/ex/app:1", "1", "@0", *(["ex/app:1"] if listing else [])):
            assert archive.resolve(name).digest == Digest.of(manifest)
        target = archive.resolve("")
        assert read_image(archive, target).manifest == manifest
        copied = MemoryStore()
        copy(archive, copied, target)
        verify(copied, target)


def test_of_an_index_that_names_more_the_image_that_is_there_is_taken(tmp_path: Path) -> None:
    other = manifest_of(*LAYERS, note="another platform")
    path = tmp_path / "saved.tar"
    path.write_bytes(tar(layout(PLAIN, other, held=1)))
    assert ArchiveStore(path).resolve("").digest == Digest.of(PLAIN)
    path.write_bytes(tar(layout(PLAIN, other, held=2)))
    archive = ArchiveStore(path)
    found = read_index(archive, archive.resolve("ex/app:1"))
    assert [each.digest for each in found.manifests] == [Digest.of(PLAIN), Digest.of(other)]


def several(tags: list[list[str] | None]) -> bytes:
    configs = [config_of(*LAYERS, author=str(number)) for number in range(len(tags))]
    images = [(f"{n}.json", ["a/layer.tar", "b/layer.tar"], each) for n, each in enumerate(tags)]
    named = {f"{n}.json": each for n, each in enumerate(configs)}
    return tar({**SAVED, **named, "manifest.json": listed(*images)})


def test_one_of_several_images_is_named(tmp_path: Path) -> None:
    path = tmp_path / "saved.tar"
    path.write_bytes(several([["alpine:latest", "alpine:3"], ["r.example.com/a:1"], None]))
    archive = ArchiveStore(path)
    ends = [str(Digest.of(config_of(*LAYERS, author=str(number)))) for number in range(3)]
    for name, number in (
        ("alpine", 0),
        ("alpine:3", 0),
        ("docker.io/library/alpine:3", 0),
        ("@0", 0),
        ("r.example.com/a:1", 1),
        ("@1", 1),
        ("@2", 2),
        (str(archive.images[2].target.digest), 2),
    ):
        found = read_image(archive, archive.resolve(name))
        assert str(found.config_descriptor.digest) == ends[number], name
    assert list(archive.tags()) == ["alpine:latest", "alpine:3", "r.example.com/a:1", "@2"]
    with pytest.raises(UsageError, match="holds 3 images") as caught:
        archive.resolve("")
    assert caught.value.hint == "add :NAME, one of: alpine:latest, r.example.com/a:1, @2"
    for name in ("alpine:4", "r.example.com/a", "@3", "@-1", "@x", "@²", "@" + "9" * 5000):
        with pytest.raises(NotFound, match="has no image") as missing:
            archive.resolve(name)
        assert "alpine:latest, r.example.com/a:1, @2" in missing.value.hint


def test_a_name_of_several_images_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "saved.tar"
    path.write_bytes(several([["a:1"], ["a:1"]]))
    with pytest.raises(UsageError, match="2 images called 'a:1'"):
        ArchiveStore(path).resolve("a:1")


def test_a_path_and_a_name_may_have_colons(tmp_path: Path) -> None:
    (tmp_path / "a:b.tar").touch()
    assert split("a:b.tar", tmp_path) == (tmp_path / "a:b.tar", "")
    assert split("a:b.tar:r:5000/x:1", tmp_path) == (tmp_path / "a:b.tar", "r:5000/x:1")
    assert split("none.tar:x:1", tmp_path) == (tmp_path / "none.tar", "x:1")


def cut(compress: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Return ``compress`` without the end of what it makes."""
    return lambda content: compress(content)[:-9]


WRONG: dict[str, tuple[bytes, type[MlpackError], str]] = {
    "no tar": (b"hello" * 500, NotAnArchive, "is not a tar"),
    "nothing": (b"", NotAnArchive, "is not a tar"),
    "an empty tar": (tar({}), NotAnArchive, "contains no image"),
    "another tar": (tar({"etc/passwd": b"x"}), NotAnArchive, "contains no image"),
    "no image listed": (tar({"manifest.json": b"[]"}), NotAnArchive, "contains no image"),
    "cut off": (tar(SAVED)[:30_000], NotAnArchive, "is not a tar"),
    "half a gzip": (gzip.compress(tar(SAVED))[:20_000], NotAnArchive, "is not a tar"),
    "no JSON": (tar({"manifest.json": b"x"}), NotAnArchive, "manifest.json is not JSON"),
    "another JSON": (tar({"manifest.json": b"{}"}), NotAnArchive, "is not an array"),
    "a large list": (tar({"manifest.json": bytes(5_000_000)}), NotAnArchive, "larger than"),
    "no layers": (
        tar({"manifest.json": b'[{"Config": "c"}]', "c": CONFIG}),
        NotAnArchive,
        "'Layers' is missing",
    ),
    "no config": (tar({**SAVED, "c.json": folder()}), NotAnArchive, "no file 'c.json'"),
    "a config of something else": (tar({**SAVED, "c.json": b"{}"}), NotAnArchive, "rootfs"),
    "a layer less": (
        tar({**SAVED, "manifest.json": listed(("c.json", ["a/layer.tar"], None))}),
        NotAnArchive,
        "lists 1 layers, the config 2",
    ),
    "a lost layer": (
        tar({key: SAVED[key] for key in SAVED if key[0] != "b"}),
        NotAnArchive,
        "no file 'b/layer.tar'",
    ),
    "another layer": (tar({**SAVED, "b/layer.tar": LAYERS[0]}), Corrupt, "is not the layer"),
    "a damaged layer": (
        tar(packed(lambda content: lzma.compress(content)[:-50], gzip.compress)),
        Corrupt,
        "is damaged",
    ),
    "a gzip layer that is cut off": (
        tar(packed(cut(gzip.compress), gzip.compress)),
        Corrupt,
        "is damaged",
    ),
    "a zstd layer that is cut off": (
        tar(packed(cut(zstandard.compress), gzip.compress)),
        Corrupt,
        "is not the layer",
    ),
    "more after a gzip layer": (
        tar(packed(lambda content: gzip.compress(content) + b"more", gzip.compress)),
        Corrupt,
        "is damaged",
    ),
    "another layer with gzip": (
        tar({**SAVED, "b/layer.tar": gzip.compress(LAYERS[0])}),
        Corrupt,
        "is not the layer",
    ),
    "a link out of the tar": (
        tar({**SAVED, "b/layer.tar": link("../../x")}),
        NotAnArchive,
        "no file 'b/layer.tar'",
    ),
    "a link to itself": (
        tar({**SAVED, "b/layer.tar": link("layer.tar")}),
        NotAnArchive,
        "no file 'b/layer.tar'",
    ),
    "a list of something else": (tar({"index.json": b"[]"}), NotAnArchive, "is not an object"),
}


@pytest.mark.parametrize("case", WRONG)
def test_other_files_are_refused(case: str, tmp_path: Path) -> None:
    content, error, said = WRONG[case]
    path = tmp_path / "saved.tar"
    path.write_bytes(content)
    with pytest.raises(error, match=said) as caught:
        ArchiveStore(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, bz2.compress])
def test_what_unpacks_to_too_much_is_given_up(
    compress: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    limits = LayerLimits(trusted=1_000_000)
    path = tmp_path / "saved.tar"
    path.write_bytes(compress(tar({**SAVED, "zeros": bytes(30_000_000)})))
    with pytest.raises(LayerTooLarge, match="unpacks to more than"):
        ArchiveStore(path, LayerLimits(trusted=1_000_000, ratio=20))
    path.write_bytes(tar({**SAVED, "a/layer.tar": lzma.compress(bytes(30_000_000))}))
    with pytest.raises(LayerTooLarge, match="unpacks to more than"):
        ArchiveStore(path, limits)


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "saved.tar"
    path.write_bytes(tar(SAVED))
    with pytest.raises(LayerTooLarge, match="more than 3 files"):
        ArchiveStore(path, LayerLimits(members=3))


def test_a_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    head = bytearray(tar({"x": b"1"})[:512])
    head[156:157] = b"x"
    head[124:136] = b"%011o\0" % (2**32)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    path = tmp_path / "saved.tar"
    path.write_bytes(bytes(head) + bytes(10_000))
    with pytest.raises(NotAnArchive, match="header of"):
        ArchiveStore(path)


def test_the_made_manifest_does_not_change(tmp_path: Path) -> None:
    path = tmp_path / "saved.tar"
    path.write_bytes(tar(SAVED))
    archive = ArchiveStore(path)
    made = read_image(archive, archive.resolve(""))
    assert isinstance(made, Image)
    layers = [Descriptor.of(each, media.LAYER_TAR).to_json() for each in LAYERS]
    config = Descriptor.of(CONFIG, media.CONFIG).to_json()
    whole = {"schemaVersion": 2, "mediaType": media.MANIFEST, "config": config, "layers": layers}
    assert made.manifest == canonical(whole)
    assert hashlib.sha256(made.manifest).hexdigest() == archive.resolve("").digest.hex
