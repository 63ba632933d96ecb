"""How content is named: digests, descriptors, platforms, references, and paths in layers.

OCI image-spec, descriptor.md and image-index.md; references are
``registry/repository[:tag][@digest]`` (distribution-spec, *Pulling*). Documents are written in one
canonical form and read with checks: a message has the path to the offending value
(``manifest.layers[3].digest``).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from mlpack.errors import MlpackError, UsageError
from mlpack.oci.reference import InvalidReference, host_of, split

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
"""Larger manifests, indexes and configs are refused, as registries refuse them
(distribution-spec, *Pushing Manifests*)."""

MAX_INTEGER = 2**63 - 1
"""What other tools can read: sizes in image-spec are int64."""


class InvalidContent(MlpackError, ValueError):
    """A document without a required value; ``where`` is the path inside it."""

    def __init__(self, where: str, problem: str, *, hint: str = "") -> None:
        super().__init__(f"{where}: {problem}", hint=hint)
        self.where = where
        self.problem = problem


def canonical(value: object) -> bytes:
    """Return JSON in the one form that mlpack hashes: sorted keys, no spaces, UTF-8.

    >>> canonical({"b": 1, "a": [True, None]})
    b'{"a":[true,null],"b":1}'
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


@dataclass(frozen=True, slots=True)
class Node:
    """A value inside a document, and the path to it."""

    value: object
    where: str

    def get(self, key: str) -> Node | None:
        """Return the member ``key`` of this object, or ``None`` if it is absent or null."""
        found = self.mapping().get(key)
        return None if found is None else Node(found, f"{self.where}.{key}")

    def need(self, key: str) -> Node:
        """Return the member ``key``; raise :class:`InvalidContent` if it is absent."""
        found = self.get(key)
        if found is None:
            raise InvalidContent(self.where, f"{key!r} is missing")
        return found

    def mapping(self) -> Mapping[str, object]:
        """Return this value as an object."""
        if not isinstance(self.value, dict):
            raise InvalidContent(self.where, "is not an object")
        return self.value

    def items(self) -> Iterator[tuple[str, Node]]:
        """Yield the members of this object, each with its own path."""
        for key, value in self.mapping().items():
            yield key, Node(value, f"{self.where}.{key}")

    def elements(self) -> Iterator[Node]:
        """Yield the elements of this array, each with its own path."""
        if not isinstance(self.value, list):
            raise InvalidContent(self.where, "is not an array")
        for number, value in enumerate(self.value):
            yield Node(value, f"{self.where}[{number}]")

    def text(self) -> str:
        """Return this value as a string."""
        if not isinstance(self.value, str):
            raise InvalidContent(self.where, "is not a string")
        return self.value

    def integer(self, *, minimum: int = 0, maximum: int = MAX_INTEGER) -> int:
        """Return this value as a whole number from ``minimum`` to ``maximum``."""
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            raise InvalidContent(self.where, "is not a whole number")
        if self.value < minimum:
            raise InvalidContent(self.where, f"is {self.value}, less than {minimum}")
        if self.value > maximum:
            raise InvalidContent(self.where, f"is {self.value}, more than {maximum}")
        return self.value

    def texts(self) -> tuple[str, ...]:
        """Return this array of strings."""
        return tuple(element.text() for element in self.elements())

    def text_map(self) -> dict[str, str]:
        """Return this object of strings."""
        return {key: value.text() for key, value in self.items()}


def parse(content: bytes, where: str) -> Node:
    """Read a JSON object; ``where`` names it in messages."""
    if len(content) > MAX_DOCUMENT_BYTES:
        raise InvalidContent(where, f"is {len(content)} bytes, more than {MAX_DOCUMENT_BYTES}")
    try:
        value = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidContent(where, f"is not JSON ({error})") from error
    node = Node(value, where)
    node.mapping()
    return node


def _refuse_constant(text: str) -> object:
    raise ValueError(f"{text} is not a number")


_SHA256 = re.compile(r"sha256:([0-9a-f]{64})")
_OTHER_DIGEST = re.compile(r"(?!sha256:)([a-z0-9]+(?:[.+_-][a-z0-9]+)*):[0-9a-zA-Z=_-]+")


class InvalidDigest(MlpackError, ValueError):
    """A text that is not ``sha256:`` and 64 lower-case hex digits."""


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """The sha256 of some bytes.

    :meth:`parse` refuses other algorithms: no registry or engine in use needs them.
    """

    hex: str
    """64 lower-case hex digits."""

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``sha256:…``; raise :class:`InvalidDigest` for anything else."""
        found = _SHA256.fullmatch(text)
        if other := _OTHER_DIGEST.fullmatch(text):
            raise InvalidDigest(
                f"{text!r} is a digest of {other[1]}, and mlpack takes sha256 only",
                hint="name it by its tag, or by its sha256",
            )
        if found is None:
            raise InvalidDigest(f"{text!r} is not a digest (sha256: and 64 hex digits)")
        return cls(found[1])

    @classmethod
    def from_json(cls, node: Node) -> Digest:
        """Read a member of a document; raise :class:`InvalidContent` with its path."""
        try:
            return cls.parse(node.text())
        except InvalidDigest as error:
            raise InvalidContent(node.where, str(error)) from error

    @classmethod
    def of(cls, content: bytes) -> Digest:
        """Hash ``content``.

        >>> Digest.of(b"").short
        'e3b0c44298fc'
        """
        return cls(hashlib.sha256(content).hexdigest())

    @property
    def short(self) -> str:
        """The first 12 hex digits, as engines show them."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


class Writable(Protocol):
    """Accepts bytes."""

    def write(self, data: bytes, /) -> object:
        """Write the next bytes."""
        ...


class Hashed(Writable, Protocol):
    """Accepts bytes, and knows the digest and the number of all it has accepted."""

    @property
    def digest(self) -> Digest:
        """The digest of the bytes written so far."""
        ...

    @property
    def size(self) -> int:
        """How many bytes were written so far."""
        ...


class Hashing:
    """Hashes and counts what is written, and passes it on to ``out``."""

    def __init__(self, out: Writable) -> None:
        self._out = out
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes, /) -> None:
        """Write the next bytes."""
        self._hash.update(data)
        self._size += len(data)
        self._out.write(data)

    @property
    def digest(self) -> Digest:
        """The digest of the bytes written so far."""
        return Digest(self._hash.hexdigest())

    @property
    def size(self) -> int:
        """How many bytes were written so far."""
        return self._size


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
DOCKER_LAYER_TAR = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"

MANIFESTS = frozenset({MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({INDEX, DOCKER_INDEX})
CONFIGS = frozenset({CONFIG, DOCKER_CONFIG})
TAR_LAYERS = frozenset({LAYER_TAR, DOCKER_LAYER_TAR})
GZIP_LAYERS = frozenset({LAYER_GZIP, DOCKER_LAYER_GZIP})
ZSTD_LAYERS = frozenset({LAYER_ZSTD, DOCKER_LAYER_ZSTD})

_OS = re.compile(r"([A-Za-z0-9_-]+)(?:\(([^()+/]*)((?:\+[^()+/]+)*)\))?")
_WORD = re.compile(r"[A-Za-z0-9_.-]+")
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
"""Other names of architectures, and the variants that they mean."""


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """An operating system and an architecture, by Go's names (``linux/arm64``).

    Which image a device of a platform takes is in :mod:`mlpack.oci.platforms`.
    """

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    """Of Windows, the build."""

    os_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``linux/amd64``, ``linux/arm/v7`` or ``windows(10.0.17763)/amd64``.

        >>> str(Platform.parse("linux/arm/v7"))
        'linux/arm/v7'
        """
        first, *parts = text.split("/")
        os = _OS.fullmatch(first)
        if os is None or not 1 <= len(parts) <= 2 or not all(map(_WORD.fullmatch, parts)):
            raise UsageError(
                f"{text!r} is not a platform",
                hint="write it as linux/amd64, linux/arm64 or linux/arm/v7",
            )
        features = tuple((os[3] or "").split("+")[1:])
        variant = parts[1] if len(parts) == 2 else ""
        return cls(os[1], parts[0], variant, os[2] or "", features).normal()

    @classmethod
    def from_json(cls, node: Node) -> Platform:
        """Read the ``platform`` member of an index entry, or an image config."""
        variant, version, features = map(node.get, ("variant", "os.version", "os.features"))
        return cls(
            node.need("os").text(),
            node.need("architecture").text(),
            variant.text() if variant else "",
            version.text() if version else "",
            features.texts() if features else (),
        )

    def normal(self) -> Platform:
        """Return it by the names that Go and engines have for it; a variant stays as it is."""
        name = self.architecture.lower()
        architecture, variant = _ARCHITECTURES.get(name, (name, ""))
        os, written = self.os.lower(), self.variant.lower()
        if architecture in ("arm", "arm64") and written[:1].isdigit():
            written = f"v{written}"
        return replace(
            self,
            os={"macos": "darwin"}.get(os, os),
            architecture=architecture,
            variant=written or variant,
        )

    def to_json(self) -> dict[str, object]:
        """Return the ``platform`` member of an index entry."""
        value: dict[str, object] = {"architecture": self.architecture, "os": self.os}
        if self.os_features:
            value["os.features"] = list(self.os_features)
        if self.os_version:
            value["os.version"] = self.os_version
        return value | ({"variant": self.variant} if self.variant else {})

    def __str__(self) -> str:
        more = "+".join([self.os_version, *self.os_features])
        parts = (f"{self.os}({more})" if more else self.os, self.architecture, self.variant)
        return "/".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What identifies some bytes: media type, digest and size in bytes.

    Two descriptors are equal if these three are; annotations and platform describe the reference,
    not the bytes.
    """

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)
    platform: Platform | None = field(default=None, compare=False)
    artifact_type: str = field(default="", compare=False)

    @classmethod
    def of(cls, content: bytes, media_type: str) -> Descriptor:
        """Return the descriptor of ``content``."""
        return cls(media_type, Digest.of(content), len(content))

    @classmethod
    def from_json(cls, node: Node) -> Descriptor:
        """Read a descriptor; raise :class:`InvalidContent` with its path."""
        annotations = node.get("annotations")
        platform = node.get("platform")
        artifact_type = node.get("artifactType")
        return cls(
            node.need("mediaType").text(),
            Digest.from_json(node.need("digest")),
            node.need("size").integer(),
            annotations.text_map() if annotations else {},
            _listed_platform(platform) if platform else None,
            artifact_type.text() if artifact_type else "",
        )

    def to_json(self) -> dict[str, object]:
        """Return the JSON value; empty members are left out."""
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


def _listed_platform(node: Node) -> Platform | None:
    """Read an entry's platform; one that names no system or no architecture says nothing."""
    found = (node.get(key) for key in ("os", "architecture"))
    return Platform.from_json(node) if all(each and each.value for each in found) else None


WHITEOUT = ".wh."


@dataclass(frozen=True, slots=True)
class Reference:
    """Where an image is; the grammar and the names of Docker Hub: :mod:`mlpack.oci.reference`."""

    registry: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference; raise :class:`~mlpack.oci.reference.InvalidReference`.

        >>> Reference.parse("localhost:5000/edge/fan:3").repository
        'edge/fan'
        >>> str(Reference.parse("docker.io/alpine"))
        'docker.io/library/alpine'
        """
        registry, repository, tag, digest_text = split(text)
        try:
            digest = Digest.parse(digest_text) if digest_text else None
        except InvalidDigest as error:
            raise InvalidReference(f"{text!r}: {error}", hint=error.hint) from error
        return cls(registry, repository, tag, digest)

    @classmethod
    def parse_repository(cls, text: str) -> Reference:
        """Read a reference that names a repository only: no tag, no digest."""
        found = cls.parse(text)
        if found.tag or found.digest:
            raise InvalidReference(
                f"{text!r} has a tag or digest, but every release has its own",
                hint=f"write {found.name}",
            )
        return found

    @property
    def name(self) -> str:
        """Registry and repository, without tag or digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def host(self) -> str:
        """The host, and port, that answers for the registry."""
        return host_of(self.registry)

    def pinned(self, digest: Digest) -> Reference:
        """Return the repository at ``digest``, without a tag: edgeAgent refuses both at once."""
        return replace(self, tag="", digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}{f'@{self.digest}' if self.digest else ''}"


class UnsafeEntry(MlpackError, ValueError):
    """A path, link or file type that must not be in a layer."""


def check_path(path: str) -> None:
    """Raise :class:`UnsafeEntry` unless ``path`` is relative, clean and cannot leave the tree."""
    if "\\" in path:
        raise UnsafeEntry(f"{path!r} is not a relative path")
    check_clean(path)
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise UnsafeEntry(f"{path!r} is not UTF-8") from error


def check_clean(path: str) -> None:
    """As :func:`check_path`, for names of other images: they need not be UTF-8."""
    parts = path.split("/")
    if not path or path.startswith("/") or "\0" in path:
        raise UnsafeEntry(f"{path!r} is not a relative path")
    if any(part in ("", ".", "..") for part in parts):
        raise UnsafeEntry(f"{path!r} has an empty, '.' or '..' part")
    if any(part.startswith(WHITEOUT) for part in parts):
        raise UnsafeEntry(f"{path!r} looks like a whiteout: engines would delete a file")
