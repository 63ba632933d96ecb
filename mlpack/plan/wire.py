"""The requests of a pull, and what each weighs: constants measured, sequences observed.

Every number is a count of TCP payload bytes taken by a proxy between the engines
of :mod:`mlpack.plan.engines` and docker-registry 2.8.2 at ``127.0.0.1:5000`` with a
repository name of 6 letters. Each letter more of either adds one byte per request,
and :class:`Link` says how many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from mlpack.errors import UsageError
from mlpack.model.recipe import DeviceRecipe
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.reference import Reference

Part = Literal["manifest", "config", "layers", "headers"]

DIGEST_BYTES = 71
"""Length of ``sha256:`` and 64 digits, where a tag could stand in a URL."""

PER_CONNECTION: Mapping[str, int] = {"none": 0, "ec": 1238, "ec-chain": 2763, "rsa-chain": 3998}
"""TLS 1.3 bytes per connection by the registry's certificates, without resumption.

Handshake, framing of one exchange in two records, and close_notify: an EC leaf alone,
an EC leaf and intermediate, an RSA-2048 leaf and intermediate. No engine resumes.
"""

CHAIN_BYTES: Mapping[str, int] = {"none": 0, "ec": 502, "ec-chain": 2023, "rsa-chain": 3072}
"""DER bytes of the certificates sent in these measurements."""

SERVER_NAME = 9
"""What the TLS hello's server_name extension adds to a host's name (RFC 6066, section 3)."""

RECORD_BYTES, RECORD_OVERHEAD = 16_384, 22
"""Largest TLS record, and what one adds to its content (header, type and tag)."""

FIRST_RECORD_BYTES, LARGE_RECORDS_FROM = 1186, 131_072
"""Go's TLS, which registries are written with, starts a connection with a record of this size,
the next twice as long, and so on; from the second number on all are the largest."""

FIRST_WRITE, COPIED = 4096, 32_768
"""Bytes its HTTP server writes at a time, at first and then."""

MEASURED_HOST, MEASURED_REPOSITORY = 14, 6
"""Letters of the address and the repository in :data:`WIRES`."""

KEPT_ALIVE = 2 * RECORD_OVERHEAD
"""TLS framing of one more exchange on an open connection, in two records."""

BEARER = len("Authorization: Bearer \r\n")
"""What the header around a token weighs."""


class InvalidLink(UsageError):
    """Settings of the way to the registry that describe none mlpack has measured."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """What lies between a device and its registry, as far as it costs bytes."""

    tls: str = "ec-chain"
    """A key of :data:`PER_CONNECTION`; ``none`` is plain HTTP."""

    token_bytes: int = 0
    """Length of the bearer token; 0 where pulls need none."""

    by_digest: bool = True
    """Whether the deployment names a digest, as mlpack's do, or a tag."""

    tag_bytes: int = 2
    """Length of that tag."""

    registry: str = ""
    """Host and port as a reference writes them; the measured ones where empty."""

    repository: str = ""
    """The repository's name; one as long as the measured one where empty."""

    certificate_bytes: int = 0
    """DER bytes of the certificates the registry sends; the measured ones where 0."""

    connections: int = 0
    """How many connections containerd opens; one for each blob and one more where 0."""

    def __post_init__(self) -> None:
        if self.tls not in PER_CONNECTION:
            raise InvalidLink(
                f"{self.tls!r} is not a kind of certificate [device] tls can name",
                hint=f"one of: {', '.join(PER_CONNECTION)}",
            )
        if self.token_bytes < 0 or self.tag_bytes < 1:
            raise InvalidLink("a token or a tag cannot be shorter than nothing")

    @classmethod
    def of(cls, device: DeviceRecipe, repository: Reference | None = None) -> Link:
        """The link ``[device]`` in mlpack.toml describes; deployments pin digests."""
        link = cls(
            tls=device.tls,
            token_bytes=device.token_bytes,
            certificate_bytes=device.certificate_bytes,
        )
        if repository is None:
            return link
        return replace(link, registry=repository.registry, repository=repository.repository)

    @property
    def host_letters(self) -> int:
        """Bytes a request is longer than a measured one because of the registry's name."""
        return len(self.registry) - MEASURED_HOST if self.registry else 0

    @property
    def name_letters(self) -> int:
        """As :attr:`host_letters`, with the repository's name."""
        repository = len(self.repository) - MEASURED_REPOSITORY if self.repository else 0
        return self.host_letters + repository

    @property
    def server_name(self) -> int:
        """Bytes the TLS hello names the registry with; an address is not named."""
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
    """One request and its answer on the wire; sizes in bytes."""

    what: str
    request: int
    response: int
    """Status line and headers of the answer."""

    body: int = 0
    part: Part = "headers"
    """Which part of a transfer the body counts as."""

    authorized: bool = True
    """Whether it carries the token, where there is one."""


@dataclass(frozen=True, slots=True)
class Headers:
    """Header bytes of one kind of request by digest, and of its answer.

    Left out is what follows from the content: the digits of ``Content-Length``, the
    media type an answer with a manifest names, and the one containerd asks for.
    """

    request: int
    response: int


@dataclass(frozen=True, kw_only=True)
class TokenCost:
    """What getting bearer tokens adds to a pull."""

    fetches: int
    """Tokens fetched in a pull that fetches a manifest; one where nothing is new."""

    fixed: int
    """Header bytes per fetch, with those of the refused request before it."""

    requests: int
    """Requests per fetch beyond those of a pull without token."""


COPIES = 2
"""The token server's answer holds the token twice, as ``token`` and ``access_token``."""


@dataclass(frozen=True, kw_only=True)
class Wire:
    """The measured header sizes of one engine, and how it uses connections."""

    probe: int
    """Bytes of the TLS hello that fails on a plain-HTTP registry."""

    ping: Headers | None
    """``GET /v2/``, answered with ``{}``; its sizes are whole."""

    head: Headers | None
    manifest: Headers
    blob: Headers
    accepts_one_type: bool
    """Whether ``Accept`` names the descriptor's media type, and not all the engine knows."""

    keeps_connections: bool
    token: TokenCost

    def ask_ping(self, link: Link) -> list[Exchange]:
        """``GET /v2/``, where the engine sends one."""
        if self.ping is None:
            return []
        request = self.ping.request + link.host_letters
        return [Exchange("ping", request, self.ping.response, 2, authorized=False)]

    def ask_head(self, target: Descriptor, link: Link) -> list[Exchange]:
        """``HEAD`` of the manifest or index the deployment names."""
        if self.head is None:
            return []
        request = self.head.request - _shorter(link) + link.name_letters
        return [Exchange("head", request, self.head.response + _described(target))]

    def ask_manifest(self, target: Descriptor, link: Link, *, named: bool = False) -> Exchange:
        """``GET`` of a manifest or index; ``named`` where it is what the deployment names."""
        request = self.manifest.request + self._accept(target) + link.name_letters
        request -= _shorter(link) if named else 0
        response = self.manifest.response + _described(target)
        return Exchange("manifest", request, response, target.size, "manifest")

    def ask_blob(self, target: Descriptor, part: Part, link: Link) -> Exchange:
        """``GET`` of a config or a layer."""
        request = self.blob.request + self._accept(target) + link.name_letters
        response = self.blob.response + len(str(target.size))
        return Exchange(part, request, response, target.size, part)

    def _accept(self, target: Descriptor) -> int:
        return len(target.media_type) if self.accepts_one_type else 0


WIRES: Mapping[str, Wire] = {
    "moby": Wire(
        probe=326,
        ping=Headers(249, 188),
        head=Headers(638, 333),
        manifest=Headers(660, 333),
        blob=Headers(333, 412),
        accepts_one_type=False,
        keeps_connections=False,
        token=TokenCost(fetches=1, fixed=686, requests=1),
    ),
    "containerd": Wire(
        probe=0,
        ping=None,
        head=Headers(378, 314),
        manifest=Headers(204, 314),
        blob=Headers(200, 393),
        accepts_one_type=True,
        keeps_connections=True,
        # 1,972 bytes were measured for both fetches together; that each costs half is assumed.
        token=TokenCost(fetches=2, fixed=986, requests=2),
    ),
    "podman": Wire(
        probe=330,
        ping=Headers(193, 188),
        head=None,
        manifest=Headers(640, 333),
        blob=Headers(277, 412),
        accepts_one_type=False,
        keeps_connections=False,
        token=TokenCost(fetches=1, fixed=583, requests=1),
    ),
}
"""By engine name."""


def framing(exchanges: Iterable[Exchange]) -> int:
    """TLS framing of answers longer than one record; the first is in the connection's cost."""
    return RECORD_OVERHEAD * sum(records(each.response + each.body) - 1 for each in exchanges)


def records(length: int) -> int:
    """How many TLS records a Go server makes of an answer of ``length`` bytes.

    Records do not cross its writes: 4 KB first, then what ``io.Copy`` reads.

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
