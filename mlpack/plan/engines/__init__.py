"""How a container engine decides what to fetch, and what its requests weigh: one file per engine.

Measured on Docker 20.10.24 (overlay2), containerd 1.6.20 (``ctr``, overlayfs) and
podman 4.3.1 (overlay), each from Debian 12, against docker-registry 2.8.2, with a
proxy that counted every request. Other releases differ: containerd 2 skips layers
whose unpacked chain is there, and Docker with the containerd store follows
containerd. A rule here is a fact about the version in :attr:`EngineRule.measured`.

Every number is a count of TCP payload bytes between the engine and a registry at
``127.0.0.1:5000``, with a repository name of 6 letters. Each further letter of either adds one
byte per request (:class:`Link`).

Each module of this package defines ``ENGINE``, an :class:`EngineRule` of the module's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Literal

from mlpack.errors import UsageError
from mlpack.humanize import nearest
from mlpack.kinds import ENGINE_ALIASES, ENGINES
from mlpack.oci.descriptor import Descriptor, Digest, Reference
from mlpack.oci.image import Image, Index, Layer
from mlpack.oci.unpacking import LayerFacts
from mlpack.plan.refusals import ImageSupport, Refusal, image_refusals, index_refusals
from mlpack.settings.project_settings import DeviceSettings

Part = Literal["manifest", "config", "layers", "headers"]

DIGEST_BYTES = 71
"""Length of ``sha256:`` and 64 digits, in place of a tag in a URL."""

PER_CONNECTION: Mapping[str, int] = {"none": 0, "ec": 1238, "ec-chain": 2763, "rsa-chain": 3998}
"""TLS 1.3 bytes per connection by the registry's certificates, without resumption.

Handshake, framing of one exchange in two records, and close_notify: an EC leaf alone,
an EC leaf and intermediate, an RSA-2048 leaf and intermediate. No engine resumes.
"""

CHAIN_BYTES: Mapping[str, int] = {"none": 0, "ec": 502, "ec-chain": 2023, "rsa-chain": 3072}
"""DER bytes of the certificates in these measurements."""

SERVER_NAME = 9
"""What the TLS hello's server_name extension adds to a host's name (RFC 6066, section 3)."""

RECORD_BYTES, RECORD_OVERHEAD = 16_384, 22
"""Largest TLS record, and its overhead (header, type and tag)."""

FIRST_RECORD_BYTES, LARGE_RECORDS_FROM = 1186, 131_072
"""Go's TLS, which registries use, starts a connection with a record of this size, the next is
twice as long, and so on; from the second number on all are the largest."""

FIRST_WRITE, COPIED = 4096, 32_768
"""Bytes that its HTTP server writes at a time: first, and then."""

MEASURED_HOST, MEASURED_REPOSITORY = 14, 6
"""Letters of the address and the repository in :class:`EngineWire`."""

KEPT_ALIVE = 2 * RECORD_OVERHEAD
"""TLS framing of one more exchange on an open connection, in two records."""

BEARER = len("Authorization: Bearer \r\n")
"""Length of the header around a token."""


class InvalidLink(UsageError):
    """Settings of a link to the registry that mlpack has not measured."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """The connection between a device and its registry, as far as it costs bytes."""

    tls: str = "ec-chain"
    """A key of :data:`PER_CONNECTION`; ``none`` is plain HTTP."""

    token_bytes: int = 0
    """Length of the bearer token; 0 if pulls need none."""

    by_digest: bool = True
    """Whether the deployment names a digest, as mlpack's do, or a tag."""

    tag_bytes: int = 2
    """Length of that tag."""

    registry: str = ""
    """Host and port as in a reference; empty for the measured ones."""

    repository: str = ""
    """The repository's name; empty for one as long as the measured one."""

    certificate_bytes: int = 0
    """DER bytes of the certificates the registry sends; 0 for the measured ones."""

    connections: int = 0
    """How many connections containerd opens; 0 for one per blob and one more."""

    def __post_init__(self) -> None:
        if self.tls not in PER_CONNECTION:
            raise InvalidLink(
                f"{self.tls!r} is not a kind of certificate [device] tls can name",
                hint=f"one of: {', '.join(PER_CONNECTION)}",
            )
        if self.token_bytes < 0 or self.tag_bytes < 1:
            raise InvalidLink("the length of a token or a tag cannot be negative")

    @classmethod
    def of(cls, device: DeviceSettings, repository: Reference | None = None) -> Link:
        """Read the link from ``[device]`` in mlpack.toml; deployments pin digests."""
        link = cls(
            tls=device.tls,
            token_bytes=device.token_bytes,
            certificate_bytes=device.certificate_bytes,
        )
        if repository is None:
            return link
        return replace(link, registry=repository.host, repository=repository.repository)

    @property
    def host_letters(self) -> int:
        """Bytes by which a request is longer than a measured one due to the registry's name."""
        return len(self.registry) - MEASURED_HOST if self.registry else 0

    @property
    def name_letters(self) -> int:
        """As :attr:`host_letters`, including the repository's name."""
        repository = len(self.repository) - MEASURED_REPOSITORY if self.repository else 0
        return self.host_letters + repository

    @property
    def server_name(self) -> int:
        """Bytes of the server name in the TLS hello; an IP address has none."""
        host = self.registry.rpartition(":")[0] or self.registry
        if not host or host.startswith("[") or host.replace(".", "").isdigit():
            return 0
        return SERVER_NAME + len(host)

    @property
    def connection(self) -> int:
        """TLS bytes per connection."""
        if self.tls == "none":
            return 0
        chain = self.certificate_bytes - CHAIN_BYTES[self.tls] if self.certificate_bytes else 0
        return PER_CONNECTION[self.tls] + chain + self.server_name

    def __str__(self) -> str:
        certificates = {
            "none": "plain HTTP",
            "ec": "TLS 1.3 with an EC certificate",
            "ec-chain": "TLS 1.3 with an EC certificate and its intermediate",
            "rsa-chain": "TLS 1.3 with an RSA certificate and its intermediate",
        }
        token = f"a bearer token of {self.token_bytes} bytes" if self.token_bytes else "no token"
        return (
            f"pulled by {'digest' if self.by_digest else 'tag'}, {certificates[self.tls]}, {token}"
        )


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its response on the wire; sizes in bytes."""

    what: str
    request: int
    response: int
    """Status line and headers of the response."""

    body: int = 0
    part: Part = "headers"
    """The part of a transfer that the body counts as."""

    authorized: bool = True
    """Whether it carries the token, if there is one."""


@dataclass(frozen=True, slots=True)
class Headers:
    """Header bytes of one kind of request by digest, and of its response.

    Without what follows from the content: the digits of ``Content-Length``, the media type in the
    response with a manifest, and the one containerd requests.
    """

    request: int
    response: int


@dataclass(frozen=True, kw_only=True)
class TokenCost:
    """What bearer tokens add to a pull."""

    fetches: int
    """Tokens fetched in a pull that fetches a manifest; one if nothing is new."""

    fixed: int
    """Header bytes per fetch, including those of the refused request before it."""

    requests: int
    """Additional requests per fetch, compared with a pull without tokens."""


COPIES = 2
"""The token server returns the token twice, as ``token`` and ``access_token``."""


@dataclass(frozen=True, kw_only=True)
class EngineWire:
    """The measured header sizes of one engine, and how it uses connections."""

    probe: int
    """Bytes of the TLS hello that fails on a plain-HTTP registry."""

    ping: Headers | None
    """``GET /v2/``, answered with ``{}``; its sizes are complete."""

    head: Headers | None
    manifest: Headers
    blob: Headers
    accepts_one_type: bool
    """Whether ``Accept`` names the descriptor's media type instead of all known ones."""

    keeps_connections: bool
    token: TokenCost

    def ask_ping(self, link: Link) -> list[Exchange]:
        """Return the ``GET /v2/``, if the engine sends one."""
        if self.ping is None:
            return []
        request = self.ping.request + link.host_letters
        return [Exchange("ping", request, self.ping.response, 2, authorized=False)]

    def ask_head(self, target: Descriptor, link: Link) -> list[Exchange]:
        """Return the ``HEAD`` of the manifest or index that the deployment names."""
        if self.head is None:
            return []
        request = self.head.request - _shorter(link) + link.name_letters
        return [Exchange("head", request, self.head.response + _described(target))]

    def ask_manifest(self, target: Descriptor, link: Link, *, named: bool = False) -> Exchange:
        """Return the ``GET`` of a manifest or index; ``named`` if the deployment names it."""
        request = self.manifest.request + self._accept(target) + link.name_letters
        request -= _shorter(link) if named else 0
        response = self.manifest.response + _described(target)
        return Exchange("manifest", request, response, target.size, "manifest")

    def ask_blob(self, target: Descriptor, part: Part, link: Link) -> Exchange:
        """Return the ``GET`` of a config or a layer."""
        request = self.blob.request + self._accept(target) + link.name_letters
        response = self.blob.response + len(str(target.size))
        return Exchange(part, request, response, target.size, part)

    def _accept(self, target: Descriptor) -> int:
        return len(target.media_type) if self.accepts_one_type else 0


def framing(exchanges: Iterable[Exchange]) -> int:
    """Return the TLS framing of responses without the first record, part of the connection."""
    return RECORD_OVERHEAD * sum(records(each.response + each.body) - 1 for each in exchanges)


def records(length: int) -> int:
    """Return how many TLS records a Go server writes for a response of ``length`` bytes.

    Records do not span its writes: 4 KB first, then what ``io.Copy`` reads.

    >>> records(1000), records(6000), records(10_000_000)
    (1, 4, 619)
    """
    count = sent = 0
    written = FIRST_WRITE
    while sent < length and sent < LARGE_RECORDS_FROM:
        count += 1
        sent = min(sent + min(FIRST_RECORD_BYTES * count, RECORD_BYTES), written, length)
        written += COPIED if sent == written else 0
    return max(1, count + -(-(length - sent) // RECORD_BYTES))


def _shorter(link: Link) -> int:
    return 0 if link.by_digest else DIGEST_BYTES - link.tag_bytes


def _described(target: Descriptor) -> int:
    return len(str(target.size)) + len(target.media_type)


LayerAction = Literal["reuse", "fetch"]


class UnknownEngine(UsageError):
    """A name of no engine that mlpack has measured."""


@dataclass(frozen=True, kw_only=True)
class DeviceState:
    """What an engine has on a device already; nothing on a new device."""

    manifests: frozenset[Digest] = frozenset()
    """Manifests and indexes kept as pulled."""

    configs: frozenset[Digest] = frozenset()
    digests: frozenset[Digest] = frozenset()
    """Layer blobs it has, by the digest they were fetched under."""

    diff_ids: frozenset[Digest] = frozenset()
    chain_ids: frozenset[Digest] = frozenset()
    seen: frozenset[Digest] = frozenset()
    """Layer blobs ever pulled: moby and podman remember each one's diff id."""

    @classmethod
    def holding(
        cls,
        *images: Image,
        indexes: Iterable[Index] = (),
        removed: Iterable[Image] = (),
    ) -> DeviceState:
        """Return the state of a device that has pulled and unpacked ``images``.

        ``indexes`` are the indexes they were pulled by, ``removed`` are images that were pulled
        before and deleted since.
        """
        layers = [layer for image in images for layer in image.layers]
        gone = [layer for image in removed for layer in image.layers]
        return cls(
            manifests=frozenset(
                [image.digest for image in images] + [index.digest for index in indexes]
            ),
            configs=frozenset(image.config_descriptor.digest for image in images),
            digests=frozenset(layer.digest for layer in layers),
            diff_ids=frozenset(layer.diff_id for layer in layers),
            chain_ids=frozenset(chain for image in images for chain in image.chain_ids),
            seen=frozenset(layer.digest for layer in [*layers, *gone]),
        )

    @classmethod
    def loaded(cls, *images: Image) -> DeviceState:
        """Return the state of a device that got ``images`` from a ``docker save`` file.

        It has their content, unpacked, but none of their digests in a registry: the next pull
        fetches every layer. Measured on all three engines.
        """
        return cls(
            configs=frozenset(image.config_descriptor.digest for image in images),
            diff_ids=frozenset(layer.diff_id for image in images for layer in image.layers),
            chain_ids=frozenset(chain for image in images for chain in image.chain_ids),
        )


@dataclass(frozen=True, slots=True)
class LayerStep:
    """What a pull does with one layer, and why."""

    layer: Layer
    action: LayerAction
    why: str

    @property
    def bytes(self) -> int:
        """The bytes that cross the network for it."""
        return self.layer.size if self.action == "fetch" else 0

    def json_members(self) -> Mapping[str, object]:
        """Return an element of a diff's ``layers``; ``bytes`` is the blob's size in any case."""
        size = self.layer.size
        return {"digest": self.layer.digest, "bytes": size, "action": self.action, "why": self.why}


@dataclass(frozen=True, kw_only=True)
class PullScenario:
    """An image that a device in some state pulls."""

    image: Image
    index: Index | None = None
    """The index that the deployment names, if it names one."""

    state: DeviceState = field(default_factory=DeviceState)
    link: Link = field(default_factory=Link)

    @property
    def known(self) -> bool:
        """Whether the device has the image or index that the deployment names."""
        return (self.index or self.image).digest in self.state.manifests


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRule:
    """How an engine loads an image from a file."""

    command: str
    """What the device runs; ``{file}`` is the file."""

    refusal: str
    """Part of its error message if the device lacks a layer that the file leaves out."""

    unpacks: bool = False
    """Whether it takes plain layer tars as ``docker save`` writes them, and skips those whose chain
    id it has unpacked; otherwise it takes an OCI layout, and skips the blobs it has."""

    gzip: Literal["never", "small", "always"] = "never"
    """Whether the whole file may be gzip: never, only if its layers are small, or always."""


Rule = Callable[[Image, DeviceState], tuple[LayerStep, ...]]
Requests = Callable[[EngineWire, PullScenario, tuple[LayerStep, ...]], Iterator[Exchange]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRule:
    """A container engine: what it fetches, what that costs, and how it loads a file."""

    name: str
    measured: str
    """The version whose rule it is."""

    steps: Rule
    """Returns one step per layer of an image, bottom first, for a device in a state."""

    wire: EngineWire
    requests: Requests
    """The requests of a pull without a token, in the engine's order."""

    load: LoadRule
    support: ImageSupport = field(default_factory=ImageSupport)
    """What it pulls and unpacks at all."""

    def refusals(
        self, image: Image, index: Index | None = None, facts: Sequence[LayerFacts] = ()
    ) -> tuple[Refusal, ...]:
        """Return why it does not take ``image``, pulled by ``index`` if any; empty if it does.

        ``facts`` are those of the image's layers, bottom first, for its way of unpacking.
        """
        found = tuple(image_refusals(self.measured, self.support, image, facts))
        named = index_refusals(self.measured, self.support, index, image) if index else ()
        return (*named, *found)


def engine(name: str) -> EngineRule:
    """Return the engine called ``name``; raise :class:`UnknownEngine`.

    >>> engine("docker").name, engine("moby").measured
    ('moby', 'Docker 20.10.24')
    """
    module = ENGINE_ALIASES.get(name, name)
    if module not in ENGINES:
        close = nearest(name, (*ENGINES, *ENGINE_ALIASES))
        hint = f"one of: {', '.join(ENGINES)}"
        raise UnknownEngine(f"{name!r} is not an engine{close}", hint=hint)
    found: EngineRule = import_module(f"{__name__}.{module}").ENGINE
    return found


def new_content(layer: Layer, state: DeviceState) -> str:
    """Return why a layer that the device does not know by this digest is fetched."""
    if layer.diff_id in state.diff_ids:
        return (
            "its content is held, but under another digest"
            if state.seen
            else "its content is held, but was loaded and not pulled: its digest is not known"
        )
    return "not on the device"


def once(steps: Iterable[LayerStep]) -> tuple[LayerStep, ...]:
    """Fetch a blob listed twice once, as moby and containerd do, which key downloads by digest."""
    fetched: set[Digest] = set()
    result = []
    for step in steps:
        if step.action == "fetch" and step.layer.digest in fetched:
            step = LayerStep(step.layer, "reuse", "the same blob as a layer below")
        elif step.action == "fetch":
            fetched.add(step.layer.digest)
        result.append(step)
    return tuple(result)


def missing_content(
    wire: EngineWire, pull: PullScenario, steps: tuple[LayerStep, ...]
) -> Iterator[Exchange]:
    """Yield the requests for the manifests, the config and the layers that the device lacks."""
    image, held, config = pull.image, pull.state, pull.image.config_descriptor
    if not pull.known:
        yield wire.ask_manifest((pull.index or image).descriptor, pull.link)
    if pull.index and image.digest not in held.manifests:
        yield wire.ask_manifest(image.descriptor, pull.link)
    if config.digest not in held.configs:
        yield wire.ask_blob(config, "config", pull.link)
    yield from fetched_layers(wire, steps, pull.link)


def fetched_layers(
    wire: EngineWire, steps: tuple[LayerStep, ...], link: Link
) -> Iterator[Exchange]:
    """Yield a request for each layer that is fetched."""
    for step in steps:
        if step.action == "fetch":
            yield wire.ask_blob(step.layer.descriptor, "layers", link)
