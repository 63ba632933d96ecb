"""A bundle: a file with the layers a device lacks, which its engine loads without a network.

``docker load`` skips the tar of a layer whose chain id it has unpacked; ``ctr images
import`` and ``podman load`` skip a blob they already have. So an archive that names all layers of
an image and contains only the missing ones loads on an unmodified engine
(measured on Docker 20.10.24, containerd 1.6.20, podman 4.3.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest, canonical
from mlpack.oci.image import Image, Layer, assemble, in_oci
from mlpack.oci.unpacking import LayerFacts
from mlpack.plan.engines import DeviceState, EngineRule, LoadRule
from mlpack.plan.engines import engine as known_engine
from mlpack.plan.refusals import ImageSupport, Refusal, image_refusals

LIST = "mlpack-bundle.json"
"""The member with the digest of every other one; engines ignore it."""

_SMALL = 4 * 1024 * 1024


class NothingShared(MlpackError):
    """A bundle that would save the device nothing."""

    hint = "bundle the whole image with: --onto none"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The content of one file."""

    engine: str
    name: str
    """The image's name on the device: ``repository:tag``."""

    image: Image
    carried: tuple[Layer, ...]
    """The layers in the file, bottom first; the device has the others."""

    onto: Digest | None
    """The image that the device has; ``None`` if it may have none."""

    @property
    def load(self) -> LoadRule:
        """How the engine loads it."""
        return known_engine(self.engine).load

    @property
    def compressed(self) -> bool:
        """Whether the whole file is gzip."""
        return self.load.gzip == "always" or (self.load.gzip == "small" and self.small)

    @property
    def small(self) -> bool:
        """Whether the layers are so small that the best compression costs no time."""
        return sum(layer.size for layer in self.carried) <= _SMALL

    @property
    def unpacks(self) -> bool:
        """Whether the file has layers as plain tar instead of the registry's blobs."""
        return self.load.unpacks

    @property
    def layers(self) -> Mapping[str, Layer]:
        """The layers in the file by the path of their member."""
        return {self.member(layer): layer for layer in self.carried}

    def member(self, layer: Layer) -> str:
        """Return the path of a layer in the file."""
        if self.unpacks:
            return f"{layer.diff_id.hex}.tar"
        return f"blobs/sha256/{layer.digest.hex}"

    def documents(self) -> Mapping[str, bytes]:
        """Return every other member by path, the list of digests first."""
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
    """Decide which layers of ``image`` a device with ``onto`` needs.

    Raises :class:`NothingShared` if those are all layers.
    """
    state = DeviceState.holding(onto) if onto else DeviceState()
    image = archived(engine, image)
    carried = lacking(engine, image, state)
    if onto and image.layers and carried == image.layers:
        raise NothingShared(
            f"a device with {onto.digest.short} has no layer of {image.digest.short} that "
            f"{engine} could use: their bottom layers differ"
        )
    return Bundle(
        engine=engine,
        name=name,
        image=image,
        carried=carried,
        onto=onto.digest if onto else None,
    )


def archived(engine: str, image: Image) -> Image:
    """Return ``image`` as the engine's file names it: an OCI layout has OCI's media types only."""
    return image if known_engine(engine).load.unpacks else in_oci(image)


def lacking(engine: str, image: Image, state: DeviceState) -> tuple[Layer, ...]:
    """Return the layers a *load* needs: by chain id if its engine unpacks them, else by digest.

    A pull on moby also requires that the blob was pulled under this digest; a load does not
    (``image/tarexport/load.go`` in moby 20.10), so it needs fewer layers.
    """
    if known_engine(engine).load.unpacks:
        stacked = zip(image.layers, image.chain_ids, strict=True)
        return tuple(layer for layer, chain in stacked if chain not in state.chain_ids)
    return tuple(layer for layer in image.layers if layer.digest not in state.digests)


def load_refusals(
    rule: EngineRule, image: Image, facts: Sequence[LayerFacts]
) -> tuple[Refusal, ...]:
    """Return why the engine does not take ``image`` from a file.

    An engine that takes plain tars sees neither media types nor compressions.
    """
    support = replace(rule.support, fetches_urls=False)
    if rule.load.unpacks:
        support = ImageSupport(most_layers=support.most_layers, unpacking=support.unpacking)
        facts = [replace(each, compression="none") for each in facts]
        image = _plain(image)
    return tuple(image_refusals(rule.measured, support, image, facts))


def _plain(image: Image) -> Image:
    """Return ``image`` as ``docker save`` describes it: its layers are tars."""
    tars = [
        Layer(Descriptor(media.LAYER_TAR, each.diff_id, each.size), each.diff_id)
        for each in image.layers
    ]
    return assemble(image.config, tars)
