"""A bundle: a file with what a device lacks, in the form its engine loads without a network.

``docker load`` skips the tar of a layer whose chain id it has unpacked; ``ctr images
import`` and ``podman load`` skip a blob whose digest they hold. So an archive that names
all layers of an image and carries only the missing ones loads on a stock engine
(measured on Docker 20.10.24, containerd 1.6.20, podman 4.3.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.digest import Digest
from mlpack.oci.document import canonical
from mlpack.oci.image import Image, Layer
from mlpack.plan.engines import DeviceState

LIST = "mlpack-bundle.json"
"""The member with the digest of every other one; engines take no notice of it."""

LOAD = {
    "moby": "docker load -i {file}",
    "containerd": "ctr images import {file}",
    "podman": "podman load -i {file}",
}
"""What a device runs, by engine."""

REFUSAL = {
    "moby": ".tar: no such file or directory",
    "containerd": "failed to get reader from content store",
    "podman": "payload does not match any of the supported image formats",
}
"""What an engine says, among more, to a bundle whose base it has not."""

_SMALL = 4 * 1024 * 1024


class NothingShared(MlpackError):
    """A bundle that would spare the device nothing."""

    hint = "bundle the whole image with: --onto none"


class UnreadableLayer(MlpackError):
    """A layer in a compression that the engine does not take."""

    hint = "build the image again with gzip layers"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What goes into one file."""

    engine: str
    name: str
    """What the device will call the image: ``repository:tag``."""

    image: Image
    carried: tuple[Layer, ...]
    """The layers in the file, bottom first; the device has the others."""

    onto: Digest | None
    """The image the device is on; ``None`` where it may hold nothing."""

    @property
    def compressed(self) -> bool:
        """Whether the whole file is gzip: containerd imports plain tar only.

        podman first unpacks a compressed file beside itself, so a large one, whose
        layers are compressed already, stays plain for it.
        """
        return self.engine == "moby" or (self.engine == "podman" and self.small)

    @property
    def small(self) -> bool:
        """Whether the carried layers are so small that the best compression is free."""
        return sum(layer.size for layer in self.carried) <= _SMALL

    @property
    def unpacks(self) -> bool:
        """Whether layers lie in the file as plain tar, and not as the registry has them."""
        return self.engine == "moby"

    @property
    def layers(self) -> Mapping[str, Layer]:
        """The carried layers by the member that holds them."""
        return {self.member(layer): layer for layer in self.carried}

    def member(self, layer: Layer) -> str:
        """The path of a layer in the file."""
        if self.unpacks:
            return f"{layer.diff_id.hex}.tar"
        return f"blobs/sha256/{layer.digest.hex}"

    def documents(self) -> Mapping[str, bytes]:
        """Every member that is no layer, by path, the list of digests first."""
        held = self._archive() if self.unpacks else self._layout()
        digests = {path: Digest.of(content).hex for path, content in held.items()}
        for path, layer in self.layers.items():
            digests[path] = (layer.diff_id if self.unpacks else layer.digest).hex
        listed = {
            "schema": 1,
            "engine": self.engine,
            "name": self.name,
            "platform": str(self.image.platform),
            "image": str(self.image.digest),
            "onto": str(self.onto) if self.onto else None,
            "sha256": digests,
        }
        return {LIST: canonical(listed), **held}

    def _archive(self) -> dict[str, bytes]:
        config = f"{self.image.config_descriptor.digest.hex}.json"
        listed = {
            "Config": config,
            "RepoTags": [self.name],
            "Layers": [self.member(layer) for layer in self.image.layers],
        }
        return {"manifest.json": canonical([listed]), config: self.image.config}

    def _layout(self) -> dict[str, bytes]:
        names = {
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": self.name,
        }
        entry = {**self.image.descriptor.to_json(), "annotations": names}
        index = {"schemaVersion": 2, "mediaType": media.INDEX, "manifests": [entry]}
        return {
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            "index.json": canonical(index),
            f"blobs/sha256/{self.image.digest.hex}": self.image.manifest,
            f"blobs/sha256/{self.image.config_descriptor.digest.hex}": self.image.config,
        }


def bundle(engine: str, name: str, image: Image, onto: Image | None) -> Bundle:
    """Decide what a device on ``onto`` needs of ``image``.

    Raises :class:`NothingShared` where that is every layer, and :class:`UnreadableLayer`
    where the engine could not read one.
    """
    state = DeviceState.holding(onto) if onto else DeviceState()
    carried = lacking(engine, image, state)
    if onto and image.layers and carried == image.layers:
        raise NothingShared(
            f"a device on {onto.digest.short} has no layer of {image.digest.short} that "
            f"{engine} could use: their bottom layers differ"
        )
    if engine == "moby" and any(
        each.descriptor.media_type in media.ZSTD_LAYERS for each in carried
    ):
        raise UnreadableLayer(f"{image.digest.short} has a zstd layer, which Docker 20.10 refuses")
    return Bundle(
        engine=engine,
        name=name,
        image=image,
        carried=carried,
        onto=onto.digest if onto else None,
    )


def lacking(engine: str, image: Image, state: DeviceState) -> tuple[Layer, ...]:
    """The layers a *load* needs: by chain id for moby, by blob digest for the others.

    A pull on moby also wants the blob to have been pulled under this digest; a load
    does not (``image/tarexport/load.go`` in moby 20.10), so less is needed here.
    """
    if engine == "moby":
        stacked = zip(image.layers, image.chain_ids, strict=True)
        return tuple(layer for layer, chain in stacked if chain not in state.chain_ids)
    return tuple(layer for layer in image.layers if layer.digest not in state.digests)
