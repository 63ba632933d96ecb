"""Image indexes: one name for an image of several platforms (image-spec, image-index.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Platform
from mlpack.oci.digest import Digest
from mlpack.oci.document import canonical, parse
from mlpack.oci.image import Image


class NoSuchPlatform(MlpackError):
    """An index without an image for the platform asked for."""


@dataclass(frozen=True)
class Index:
    """The exact bytes of an index; the rest is derived."""

    content: bytes

    @cached_property
    def descriptor(self) -> Descriptor:
        """The index's own descriptor."""
        found = parse(self.content, "index").get("mediaType")
        return Descriptor.of(self.content, found.text() if found else media.INDEX)

    @property
    def digest(self) -> Digest:
        """The digest a deployment names."""
        return self.descriptor.digest

    @cached_property
    def manifests(self) -> tuple[Descriptor, ...]:
        """The images, in the order listed; attestation entries are left out."""
        listed = parse(self.content, "index").need("manifests").elements()
        found = (Descriptor.from_json(element) for element in listed)
        return tuple(d for d in found if not (d.platform and d.platform.os == "unknown"))

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """The platforms that can be selected."""
        return tuple(d.platform for d in self.manifests if d.platform)

    def select(self, platform: Platform) -> Descriptor:
        """The image for ``platform``; raise :class:`NoSuchPlatform`."""
        for entry in self.manifests:
            if entry.platform and entry.platform.fits(platform):
                return entry
        offered = ", ".join(str(p) for p in self.platforms) or "none"
        raise NoSuchPlatform(
            f"there is no image for {platform} in index {self.digest.short} (it has: {offered})",
            hint="name one of these with --platform, or add it to [base] platforms in "
            "mlpack.toml and run: mlpack base build",
        )


def build_index(images: Sequence[Image]) -> Index:
    """List ``images`` under one name, in the order of their platforms."""
    entries = sorted((image.descriptor for image in images), key=lambda d: str(d.platform))
    return Index(
        canonical(
            {
                "schemaVersion": 2,
                "mediaType": media.INDEX,
                "manifests": [entry.to_json() for entry in entries],
            }
        )
    )
