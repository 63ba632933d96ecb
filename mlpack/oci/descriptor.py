"""Descriptors and platforms (OCI image-spec, descriptor.md and image-index.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlpack.errors import UsageError
from mlpack.oci.digest import Digest
from mlpack.oci.document import Node

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

MANIFESTS = frozenset({MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({INDEX, DOCKER_INDEX})
CONFIGS = frozenset({CONFIG, DOCKER_CONFIG})
TAR_LAYERS = frozenset({LAYER_TAR, "application/vnd.docker.image.rootfs.diff.tar"})
GZIP_LAYERS = frozenset({LAYER_GZIP, DOCKER_LAYER_GZIP})
ZSTD_LAYERS = frozenset({LAYER_ZSTD})

_WORD = re.compile(r"[a-z0-9_]+")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """An operating system and a processor, in Go's words (``linux/arm64``)."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``linux/amd64`` or ``linux/arm/v7``.

        >>> str(Platform.parse("linux/arm/v7"))
        'linux/arm/v7'
        """
        parts = text.split("/")
        if not 2 <= len(parts) <= 3 or not all(_WORD.fullmatch(part) for part in parts):
            raise UsageError(
                f"{text!r} is not a platform", hint="write it as linux/amd64 or linux/arm64"
            )
        os, architecture = parts[0], _ARCHITECTURES.get(parts[1], parts[1])
        return cls(os, architecture, parts[2] if len(parts) == 3 else "")

    @classmethod
    def from_json(cls, node: Node) -> Platform:
        """Read the ``platform`` member of an index entry, or an image config."""
        variant = node.get("variant")
        return cls(
            node.need("os").text(),
            node.need("architecture").text(),
            variant.text() if variant else "",
        )

    def fits(self, wanted: Platform) -> bool:
        """Whether an image for this platform runs on ``wanted``; no variant fits every variant."""
        variants = {self.variant, wanted.variant} - {""}
        same = (self.os, self.architecture) == (wanted.os, wanted.architecture)
        return same and len(variants) <= 1

    def to_json(self) -> dict[str, str]:
        """The ``platform`` member of an index entry."""
        value = {"architecture": self.architecture, "os": self.os}
        return value | ({"variant": self.variant} if self.variant else {})

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What some bytes are called: media type, digest and size in bytes.

    Two descriptors are equal when these three are; annotations and platform
    describe the reference, not the bytes.
    """

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)
    platform: Platform | None = field(default=None, compare=False)
    artifact_type: str = field(default="", compare=False)

    @classmethod
    def of(cls, content: bytes, media_type: str) -> Descriptor:
        """Describe ``content``."""
        return cls(media_type, Digest.of(content), len(content))

    @classmethod
    def from_json(cls, node: Node) -> Descriptor:
        """Read a descriptor; raise :class:`InvalidContent` with its place."""
        annotations = node.get("annotations")
        platform = node.get("platform")
        artifact_type = node.get("artifactType")
        return cls(
            node.need("mediaType").text(),
            Digest.from_json(node.need("digest")),
            node.need("size").integer(),
            annotations.text_map() if annotations else {},
            Platform.from_json(platform) if platform else None,
            artifact_type.text() if artifact_type else "",
        )

    def to_json(self) -> dict[str, object]:
        """This descriptor as a JSON value; empty members are left out."""
        value: dict[str, object] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.platform:
            value["platform"] = self.platform.to_json()
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        return value
