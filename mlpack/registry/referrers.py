"""Indexes of referrers that clients keep, for registries without the referrers API.

Distribution-spec 1.1, *Referrers tag schema*; and which answers mean that a registry keeps images
only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, InvalidContent, canonical, parse
from mlpack.registry.http_types import RegistryError, StatusError, Unreachable
from mlpack.stores.store import Corrupt, NotFound, ReferrersUnsupported

_PASSING = frozenset({408, 425, 429, 502, 503, 504})
"""Responses after which the same request may be accepted: the command may be run again."""


def fallback_tag(subject: Descriptor) -> str:
    """Return the tag of the index of ``subject``'s referrers.

    >>> fallback_tag(Descriptor.of(b"", media.MANIFEST))[:20]
    'sha256-e3b0c44298fc1'
    """
    return f"sha256-{subject.digest.hex}"


def with_referrer(
    held: tuple[Descriptor, bytes] | None, referrer: Descriptor, content: bytes, tag: str
) -> bytes | None:
    """Return the index at ``tag`` with ``referrer`` added, or ``None`` if it lists it.

    ``content`` is the referrer's manifest; ``held`` is the index so far, whose other members
    stay. Raises :class:`ReferrersUnsupported` if the tag is something else.
    """
    entry = _entry(referrer, content)
    listed: list[object] = []
    kept: dict[str, object] = {}
    if held is not None:
        document = parse(held[1], tag)
        if held[0].media_type != media.INDEX:
            raise ReferrersUnsupported(f"tag {tag} is not an index of referrers; it is unchanged")
        try:
            nodes = list(document.need("manifests").elements())
            if any(node.need("digest").value == entry["digest"] for node in nodes):
                return None
        except InvalidContent as error:
            raise ReferrersUnsupported(f"{error}; the tag is unchanged") from error
        listed = [node.value for node in nodes]
        kept = dict(document.mapping())
    kept.update({"schemaVersion": 2, "mediaType": media.INDEX, "manifests": [*listed, entry]})
    return canonical(kept)


def _entry(referrer: Descriptor, content: bytes) -> dict[str, object]:
    """The descriptor of ``referrer`` as an index of referrers lists it."""
    manifest = parse(content, "manifest")
    kind, annotations = manifest.get("artifactType"), manifest.get("annotations")
    described = Descriptor(
        referrer.media_type,
        referrer.digest,
        referrer.size,
        annotations.text_map() if annotations else {},
        artifact_type=(kind or manifest.need("config").need("mediaType")).text(),
    )
    return described.to_json()


@contextmanager
def refusals_as_unsupported() -> Iterator[None]:
    """Raise :class:`ReferrersUnsupported` for what a registry without artifacts may answer.

    That is anything: no list of error codes is the same in two registries. What may pass is
    raised as it is.
    """
    try:
        yield
    except Unreachable:
        raise
    except StatusError as error:
        if error.status in _PASSING:
            raise
        raise ReferrersUnsupported(str(error)) from error
    except (RegistryError, InvalidContent, Corrupt, NotFound) as error:
        raise ReferrersUnsupported(str(error)) from error
