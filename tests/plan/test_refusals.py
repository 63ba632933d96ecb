"""What engines refuse, by the documents and facts of an image; measured in tests/e2e."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from mlpack.kinds import ENGINES
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest
from mlpack.oci.image import Image, Index
from mlpack.oci.unpacking import Altered, LayerFacts
from mlpack.plan.engines import engine
from mlpack.plan.refusals import NotTaken, Refusal, require_taken, warnings

OCI, DOCKER = media.MANIFEST, media.DOCKER_MANIFEST
DOCKER_TAR = "application/vnd.docker.image.rootfs.diff.tar"
FOREIGN = f"{DOCKER_TAR.replace('diff', 'foreign.diff')}.gzip"


def image(
    *layers: str,
    manifest: str = OCI,
    config: str = media.CONFIG,
    urls: bool = False,
) -> Image:
    """An image of layers of these media types."""
    blobs = [Descriptor(kind, Digest.of(f"{n}".encode()), 100) for n, kind in enumerate(layers)]
    found = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [str(each.digest) for each in blobs]},
    }
    content = json.dumps(found).encode()
    link = {"urls": ["https://example.com/layer"]} if urls else {}
    document = {
        "schemaVersion": 2,
        "mediaType": manifest,
        "config": Descriptor.of(content, config).to_json(),
        "layers": [{**each.to_json(), **link} for each in blobs],
    }
    return Image(json.dumps(document).encode(), content)


MEDIA: Mapping[str, tuple[Image, str]] = {
    "OCI": (image(media.LAYER_GZIP), ""),
    "Docker": (
        image(media.DOCKER_LAYER_GZIP, manifest=DOCKER, config=media.DOCKER_CONFIG),
        "",
    ),
    "plain": (image(media.LAYER_TAR), ""),
    "zstd": (image(media.LAYER_GZIP, media.LAYER_ZSTD), "moby"),
    "Docker's zstd": (
        image(f"{DOCKER_TAR}.zstd", manifest=DOCKER, config=media.DOCKER_CONFIG),
        "moby containerd podman",
    ),
    "OCI layers under Docker's manifest": (
        image(media.LAYER_GZIP, manifest=DOCKER, config=media.DOCKER_CONFIG),
        "podman",
    ),
    "Docker's layers under OCI's manifest": (image(media.DOCKER_LAYER_GZIP), ""),
    "Docker's config under OCI's manifest": (
        image(media.LAYER_GZIP, config=media.DOCKER_CONFIG),
        "podman",
    ),
    "an unknown config": (
        image(media.LAYER_GZIP, config="application/vnd.example+json"),
        "moby podman",
    ),
    "an unknown layer": (image("application/vnd.example"), "moby containerd"),
    "an encrypted layer": (image(f"{media.LAYER_GZIP}+encrypted"), "moby containerd podman"),
    "urls": (image(FOREIGN, manifest=DOCKER, config=media.DOCKER_CONFIG, urls=True), "containerd"),
    "125 layers": (image(*[media.LAYER_GZIP] * 125), ""),
    "126 layers": (image(*[media.LAYER_GZIP] * 126), "moby"),
    "129 layers": (image(*[media.LAYER_GZIP] * 129), "moby podman"),
    "501 layers": (image(*[media.LAYER_GZIP] * 501), "moby containerd podman"),
}


@pytest.mark.parametrize("case", MEDIA)
def test_engines_refuse_what_they_cannot_pull(case: str) -> None:
    given, who = MEDIA[case]
    refused = {name: engine(name).refusals(given) for name in ENGINES}
    assert {name for name, found in refused.items() if found} == set(who.split())
    for name, found in refused.items():
        assert all(each.engine == engine(name).measured and each.remedy for each in found)


def index(*entries: tuple[Descriptor, bool], kind: str = media.INDEX) -> Index:
    """An index of entries, each with or without its platform."""
    listed = [
        {key: value for key, value in entry.to_json().items() if told or key != "platform"}
        for entry, told in entries
    ]
    return Index(json.dumps({"mediaType": kind, "manifests": listed}).encode())


ONE = image(media.LAYER_GZIP)
INNER = Descriptor(media.INDEX, Digest.of(b"inner"), 10, platform=ONE.platform)
OTHER = image(media.LAYER_TAR).descriptor
INDEXES: Mapping[str, tuple[Index, str]] = {
    "with platforms": (index((ONE.descriptor, True)), ""),
    "without": (index((ONE.descriptor, False)), "moby"),
    "a list without": (
        index((ONE.descriptor, False), kind=media.DOCKER_INDEX),
        "moby podman",
    ),
    "another first, without": (
        index((OTHER, False), (ONE.descriptor, False)),
        "moby containerd podman",
    ),
    "nested": (index((INNER, True)), "moby podman"),
    "nested, beside the image": (index((INNER, False), (ONE.descriptor, True)), ""),
}


@pytest.mark.parametrize("case", INDEXES)
def test_engines_refuse_an_index_by_which_they_find_no_image(case: str) -> None:
    given, who = INDEXES[case]
    refused = {name for name in ENGINES if engine(name).refusals(ONE, given)}
    assert refused == set(who.split())


@pytest.mark.parametrize(
    ("said", "held", "who"),
    [
        (media.LAYER_GZIP, "gzip", ""),
        (media.LAYER_GZIP, "none", ""),
        (media.LAYER_GZIP, "zstd", "moby"),
        (media.LAYER_GZIP, "bzip2", "containerd"),
        (media.LAYER_TAR, "gzip", "containerd"),
        (media.LAYER_TAR, "xz", "containerd"),
        (media.LAYER_TAR, "zstd", "moby containerd"),
        (media.LAYER_ZSTD, "gzip", ""),
        (media.LAYER_ZSTD, "zstd-skippable", "moby podman"),
    ],
)
def test_what_a_layer_is_counts_more_than_what_its_media_type_says(
    said: str, held: str, who: str
) -> None:
    facts = [LayerFacts(compression=held)]  # type: ignore[arg-type]
    refused = {name for name in ENGINES if engine(name).refusals(image(said), facts=facts)}
    assert refused == set(who.split())


def test_what_is_unpacked_to_other_files_is_told_by_its_causes() -> None:
    altered = (Altered("lib", "symlink"), Altered("bin", "symlink"), Altered("etc", "parent"))
    facts = LayerFacts(compression="gzip", altered=altered)
    (found,) = engine("moby").refusals(ONE, facts=[facts])
    assert found.effect == "altered"
    assert str(found) == (
        f"Docker 20.10.24 unpacks other files of layer 1 ({ONE.layers[0].digest.short}): it puts "
        "files through 'lib' and 1 more, a symlink below it, which becomes a directory; it does "
        "not list 'etc', which loses its owner and mode"
    )


def test_a_refusal_becomes_an_error_or_a_warning_with_what_to_do() -> None:
    found = Refusal(engine="E 1", effect="refused", where="layer 2", why="it is odd", remedy="mend")
    assert warnings([found]) == ("E 1 refuses layer 2: it is odd; mend",)
    require_taken("fan:1", [])
    with pytest.raises(NotTaken, match=r"^fan:1: E 1 refuses layer 2: it is odd \(and 1 more\)$"):
        require_taken("fan:1", [found, found])
    with pytest.raises(NotTaken) as raised:
        require_taken("fan:1", [found], way="turn back")
    assert raised.value.hint == "turn back"
