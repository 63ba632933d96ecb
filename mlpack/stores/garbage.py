"""What nothing in a layout names any more: found by following every name, and removed.

Content counts as named if ``index.json`` lists it, a manifest or index that counts points at it, or
a release's record or a text that the caller passes mentions its digest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import (
    MAX_DOCUMENT_BYTES,
    Descriptor,
    Digest,
    InvalidContent,
    parse,
)
from mlpack.stores.layout import REF_NAME, LayoutStore
from mlpack.stores.records import RECORD
from mlpack.stores.store import DOCUMENTS, Corrupt, NotFound, parts, read

_HEX = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class UnknownContent(MlpackError):
    """A named document that cannot be read, so that what it names is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A file of a layout."""

    digest: Digest
    bytes: int


def unnamed(layout: LayoutStore, mentions: Iterable[str] = ()) -> tuple[Blob, ...]:
    """Return what nothing names, in the order in which it can be removed.

    Documents come before what they point at: if removing is interrupted, none is left whose parts
    are gone. ``mentions`` are texts, such as mlpack.lock, whose digests stay. Raises
    :class:`UnknownContent` if a document that stays is missing or damaged.
    """
    if not layout.has_names:
        return ()  # its first command is still running
    kept = _named(layout, mentions)
    found = [each for each in _blobs(layout) if each.digest not in kept]
    return tuple(sorted(found, key=lambda each: (_rank(layout, each), each.digest.hex)))


def _blobs(layout: LayoutStore) -> Iterator[Blob]:
    """Yield every blob that is here, named or not."""
    folder = layout.root / "blobs" / "sha256"
    for path in folder.iterdir() if folder.is_dir() else ():
        if _HEX.fullmatch(path.name) and path.is_file():
            yield Blob(digest=Digest(path.name), bytes=path.stat().st_size)


def _named(layout: LayoutStore, mentions: Iterable[str]) -> set[Digest]:
    """Return the digests of everything that must stay."""
    seen: set[Digest] = set()
    for entry in (*layout.listed(), *layout.entries()):
        try:
            _follow(layout, entry, seen)
        except (Corrupt, InvalidContent, NotFound) as error:
            name = entry.annotations.get(REF_NAME, str(entry.digest))
            raise UnknownContent(
                f"what {name} names is not known: {error}",
                hint="fetch, build or register it again, or drop its name, then run this again",
            ) from error
    for text in mentions:
        _follow_mentioned(layout, text, seen)
    return seen


def _follow(layout: LayoutStore, target: Descriptor, seen: set[Digest]) -> None:
    """Add ``target`` and everything below it; raise if a document of it cannot be read."""
    if target.digest in seen:
        return
    seen.add(target.digest)
    if target.media_type == RECORD:
        _follow_mentioned(layout, read(layout, target).decode(errors="replace"), seen)
    if target.media_type not in DOCUMENTS:
        return
    for part in parts(read(layout, target), target.media_type):
        # An image of a platform that was not fetched, and layers that stay in a registry.
        if part.media_type not in DOCUMENTS or layout.exists(part):
            _follow(layout, part, seen)


def _follow_mentioned(layout: LayoutStore, text: str, seen: set[Digest]) -> None:
    """Add the content whose digests are in ``text``, as far as it is here."""
    for digest in map(Digest.parse, _DIGEST.findall(text)):
        target = _document(layout, digest)
        if target is None:
            seen.add(digest)
        else:
            _follow(layout, target, seen)


def _document(layout: LayoutStore, digest: Digest) -> Descriptor | None:
    """Return the manifest or index with this digest; ``None`` if it is something else, or away."""
    path = layout.path(Descriptor(media.MANIFEST, digest, 0))
    if not path.is_file() or path.stat().st_size > MAX_DOCUMENT_BYTES:
        return None
    content = path.read_bytes()
    try:
        stated = parse(content, "document").get("mediaType")
    except InvalidContent:
        return None
    if stated is None or stated.value not in DOCUMENTS:
        return None
    return Descriptor(stated.text(), digest, len(content))


def _rank(layout: LayoutStore, blob: Blob) -> int:
    """Return 0 for an index, 1 for a manifest, 2 for what they point at."""
    found = _document(layout, blob.digest)
    if found is None:
        return 2
    return 0 if found.media_type in media.INDEXES else 1


def remove(layout: LayoutStore, blobs: Iterable[Blob]) -> Iterator[Blob]:
    """Remove ``blobs``, and yield each when it is gone; the caller has the layout alone."""
    for each in blobs:
        layout.path(Descriptor(media.MANIFEST, each.digest, 0)).unlink(missing_ok=True)
        yield each
