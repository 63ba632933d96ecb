"""Docker's documents with OCI's media types: what changes, and that nothing else does."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest

from mlpack.oci import descriptor as media
from mlpack.oci.conversion import OCI_TYPES, oci_index, oci_manifest, oci_type, to_oci
from mlpack.oci.descriptor import Descriptor, Digest
from mlpack.oci.image import Layer, append, assemble
from tests.support import image, layer

FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
IN_TOTO = "application/vnd.in-toto+json"
ATTESTED = "vnd.docker.reference.digest"


def entry(media_type: str, content: bytes = b"{}", **more: object) -> dict[str, object]:
    return {**Descriptor.of(content, media_type).to_json(), **more}


def manifest(kind: str, config: str, *layers: Mapping[str, object], **more: object) -> bytes:
    made = {"schemaVersion": 2, "mediaType": kind, "config": entry(config), "layers": layers}
    return json.dumps({**made, **more}, indent=3).encode()


DOCKER = manifest(media.DOCKER_MANIFEST, media.DOCKER_CONFIG, entry(media.DOCKER_LAYER_GZIP))
OCI = manifest(media.MANIFEST, media.CONFIG, entry(media.LAYER_GZIP))


class Documents(dict[Digest, bytes]):
    """Documents by digest; ``reads`` counts how often they are read."""

    reads = 0

    def add(self, content: bytes, media_type: str) -> Descriptor:
        made = Descriptor.of(content, media_type)
        self[made.digest] = content
        return made

    def read(self, target: Descriptor) -> bytes:
        self.reads += 1
        return self[target.digest]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("application/vnd.docker.image.rootfs.diff.tar", media.LAYER_TAR),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", media.LAYER_GZIP),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", media.LAYER_ZSTD),
        (FOREIGN, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        (FOREIGN[:-5], "application/vnd.oci.image.layer.nondistributable.v1.tar"),
        (media.LAYER_ZSTD, media.LAYER_ZSTD),
        (IN_TOTO, IN_TOTO),
        ("application/vnd.example.unknown", "application/vnd.example.unknown"),
    ],
)
def test_a_layer_keeps_everything_but_the_family_of_its_type(before: str, after: str) -> None:
    more: Any = {"urls": ["https://example.com/layer"], "annotations": {"keep": "me"}, "other": 1}
    made = json.loads(
        oci_manifest(
            manifest(
                media.DOCKER_MANIFEST,
                media.DOCKER_CONFIG,
                entry(before, **more),
                annotations={"a": "b"},
                artifactType="application/x",
            )
        )
    )
    assert made["mediaType"] == media.MANIFEST
    assert made["config"] == entry(media.CONFIG)
    assert made["layers"] == [entry(after, **more)]
    assert (made["annotations"], made["artifactType"]) == ({"a": "b"}, "application/x")


@pytest.mark.parametrize(
    "content",
    [
        OCI,
        manifest(media.MANIFEST, media.EMPTY, entry("application/x")),
        manifest(media.MANIFEST, media.CONFIG, entry(IN_TOTO)),
        json.dumps({"schemaVersion": 2, "mediaType": None, "config": entry(media.CONFIG)}).encode(),
        b'{"schemaVersion": 2}',
    ],
)
def test_the_bytes_of_an_oci_manifest_stay(content: bytes) -> None:
    assert oci_manifest(content) == content


@pytest.mark.parametrize(
    "content",
    [
        manifest(media.MANIFEST, media.CONFIG, entry(media.DOCKER_LAYER_GZIP)),
        manifest(media.MANIFEST, media.DOCKER_CONFIG, entry(media.LAYER_GZIP)),
        manifest(media.DOCKER_MANIFEST, media.CONFIG, entry(media.LAYER_GZIP)),
    ],
)
def test_a_manifest_of_both_families_has_one_afterwards(content: bytes) -> None:
    made = oci_manifest(content)
    assert json.loads(made) == json.loads(OCI)
    assert not any(kind in made.decode() for kind in OCI_TYPES)
    assert oci_manifest(made) == made


def test_entries_keep_their_members_and_attestations_follow_their_image() -> None:
    held = Documents()
    one = held.add(DOCKER, media.DOCKER_MANIFEST)
    about = held.add(
        manifest(media.DOCKER_MANIFEST, media.DOCKER_CONFIG, entry(IN_TOTO)),
        media.DOCKER_MANIFEST,
    )
    windows = {"os": "windows", "architecture": "amd64", "os.version": "10.0", "features": ["f"]}
    listed = [
        {**about.to_json(), "annotations": {ATTESTED: str(one.digest), "kind": "attestation"}},
        {
            **one.to_json(),
            "platform": windows,
            "urls": ["https://example.com"],
            "data": base64.b64encode(DOCKER).decode(),
        },
        {**entry(SCHEMA_1), "platform": {"os": "linux", "architecture": "arm64"}},
    ]
    content = json.dumps({"schemaVersion": 2, "manifests": listed, "annotations": {"x": "y"}})
    root = held.add(content.encode(), media.DOCKER_INDEX)
    found = to_oci(root, held.read)
    made = json.loads(found.documents[found.root])
    now = {each.digest: content for each, content in found.documents.items()}
    attestation, image, old = made["manifests"]
    assert json.loads(now[Digest.parse(image["digest"])]) == json.loads(OCI)
    assert image == {
        **entry(media.MANIFEST, now[Digest.parse(image["digest"])]),
        "platform": windows,
        "urls": ["https://example.com"],
    }
    assert attestation["annotations"] == {ATTESTED: image["digest"], "kind": "attestation"}
    assert IN_TOTO in now[Digest.parse(attestation["digest"])].decode()
    assert old == listed[2]
    assert (made["annotations"], made["mediaType"]) == ({"x": "y"}, media.INDEX)


def test_nested_lists_are_converted_once_whatever_names_them() -> None:
    held = Documents()
    root = held.add(DOCKER, media.DOCKER_MANIFEST)
    for _ in range(30):  # each names the one below twice: 2 ** 30 ways down
        both = json.dumps({"schemaVersion": 2, "manifests": [root.to_json(), root.to_json()]})
        root = held.add(both.encode(), media.DOCKER_INDEX)
    found = to_oci(root, held.read)
    assert held.reads == 31
    assert len(found.documents) == 31
    assert list(found.documents)[-1] == found.root
    assert not any(kind in each.decode() for each in found.documents.values() for kind in OCI_TYPES)


@pytest.mark.parametrize("outer", [media.DOCKER_INDEX, media.INDEX])
def test_only_what_must_change_does(outer: str) -> None:
    held = Documents()
    kept, changed = held.add(OCI, media.MANIFEST), held.add(DOCKER, media.DOCKER_MANIFEST)
    for listed, changes in [([kept], outer == media.DOCKER_INDEX), ([kept, changed], True)]:
        content = json.dumps({"mediaType": outer, "manifests": [each.to_json() for each in listed]})
        root = held.add(content.encode(), outer)
        found = to_oci(root, held.read)
        assert (found.root.digest != root.digest) is changes
        assert oci_index(content.encode(), {}) == content.encode() or changes
        assert kept not in found.documents
        held.update({each.digest: made for each, made in found.documents.items()})
        again = to_oci(found.root, held.read)
        assert (again.root, again.documents) == (found.root, {})


def test_a_type_that_only_the_descriptor_has_changes_no_bytes() -> None:
    held = Documents()
    root = held.add(OCI, media.DOCKER_MANIFEST)
    found = to_oci(root, held.read)
    assert (found.root, found.documents) == (Descriptor.of(OCI, media.MANIFEST), {})


def test_an_image_that_is_assembled_has_one_family() -> None:
    below = layer("below")
    docker = Layer(Descriptor(FOREIGN, below.digest, below.size), below.diff_id)
    made = append(assemble(image("below").config, [docker]), layer("above"))
    assert [oci_type(each.descriptor.media_type) for each in made.layers] == [
        each.descriptor.media_type for each in made.layers
    ]
    assert made.layers[0].digest == below.digest
