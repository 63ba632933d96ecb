"""How an image in a registry is written: the parts of a reference, and why a text is none.

The grammar is that of distribution/reference, and so are the names of Docker Hub:
``index.docker.io`` is ``docker.io``, and a repository there of one word is in ``library``. Unlike
there, no registry is assumed: a bare ``alpine`` is refused, and the hint writes it out.
"""

from __future__ import annotations

import ipaddress
import re

from mlpack.errors import UsageError

HUB = "docker.io"
"""Docker Hub, as references name it."""

_HUB_HOST = "registry-1.docker.io"
_HUB_NAMES = frozenset({HUB, _HUB_HOST, "index.docker.io"})
_SCHEME = "docker://"
"""How skopeo and podman mark a registry; left out here."""

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LONGEST_REPOSITORY = 255
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_PORT = re.compile(r"[0-9]{1,5}")

_TO_LAYOUT = "copy it to a layout first: skopeo copy {} oci:DIR:TAG"
FOREIGN = {
    "atomic": _TO_LAYOUT,
    "containers-storage": "save it first: podman save --format oci-archive IMAGE -o FILE; "
    "then write oci-archive:FILE",
    "dir": _TO_LAYOUT,
    "docker-daemon": "save it first: docker save IMAGE -o FILE; then write docker-archive:FILE",
    "ostree": _TO_LAYOUT,
    "sif": _TO_LAYOUT,
    "tarball": _TO_LAYOUT,
}
"""Prefixes of skopeo and podman for what mlpack does not read, and what to do instead."""


class InvalidReference(UsageError):
    """A text that is not an image reference."""

    hint = "write it as registry.example.com/team/model:tag or …@sha256:…"


def split(text: str) -> tuple[str, str, str, str]:
    """Return registry, repository, tag and digest of ``text``; raise :class:`InvalidReference`.

    The last two may be empty; the digest is not checked.

    >>> split("docker://docker.io/alpine:3.20")
    ('docker.io', 'library/alpine', '3.20', '')
    """
    name, at, digest = text.removeprefix(_SCHEME).partition("@")
    registry, _, rest = name.partition("/")
    repository, colon, tag = rest.partition(":")
    _check_registry(text, registry if rest else "")
    _check_repository(text, registry, repository)
    if colon and not _TAG.fullmatch(tag):
        raise InvalidReference(f"{text!r}: {tag!r} is not a tag")
    if at and not digest:
        raise InvalidReference(f"{text!r} lacks a digest after its @")
    registry = registry_of(registry)
    if registry == HUB and "/" not in repository:
        repository = f"library/{repository}"
    return registry, repository, tag, digest


def registry_of(host: str) -> str:
    """Return the registry at ``host``, as references name it.

    >>> registry_of("index.docker.io"), registry_of("r.example.com:5000")
    ('docker.io', 'r.example.com:5000')
    """
    return HUB if host.lower() in _HUB_NAMES else host


def host_of(registry: str) -> str:
    """Return the host, and port, that answers for ``registry``.

    >>> host_of("docker.io")
    'registry-1.docker.io'
    """
    return _HUB_HOST if registry == HUB else registry


def on_hub(text: str) -> str:
    """Return the image of Docker Hub that Docker reads in ``text``; empty if it names a registry.

    >>> on_hub("python:3.11-slim"), on_hub("bitnami/redis"), on_hub("r.example.com/a")
    ('docker.io/library/python:3.11-slim', 'docker.io/bitnami/redis', '')
    """
    written = text.removeprefix(_SCHEME)
    first, slash, _ = written.partition("/")
    if (slash and _is_host(first)) or foreign(text):
        return ""
    try:
        registry, repository, tag, digest = split(f"{HUB}/{written}")
    except InvalidReference:
        return ""
    return f"{registry}/{repository}{tag and ':'}{tag}{digest and '@'}{digest}"


def foreign(text: str) -> str:
    """Return what to do instead if ``text`` has another tool's prefix; empty if it has none.

    >>> foreign("dir:/tmp/image")
    'copy it to a layout first: skopeo copy dir:/tmp/image oci:DIR:TAG'
    """
    kind, colon, rest = text.partition(":")
    if rest.startswith("//") and kind != "docker":
        return f"leave out {kind}://"
    return FOREIGN[kind].format(text) if colon and kind in FOREIGN else ""


def _is_host(text: str) -> bool:
    """Whether Docker takes this first part of a name for a host, and not for a user of the Hub."""
    return "." in text or ":" in text or text == "localhost"


def _check_registry(text: str, registry: str) -> None:
    """Raise unless ``registry`` is ``HOST``, ``HOST:PORT`` or the same with ``[IPV6]``."""
    if other := foreign(text):
        raise InvalidReference(f"{text!r} is not in a registry", hint=other)
    if not _is_host(registry):
        hub = on_hub(text)
        hint = f"write the registry, too; Docker Hub's image is {hub}" if hub else ""
        if registry:
            raise InvalidReference(
                f"{text!r} names no registry ({registry!r} is not a host)", hint=hint
            )
        raise InvalidReference(f"{text!r} names no registry", hint=hint)
    host, colon, port = registry.rpartition(":") if "]" not in registry else _of_ipv6(registry)
    if not colon:
        host, port = registry, "443"
    if ":" in host and not host.startswith("["):
        raise InvalidReference(
            f"{text!r}: {registry!r} is not a host",
            hint="write an IPv6 address in brackets: [2001:db8::1]:5000/team/model:tag",
        )
    if not (_is_ipv6(host) or _HOST.fullmatch(host)):
        raise InvalidReference(f"{text!r} names no registry ({host!r} is not a host)")
    if not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
        raise InvalidReference(f"{text!r}: {port!r} is not a port (1 to 65535)")


def _of_ipv6(registry: str) -> tuple[str, str, str]:
    host, _, rest = registry.rpartition("]")
    return f"{host}]", rest[:1], rest[1:]


def _is_ipv6(host: str) -> bool:
    """Whether a host is an address in brackets; one of a link has no name that others know."""
    try:
        return host.startswith("[") and bool(ipaddress.IPv6Address(host[1:-1])) and "%" not in host
    except ValueError:
        return False


def _check_repository(text: str, registry: str, repository: str) -> None:
    if _REPOSITORY.fullmatch(repository.lower()) and repository != repository.lower():
        raise InvalidReference(
            f"{text!r}: {repository!r} has upper-case letters, which no registry accepts",
            hint=f"write {registry}/{repository.lower()}",
        )
    if not _REPOSITORY.fullmatch(repository):
        raise InvalidReference(f"{text!r}: {repository!r} is not a repository name")
    if len(repository) > _LONGEST_REPOSITORY:
        raise InvalidReference(
            f"{text!r}: its repository has {len(repository)} letters, more than "
            f"{_LONGEST_REPOSITORY}"
        )
