"""Images of indexes of other tools: nested, sparse, without platforms, with attestations."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, InvalidContent, Platform, canonical
from mlpack.oci.image import Image, ImageConfig, NoSuchPlatform, build_image
from mlpack.stores.layout import LayoutStore
from mlpack.stores.store import (
    MAX_NESTED,
    NotFound,
    NotHere,
    documents,
    images,
    manifests,
    put_bytes,
    put_image,
    select_image,
    walk,
)
from tests.support import AMD64, ARM64, real_layer

ARM, V5, V7 = (Platform("linux", "arm", variant) for variant in ("", "v5", "v7"))
WINDOWS = Platform("windows", "amd64", "", "10.0.17763.1")


@pytest.fixture
def layout(tmp_path: Path) -> LayoutStore:
    return LayoutStore(tmp_path / "oci")


class Listed(NamedTuple):
    """An image as an index lists it."""

    image: Image
    entry: dict[str, object]


def listed(
    layout: LayoutStore,
    text: str,
    platform: Platform | None,
    built_for: Platform = AMD64,
    **more: object,
) -> Listed:
    """An image that holds ``text``; its config says ``built_for``, its entry ``platform``."""
    made = build_image(ImageConfig(platform=built_for), [real_layer(layout, {"a": text.encode()})])
    put_image(layout, made)
    entry = made.descriptor.to_json() | {"platform": platform and platform.to_json()} | more
    return Listed(made, {key: value for key, value in entry.items() if value is not None})


def index(layout: LayoutStore, *entries: dict[str, object]) -> Descriptor:
    document = {"schemaVersion": 2, "mediaType": media.INDEX, "manifests": list(entries)}
    return put_bytes(layout, canonical(document), media.INDEX)


def without(layout: LayoutStore, image: Image) -> None:
    """Take an image's documents away, as sparse mirrors and ``docker save --platform`` do."""
    for each in (image.descriptor, image.config_descriptor):
        layout.path(each).unlink()


def test_the_entry_s_platform_counts_before_the_config_s(layout: LayoutStore) -> None:
    v5, v7 = (listed(layout, str(each), each, ARM) for each in (V5, V7))
    root = index(layout, v5.entry, v7.entry)
    assert [each.platform for each in images(layout, root)] == [V5, V7]
    for platform, expected in ((V5, v5), (V7, v7), (ARM, v7), (Platform("linux", "arm", "v6"), v5)):
        found = select_image(layout, root, platform)
        assert (found, found.built_for) == (expected.image, ARM)
    with pytest.raises(NoSuchPlatform, match=r"linux/arm64 .*has: linux/arm/v5, linux/arm/v7"):
        select_image(layout, root, ARM64)


def test_of_an_entry_without_a_platform_the_config_tells_it(layout: LayoutStore) -> None:
    one, two = (listed(layout, str(each), None, each) for each in (AMD64, ARM64))
    root = index(layout, one.entry, two.entry)
    assert select_image(layout, root, ARM64) == two.image
    assert [each.platform for each in images(layout, root)] == [AMD64, ARM64]
    with pytest.raises(NoSuchPlatform, match=r"has: linux/amd64, linux/arm64"):
        select_image(layout, root, V7)


def test_indexes_in_indexes_are_walked_each_once(layout: LayoutStore) -> None:
    one, two = (listed(layout, str(each), each, each) for each in (AMD64, ARM64))
    inner = index(layout, two.entry).to_json()
    root = index(layout, one.entry, inner, inner)
    assert [each.digest for each in manifests(layout, root)] == [one.image.digest, two.image.digest]
    assert select_image(layout, root, ARM64) == two.image
    assert select_image(layout, root, None) == one.image
    assert {each.digest for each in documents(layout, root)} >= {root.digest, two.image.digest}
    for depth in range(MAX_NESTED + 1):
        root = index(layout, root.to_json() | {"annotations": {"depth": str(depth)}})
    for read in (lambda: manifests(layout, root), lambda: list(walk(layout, root))):
        with pytest.raises(InvalidContent, match="nested"):
            read()


def test_what_is_not_here_is_left_out_or_named(layout: LayoutStore) -> None:
    one, two = (listed(layout, str(each), each, each) for each in (AMD64, ARM64))
    absent = Descriptor.of(b"not here", media.INDEX).to_json()
    root = index(layout, one.entry, absent, two.entry)
    without(layout, one.image)
    assert images(layout, root) == (two.image,)
    assert select_image(layout, root, None) == two.image
    with pytest.raises(NotHere, match="the image for linux/amd64 that index") as caught:
        select_image(layout, root, AMD64)
    assert caught.value.hint == "name one that is, with --platform: linux/arm64"
    with pytest.raises(NotHere, match="lists an image for linux/amd64, but") as caught:
        list(walk(layout, root))
    assert "@sha256" in caught.value.hint
    without(layout, two.image)
    for read in (lambda: images(layout, root), lambda: select_image(layout, root, None)):
        with pytest.raises(NotHere, match="none of the images"):
            read()
    layout.path(root).unlink()
    with pytest.raises(NotFound, match="does not hold"):
        images(layout, root)


@pytest.mark.parametrize(
    "more",
    [
        {"platform": {"os": "unknown", "architecture": "unknown"}},
        {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}},
        {"artifactType": "application/vnd.example.sbom"},
        {"mediaType": "application/vnd.in-toto+json"},
    ],
    ids=["platform", "annotation", "artifact", "type"],
)
def test_what_is_no_image_is_left_out(layout: LayoutStore, more: dict[str, object]) -> None:
    image, other = (listed(layout, text, None) for text in ("image", "other"))
    root = index(layout, other.entry | more, image.entry)
    assert images(layout, root) == (image.image,)
    assert select_image(layout, root, AMD64) == image.image


def test_an_artifact_that_only_its_manifest_tells_is_left_out(layout: LayoutStore) -> None:
    image = listed(layout, "image", None)
    empty = put_bytes(layout, b"{}", media.EMPTY).to_json()
    document = {"schemaVersion": 2, "mediaType": media.MANIFEST, "config": empty, "layers": [empty]}
    artifact = put_bytes(layout, canonical(document), media.MANIFEST)
    root = index(layout, artifact.to_json(), image.entry)
    assert images(layout, root) == (image.image,)
    assert select_image(layout, root, None) == image.image
    assert select_image(layout, root, AMD64) == image.image


def test_by_default_an_image_for_windows_comes_last(layout: LayoutStore) -> None:
    windows, linux = (listed(layout, str(each), each, each) for each in (WINDOWS, AMD64))
    root = index(layout, windows.entry, linux.entry)
    assert select_image(layout, root, None) == linux.image
    assert select_image(layout, root, Platform("windows", "amd64")) == windows.image
    assert select_image(layout, index(layout, windows.entry), None) == windows.image
