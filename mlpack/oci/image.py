"""Images as values: a manifest, a config, and what follows from them.

An :class:`Image` stores two byte strings and nothing else, so digests are right
by construction and documents written by other tools survive unchanged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Platform
from mlpack.oci.digest import Digest
from mlpack.oci.document import InvalidContent, Node, canonical, parse


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's two names: the blob as stored and sent, and the tar inside it."""

    descriptor: Descriptor
    diff_id: Digest

    @property
    def digest(self) -> Digest:
        """The digest of the blob (compressed, where it is)."""
        return self.descriptor.digest

    @property
    def size(self) -> int:
        """The blob's bytes."""
        return self.descriptor.size


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """What an engine needs to start a container, and no more.

    The config is fetched whole with every new image, so each byte is paid per
    device and release: no history, no created time, and labels only on request.
    """

    platform: Platform
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    ports: tuple[str, ...] = ()
    labels: Mapping[str, str] | None = None

    def to_json(self, diff_ids: Iterable[Digest]) -> dict[str, object]:
        """The config document (image-spec, config.md)."""
        run: dict[str, object] = {
            "Cmd": list(self.cmd),
            "Entrypoint": list(self.entrypoint),
            "Env": list(self.env),
            "ExposedPorts": {port: {} for port in self.ports},
            "Labels": dict(self.labels or {}),
            "User": self.user,
            "WorkingDir": self.working_dir,
        }
        return {
            **self.platform.to_json(),
            "config": {key: value for key, value in run.items() if value},
            "rootfs": {"type": "layers", "diff_ids": [str(diff_id) for diff_id in diff_ids]},
        }


@dataclass(frozen=True)
class Image:
    """One platform's image: the exact bytes of its manifest and of its config."""

    manifest: bytes
    config: bytes

    @cached_property
    def _manifest(self) -> Node:
        return parse(self.manifest, "manifest")

    @cached_property
    def _config(self) -> Node:
        return parse(self.config, "config")

    @cached_property
    def descriptor(self) -> Descriptor:
        """The manifest's descriptor."""
        found = self._manifest.get("mediaType")
        media_type = found.text() if found else media.MANIFEST
        return replace(Descriptor.of(self.manifest, media_type), platform=self.platform)

    @property
    def digest(self) -> Digest:
        """The image's name: the digest of its manifest."""
        return self.descriptor.digest

    @cached_property
    def config_descriptor(self) -> Descriptor:
        """The config as the manifest names it."""
        return Descriptor.from_json(self._manifest.need("config"))

    @cached_property
    def platform(self) -> Platform:
        """What the config says it runs on."""
        return Platform.from_json(self._config)

    @cached_property
    def diff_ids(self) -> tuple[Digest, ...]:
        """The uncompressed layers, bottom first."""
        listed = self._config.need("rootfs").need("diff_ids")
        return tuple(Digest.from_json(element) for element in listed.elements())

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, bottom first; manifest and config must list equally many."""
        blobs = [Descriptor.from_json(e) for e in self._manifest.need("layers").elements()]
        if len(blobs) != len(self.diff_ids):
            raise InvalidContent(
                "config.rootfs.diff_ids",
                f"lists {len(self.diff_ids)} layers, the manifest {len(blobs)}",
            )
        return tuple(Layer(blob, diff) for blob, diff in zip(blobs, self.diff_ids, strict=True))

    @cached_property
    def chain_ids(self) -> tuple[Digest, ...]:
        """What engines call the stack up to each layer."""
        return chain_ids(self.diff_ids)

    @cached_property
    def labels(self) -> Mapping[str, str]:
        """The config's labels."""
        run = self._config.get("config")
        labels = run.get("Labels") if run else None
        return labels.text_map() if labels else {}

    @cached_property
    def env(self) -> Mapping[str, str]:
        """The config's environment."""
        run = self._config.get("config")
        listed = run.get("Env") if run else None
        pairs = (entry.partition("=") for entry in (listed.texts() if listed else ()))
        return {key: value for key, _, value in pairs}


def chain_ids(diff_ids: Iterable[Digest]) -> tuple[Digest, ...]:
    """Fold diff ids into chain ids (image-spec, config.md, *Layer ChainID*).

    >>> a, b = Digest.of(b"a"), Digest.of(b"b")
    >>> chain_ids([a, b])[1] == Digest.of(f"{a} {b}".encode())
    True
    """
    chain: list[Digest] = []
    for diff_id in diff_ids:
        below = f"{chain[-1]} {diff_id}".encode() if chain else b""
        chain.append(Digest(hashlib.sha256(below).hexdigest()) if chain else diff_id)
    return tuple(chain)


def build_image(config: ImageConfig, layers: Sequence[Layer]) -> Image:
    """Make an image of ``layers``, bottom first."""
    return assemble(canonical(config.to_json(layer.diff_id for layer in layers)), layers)


def append(
    base: Image,
    layer: Layer,
    *,
    env: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Image:
    """Put ``layer`` on ``base``; nothing below it changes.

    ``env`` and ``labels`` are set over the base's. History, created time and
    author are dropped: engines need none of them (all three accept a config
    without; measured), and a device pays for every byte of the config.
    """
    config = dict(base._config.mapping())
    for paid_for_nothing in ("history", "created", "author"):
        config.pop(paid_for_nothing, None)
    found = base._config.get("config")
    run = dict(found.mapping()) if found else {}
    if env:
        run["Env"] = [f"{key}={value}" for key, value in {**base.env, **env}.items()]
    if labels:
        run["Labels"] = {**base.labels, **labels}
    layers = (*base.layers, layer)
    config["config"] = run
    config["rootfs"] = {"type": "layers", "diff_ids": [str(each.diff_id) for each in layers]}
    image = assemble(canonical(config), layers)
    require_prefix(image, base)
    return image


class NotOnBase(MlpackError):
    """An image whose layer chain does not start with the chain of the image it should sit on."""


def require_prefix(image: Image, base: Image) -> None:
    """Refuse ``image`` unless its first layers and diff ids are ``base``'s.

    A device reuses exactly the chain it holds: one layer that differs below
    makes it fetch everything above again (measured on Docker 20.10).
    """
    if len(image.layers) < len(base.layers):
        raise NotOnBase(
            f"image {image.digest.short} has {len(image.layers)} layers, "
            f"its base {base.digest.short} has {len(base.layers)}",
            hint="build it again on the locked base: mlpack build",
        )
    for number, (ours, theirs) in enumerate(zip(image.layers, base.layers, strict=False), 1):
        if ours.diff_id != theirs.diff_id or ours.digest != theirs.digest:
            raise NotOnBase(
                f"layer {number} of image {image.digest.short} is {ours.digest.short}, "
                f"its base {base.digest.short} has {theirs.digest.short} there",
                hint="build it again on the locked base: mlpack build",
            )


def assemble(config: bytes, layers: Sequence[Layer]) -> Image:
    """Write the manifest for ``config``, whose diff ids must be those of ``layers``."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": media.MANIFEST,
        "config": Descriptor.of(config, media.CONFIG).to_json(),
        "layers": [layer.descriptor.to_json() for layer in layers],
    }
    return Image(canonical(manifest), config)
