"""Images and indexes as values: their exact bytes, and what follows from them.

An :class:`Image` stores two byte strings and nothing else, so digests are right by construction
and documents written by other tools survive unchanged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.conversion import oci_descriptor, oci_manifest
from mlpack.oci.descriptor import (
    Descriptor,
    Digest,
    InvalidContent,
    Node,
    Platform,
    canonical,
    parse,
)
from mlpack.oci.platforms import best, fits


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's two identities: the blob as stored and sent, and the tar inside it."""

    descriptor: Descriptor
    diff_id: Digest

    @property
    def digest(self) -> Digest:
        """The digest of the blob, which may be compressed."""
        return self.descriptor.digest

    @property
    def size(self) -> int:
        """The size of the blob in bytes."""
        return self.descriptor.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How layers are written; recorded in the lock and in every release's identity.

    Raise ``revision`` whenever the same files would give other bytes than before:
    header fields, order, thresholds, levels.
    """

    revision: int
    compressor: str
    """Package and version of the compressor (``deflate 0.9.0``)."""

    def to_json(self) -> dict[str, object]:
        """Return the value for the lock and the identity record."""
        return {"revision": self.revision, "compressor": self.compressor}

    @classmethod
    def from_json(cls, node: Node) -> Packing:
        """Read what :meth:`to_json` wrote."""
        return cls(
            revision=node.need("revision").integer(minimum=1),
            compressor=node.need("compressor").text(),
        )

    def __str__(self) -> str:
        return f"layer format {self.revision}, {self.compressor}"


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """What an engine needs to start a container, and no more.

    Every device fetches the config with every release, so each byte costs: no history, no created
    time, and labels only on request.
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
        """Return the config document (image-spec, config.md)."""
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


UNNAMED = Platform("linux", "amd64")
"""What is taken for a config without ``os`` or ``architecture``."""


@dataclass(frozen=True)
class Image:
    """One platform's image: the exact bytes of its manifest and of its config."""

    manifest: bytes
    config: bytes
    listed: Platform | None = field(default=None, compare=False)
    """The platform that an index lists it for: engines go by that, not by the config's."""

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
        """The digest of the manifest, which identifies the image."""
        return self.descriptor.digest

    @cached_property
    def config_descriptor(self) -> Descriptor:
        """The descriptor of the config, from the manifest."""
        return Descriptor.from_json(self._manifest.need("config"))

    @property
    def platform(self) -> Platform:
        """The platform it is listed for; without one that of the config."""
        return self.listed or self.built_for

    @cached_property
    def built_for(self) -> Platform:
        """The platform in the config; many builders leave the variant out.

        A config that names no system or architecture is :data:`UNNAMED`'s: engines take it for
        their own machine's.
        """
        given = self._config.mapping()
        names = {key: given.get(key) or value for key, value in UNNAMED.to_json().items()}
        return Platform.from_json(Node({**given, **names}, self._config.where))

    @cached_property
    def diff_ids(self) -> tuple[Digest, ...]:
        """The digests of the uncompressed layers, bottom first."""
        listed = self._config.need("rootfs").need("diff_ids")
        return tuple(Digest.from_json(element) for element in listed.elements())

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, bottom first; manifest and config must list the same number."""
        blobs = [Descriptor.from_json(e) for e in self._manifest.need("layers").elements()]
        if len(blobs) != len(self.diff_ids):
            raise InvalidContent(
                "config.rootfs.diff_ids",
                f"lists {len(self.diff_ids)} layers, the manifest {len(blobs)}",
            )
        return tuple(Layer(blob, diff) for blob, diff in zip(blobs, self.diff_ids, strict=True))

    @cached_property
    def chain_ids(self) -> tuple[Digest, ...]:
        """The identity of the stack up to each layer, as engines compute it."""
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
    """Return an image of ``layers``, bottom first."""
    return assemble(canonical(config.to_json(layer.diff_id for layer in layers)), layers)


def append(
    base: Image,
    layer: Layer,
    *,
    env: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Image:
    """Return ``base`` with ``layer`` on top; nothing below it changes.

    ``env`` and ``labels`` override the base's. History, created time and author are dropped:
    engines do not need them (measured on all three), and devices fetch every byte of the config.
    """
    config = dict(base._config.mapping())
    for not_needed in ("history", "created", "author"):
        config.pop(not_needed, None)
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
    """An image whose first layers are not those of its base."""

    hint = "build it again on the locked base: mlpack build"


def require_prefix(image: Image, base: Image) -> None:
    """Raise :class:`NotOnBase` unless the first layers and diff ids of ``image`` are ``base``'s.

    A device reuses exactly the chain it has: if one layer differs, it fetches everything above
    again (measured on Docker 20.10).
    """
    if len(image.layers) < len(base.layers):
        raise NotOnBase(
            f"image {image.digest.short} has {len(image.layers)} layers, "
            f"its base {base.digest.short} has {len(base.layers)}"
        )
    for number, (ours, theirs) in enumerate(zip(image.layers, base.layers, strict=False), 1):
        if ours.diff_id != theirs.diff_id or ours.digest != theirs.digest:
            raise NotOnBase(
                f"layer {number} of image {image.digest.short} is {ours.digest.short}, "
                f"its base {base.digest.short} has {theirs.digest.short} there"
            )


def assemble(config: bytes, layers: Sequence[Layer]) -> Image:
    """Return an OCI image of ``config``, whose diff ids must be those of ``layers``.

    Layers of a Docker image get OCI's media types: no manifest has those of both.
    """
    manifest = {
        "schemaVersion": 2,
        "mediaType": media.MANIFEST,
        "config": Descriptor.of(config, media.CONFIG).to_json(),
        "layers": [oci_descriptor(layer.descriptor).to_json() for layer in layers],
    }
    return Image(canonical(manifest), config)


def in_oci(image: Image) -> Image:
    """Return ``image`` with OCI's media types; one that has no other stays as it is."""
    return replace(image, manifest=oci_manifest(image.manifest))


class NoSuchPlatform(MlpackError):
    """An index without an image for the requested platform."""


_KIND = "vnd.docker.reference.type"
"""Annotation of entries that are about an image: ``attestation-manifest``."""


@dataclass(frozen=True)
class Index:
    """An image index (image-spec, image-index.md), by its exact bytes; the rest is derived."""

    content: bytes

    @cached_property
    def _document(self) -> Node:
        return parse(self.content, "index")

    @cached_property
    def descriptor(self) -> Descriptor:
        """The index's own descriptor."""
        found = self._document.get("mediaType")
        return Descriptor.of(self.content, found.text() if found else media.INDEX)

    @property
    def digest(self) -> Digest:
        """The digest of the index, which deployments refer to."""
        return self.descriptor.digest

    @cached_property
    def entries(self) -> tuple[Descriptor, ...]:
        """Everything it lists, in its order."""
        return tuple(map(Descriptor.from_json, self._document.need("manifests").elements()))

    @cached_property
    def manifests(self) -> tuple[Descriptor, ...]:
        """The images, and indexes of more, in its order; attestations and other artifacts not."""
        return tuple(each for each in self.entries if _may_be_image(each))

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """The platforms of the images."""
        return tuple(d.platform for d in self.manifests if d.platform)

    def select(self, platform: Platform) -> Descriptor:
        """Return the image for ``platform``; raise :class:`NoSuchPlatform`."""
        return select(self.manifests, platform, self.digest)


def _may_be_image(entry: Descriptor) -> bool:
    known = entry.media_type in media.MANIFESTS | media.INDEXES
    unknown = entry.platform is not None and entry.platform.os == "unknown"
    other = entry.artifact_type not in {"", *media.CONFIGS} or _KIND in entry.annotations
    return known and not unknown and not other


def select(entries: Sequence[Descriptor], platform: Platform, index: Digest) -> Descriptor:
    """Return the one of an index's images that a device of ``platform`` takes.

    Raises :class:`NoSuchPlatform`.
    """
    offered = [each for each in entries if each.platform]
    platforms = [each.platform for each in offered if each.platform]
    number = best(platform, platforms)
    if number is not None:
        return offered[number]
    names = ", ".join(map(str, platforms)) or "none"
    raise NoSuchPlatform(
        f"there is no image for {platform} in index {index.short} (it has: {names})",
        hint="name one of these with --platform, or add it to [base] platforms in "
        "mlpack.toml and run: mlpack base build",
    )


def build_index(images: Sequence[Image]) -> Index:
    """Return an index of ``images``, in the order of their platforms."""
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


MAX_LAYERS = 127
"""The most layers that overlayfs drivers (containerd, moby) can mount."""


def problems(image: Image) -> tuple[str, ...]:
    """Return all problems of ``image``; empty if it is valid."""
    try:
        return tuple(_problems(image))
    except MlpackError as error:
        return (str(error),)


def _problems(image: Image) -> Iterator[str]:
    if image.descriptor.media_type not in media.MANIFESTS:
        yield f"manifest.mediaType: {image.descriptor.media_type} is not an image"
    config = image.config_descriptor
    if config.media_type not in media.CONFIGS:
        yield f"manifest.config.mediaType: engines refuse {config.media_type}"
    if config != Descriptor.of(image.config, config.media_type):
        yield f"manifest.config: has {config.digest}, the config is another"
    if not 0 < len(image.layers) <= MAX_LAYERS:
        yield f"manifest.layers: {len(image.layers)} layers, engines mount 1 to {MAX_LAYERS}"
    for number, layer in enumerate(image.layers):
        yield from _layer_problems(layer, f"manifest.layers[{number}]")


def _layer_problems(layer: Layer, where: str) -> Iterator[str]:
    kind = layer.descriptor.media_type
    if kind in media.TAR_LAYERS:
        if layer.digest != layer.diff_id:
            yield f"{where}: an uncompressed layer whose digest is not its diff id"
    elif kind not in media.GZIP_LAYERS | media.ZSTD_LAYERS:
        yield f"{where}.mediaType: {kind} is not a layer"


def entry_problems(entry: Descriptor, image: Image) -> tuple[str, ...]:
    """Return all contradictions between an entry of an index and the image it names.

    An entry may name a variant that the config leaves out.
    """
    found = []
    if entry.digest != image.digest or entry.size != len(image.manifest):
        found.append(f"index: names {entry.digest}, the image is {image.digest}")
    if entry.platform and not fits(image.built_for, entry.platform):
        found.append(f"index: says {entry.platform}, the image is for {image.built_for}")
    return tuple(found)
