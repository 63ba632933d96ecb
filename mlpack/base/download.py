"""Fetching public files by URL, into memory or into a cache by their sha256."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from mlpack.errors import MlpackError
from mlpack.stores.files import staged

CHUNK = 256 * 1024
TIMEOUT_SECONDS = 60
_TRIES = 3
_PAUSE_SECONDS = 1.0

Advance = Callable[[int], None]
"""Told of every so many bytes fetched or packed."""


class Unreachable(MlpackError):
    """A server that did not answer, or did not answer with the file."""

    hint = "check the network, or name a mirror you can reach: [base] mirror in mlpack.toml"


class Missing(Unreachable):
    """A server that says it has no such file (404 or 410)."""


class WrongContent(MlpackError):
    """A file whose sha256 or size is not the announced one."""

    hint = "something on the way changed it: try again, or another mirror ([base] mirror)"


def fetch(url: str, *, limit: int, advance: Advance | None = None) -> bytes:
    """Read the whole of ``url``; raise :class:`WrongContent` above ``limit`` bytes.

    A broken connection is tried again twice. Raises :class:`Unreachable`.
    """
    for attempt in range(1, _TRIES + 1):
        try:
            return _read(url, limit, advance)
        except (OSError, http.client.HTTPException) as error:
            if attempt == _TRIES or _is_final(error):
                raise _unreachable(url, error) from error
            time.sleep(_PAUSE_SECONDS * attempt)
    raise Unreachable(f"{url} cannot be read")


def cached(url: str, sha256: str, cache: Path, *, limit: int, advance: Advance) -> Path:
    """The file at ``url`` whose sha256 is known, from ``cache`` or fetched into it."""
    path = cache / sha256
    if not path.is_file():
        keep(fetch(url, limit=limit, advance=advance), sha256, cache, url)
    elif file_sha256(path) != sha256:
        # A damaged cache is no reason to stop: what is in it can be had again.
        path.unlink()
        keep(fetch(url, limit=limit, advance=advance), sha256, cache, url)
    return path


def keep(content: bytes, sha256: str, cache: Path, name: str) -> Path:
    """Put ``content`` into ``cache``; raise :class:`WrongContent` unless it has this sha256."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise WrongContent(f"{name} has sha256 {found}, not {sha256}")
    with staged(cache) as (out, place):
        out.write(content)
        place(cache / sha256)
    return cache / sha256


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _read(url: str, limit: int, advance: Advance | None) -> bytes:
    if not url.startswith(("http://", "https://")):
        raise Unreachable(f"{url!r} is not an http or https URL")
    request = urllib.request.Request(url, headers={"User-Agent": "mlpack"})  # noqa: S310
    content = bytearray()
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
        while chunk := answer.read(CHUNK):
            content += chunk
            if advance:
                advance(len(chunk))
            if len(content) > limit:
                raise WrongContent(f"{url} is larger than {limit} bytes")
    return bytes(content)


def _is_final(error: Exception) -> bool:
    return isinstance(error, urllib.error.HTTPError) and error.code < 500


def _unreachable(url: str, error: Exception) -> Unreachable:
    if isinstance(error, urllib.error.HTTPError):
        kind = Missing if error.code in (404, 410) else Unreachable
        error.close()
        return kind(f"{url} answered {error.code} {error.reason}")
    reason = getattr(error, "reason", None) or error
    return Unreachable(f"{url} cannot be reached ({reason})")
