"""Why a program could not fetch packages: uv's and apt's own words, told apart.

The phrases are those of uv 0.13 and apt 2.6 with closed ports, unknown names, servers with
expired and unknown certificates, proxies and indexes that refuse, and a full disk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlpack.errors import MlpackError


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """A program that fetches packages, and where its source is configured."""

    what: str
    source: str
    slow: str = ""
    """What makes it wait longer."""


UV = Fetcher(
    what="Python packages",
    source="UV_DEFAULT_INDEX",
    slow="; UV_HTTP_TIMEOUT=SECONDS waits longer",
)
APT = Fetcher(what="Debian packages", source="[base] mirror in mlpack.toml")

_CONNECTION = (
    "check this machine's network; behind a proxy set http_proxy and https_proxy, and for "
    "another source {source}"
)
_CERTIFICATE = (
    "check this machine's clock; behind a proxy that inspects TLS, name its certificate authority "
    "with SSL_CERT_FILE=ca.pem; or use another source: {source}"
)
_LATER = "run the command again later, or use another source: {source}"

_KINDS = (
    (
        r"no space left|disk quota exceeded",
        "the disk is full",
        "free some disk space, also where uv keeps its cache (UV_CACHE_DIR moves it)",
    ),
    (
        r"407 proxy|proxy auth|tunnel error|invalid proxy",
        "the proxy cannot be used",
        "check http_proxy, https_proxy and no_proxy: address, user and password",
    ),
    (r"certificate expired|expired certificate", "its certificate has expired", _CERTIFICATE),
    (
        r"peer certificate|certificate verif|UnknownIssuer|is NOT trusted|self[- ]signed cert",
        "its certificate is not trusted here",
        _CERTIFICATE,
    ),
    (
        r"InvalidContentType|wrong version number|unexpected TLS packet|TLS handshake",
        "it does not answer with TLS",
        "check whether its address begins with http:// or https://: {source}",
    ),
    (
        r"dns error|lookup address|temporary failure resolving|could not resolve|"
        r"something wicked happened resolving",
        "its name cannot be resolved",
        _CONNECTION,
    ),
    (r"timed out", "it does not answer in time", _CONNECTION + "{slow}"),
    (
        r"connection refused|is unreachable|no route to host|reset by peer|could not connect|"
        r"unable to connect|tcp connect error",
        "it cannot be reached",
        _CONNECTION,
    ),
    (
        r"network was disabled",
        "uv is set to work without a network",
        "unset UV_OFFLINE, or take offline out of uv's settings",
    ),
    (
        r"40[13] +(?:forbidden|unauthorized)",
        "it refuses to answer",
        "check the address, and the login if it needs one: {source}",
    ),
    (r"(?:429|5\d\d) +[a-z]+ [a-z ]*(?:error|gateway|unavailable|requests)", "it fails", _LATER),
    (r"failed to fetch: \S+\s+cause: error sending", "the connection broke off", _CONNECTION),
)
_ADDRESS = re.compile(r"https?://(?:[^\s/@]*@)?([^\s/'\")]+)")
_REASONING = re.compile(r"^.*\bBecause .*$", re.MULTILINE)
"""What uv says about versions: names of packages there must not look like failures."""


class Unreachable(MlpackError):
    """Packages that cannot be fetched, for a reason that no requirement changes."""


def network_failure(output: str, fetcher: Fetcher) -> Unreachable | None:
    """Return the error of a failed uv or apt that wrote ``output``, if the network failed it.

    ``None`` if the reason is another, such as requirements that no versions meet.

    >>> print(network_failure("error: Failed to fetch: https://a.example/x\\n dns error", UV))
    Python packages cannot be fetched from a.example: its name cannot be resolved
    >>> network_failure("Because dns error==1 needs b, your requirements are unsatisfiable", UV)
    """
    telling = _REASONING.sub("", output)
    for pattern, why, hint in _KINDS:
        if re.search(pattern, telling, re.IGNORECASE):
            address = _ADDRESS.search(telling)
            place = f" from {address[1]}" if address else ""
            return Unreachable(
                f"{fetcher.what} cannot be fetched{place}: {why}",
                hint=hint.format(source=fetcher.source, slow=fetcher.slow),
            )
    return None
