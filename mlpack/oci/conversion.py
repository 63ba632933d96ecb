"""Docker's images with OCI media types: the one place that turns one family into the other.

Docker's image manifest version 2, schema 2, and its manifest list have the members of OCI's
manifest and index; the two families differ in their media types only. Readers of an OCI layout
(skopeo, podman, umoci) accept OCI's alone, so a document is written again, with another digest, and
configs and layers stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest, Node, canonical, parse

OCI_TYPES: Mapping[str, str] = {
    media.DOCKER_MANIFEST: media.MANIFEST,
    media.DOCKER_INDEX: media.INDEX,
    media.DOCKER_CONFIG: media.CONFIG,
    media.DOCKER_LAYER_TAR: media.LAYER_TAR,
    media.DOCKER_LAYER_GZIP: media.LAYER_GZIP,
    media.DOCKER_LAYER_ZSTD: media.LAYER_ZSTD,
    "application/vnd.docker.image.rootfs.foreign.diff.tar": (
        "application/vnd.oci.image.layer.nondistributable.v1.tar"
    ),
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    ),
}
"""OCI's media type for each of Docker's (image-spec, media-types.md, *Compatibility Matrix*;
zstd is containerd's)."""

_ATTESTED = "vnd.docker.reference.digest"
"""Annotation of an attestation's entry: the image in the same index that it is about (BuildKit)."""


def oci_type(media_type: str) -> str:
    """Return OCI's media type for ``media_type``; one that is not Docker's stays.

    >>> oci_type("application/vnd.docker.image.rootfs.diff.tar.gzip")
    'application/vnd.oci.image.layer.v1.tar+gzip'
    >>> oci_type("application/vnd.in-toto+json")
    'application/vnd.in-toto+json'
    """
    return OCI_TYPES.get(media_type, media_type)


def oci_descriptor(target: Descriptor) -> Descriptor:
    """Return ``target`` with OCI's media type."""
    return replace(target, media_type=oci_type(target.media_type))


def oci_manifest(content: bytes) -> bytes:
    """Return a manifest with OCI's media types; its bytes stay if it has no other.

    Every other member stays: annotations, ``urls`` of layers, unknown types of artifacts.
    """
    manifest = parse(content, "manifest")
    config, layers = manifest.get("config"), manifest.get("layers")
    made = _retyped(manifest)
    if config:
        made["config"] = _retyped(config)
    if layers:
        made["layers"] = [_retyped(each) for each in layers.elements()]
    return content if made == manifest.value else canonical({**made, "mediaType": media.MANIFEST})


def oci_index(content: bytes, converted: Mapping[Digest, Descriptor]) -> bytes:
    """Return an index with OCI's media types; its bytes stay if it has no other.

    ``converted`` has what its entries became, by their digests. Entries keep all their members
    (platform, ``urls``, annotations) but ``data``, which would be the old bytes; an attestation
    is about the image's new digest.
    """
    index = parse(content, "index")
    made = _retyped(index)
    now = {str(old): new for old, new in converted.items()}
    made["manifests"] = [_entry(each, now) for each in index.need("manifests").elements()]
    return content if made == index.value else canonical({**made, "mediaType": media.INDEX})


def _retyped(node: Node) -> dict[str, object]:
    kind = node.get("mediaType")
    return {**node.mapping(), **({"mediaType": oci_type(kind.text())} if kind else {})}


def _entry(node: Node, converted: Mapping[str, Descriptor]) -> dict[str, object]:
    made = dict(node.mapping())
    digest = node.need("digest").text()
    now = converted.get(digest)
    if now is not None:
        made |= {"mediaType": now.media_type, "digest": str(now.digest), "size": now.size}
        if str(now.digest) != digest:
            made.pop("data", None)
    notes = node.get("annotations")
    about = notes.get(_ATTESTED) if notes else None
    if notes and about and about.value in converted:
        made["annotations"] = {**notes.mapping(), _ATTESTED: str(converted[about.text()].digest)}
    return made


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """An image or index with OCI's media types, and everything below it."""

    root: Descriptor
    """What it is now, with the annotations and platform of what it was."""

    documents: Mapping[Descriptor, bytes]
    """The manifests and indexes that changed, those before what names them."""


def to_oci(root: Descriptor, read: Callable[[Descriptor], bytes | None]) -> Conversion:
    """Give the image or index ``root`` OCI's media types; ``read`` returns a document's bytes.

    Nothing changes, digests included, where all media types are OCI's or unknown. What is named
    twice is read once; an image for which ``read`` returns ``None`` is named as it was. Raises
    :class:`~mlpack.oci.descriptor.InvalidContent` and what ``read`` raises.
    """
    converted: dict[Digest, Descriptor] = {}
    documents: dict[Descriptor, bytes] = {}

    def convert(target: Descriptor) -> Descriptor:
        if target.media_type not in media.MANIFESTS | media.INDEXES:
            return target
        if target.digest not in converted:
            content = read(target)
            if content is None:
                return target
            if target.media_type in media.INDEXES:
                for each in parse(content, "index").need("manifests").elements():
                    convert(Descriptor.from_json(each))
                made = oci_index(content, converted)
            else:
                made = oci_manifest(content)
            now = Descriptor.of(made, oci_type(target.media_type))
            converted[target.digest] = now
            if now.digest != target.digest:
                documents[now] = made
        now = converted[target.digest]
        return replace(target, media_type=now.media_type, digest=now.digest, size=now.size)

    return Conversion(root=convert(root), documents=documents)
