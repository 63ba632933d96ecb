"""Putting a referrer beside its subject in a registry (distribution-spec 1.1, *Referrers*)."""

from __future__ import annotations

import io
from collections.abc import Callable

from mlpack.errors import MlpackError
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.document import InvalidContent, canonical, parse
from mlpack.stores.base import Readable, read
from mlpack.stores.copy import children
from mlpack.stores.exchange import Refused
from mlpack.stores.registry import RegistryStore, fallback_tag

_NOT_TAKEN = frozenset({400, 404, 405, 406, 413, 415, 422, 501})
"""Answers of a registry that keeps images only; others, such as a 403 or 500, are errors."""


class NotTaken(MlpackError):
    """A registry that keeps no such artifacts; the image itself is not concerned."""


def attach(
    store: RegistryStore,
    source: Readable,
    referrer: Descriptor,
    subject: Descriptor,
    *,
    new: bool = False,
) -> None:
    """Send ``referrer``, whose subject is ``subject``, with its parts, and have it listed.

    A registry that knows subjects lists it, and says so. In any other the index under the
    fallback tag is read, ``referrer`` added to it, and what others put there stays.
    Where the subject is ``new`` there, it is not asked first whether that was done before.
    Raises :class:`NotTaken`, and what sending raises.
    """
    if not new and store.exists(referrer) and referrer in store.referrers(subject):
        return
    content = read(source, referrer)
    _taken(lambda: _send_parts(store, source, referrer, content))
    if _taken(lambda: store.put_document(referrer, content)):
        return
    held = store.referrers_tag(subject)
    index = _with(held, _entry(referrer, content), fallback_tag(subject))
    if index is not None:
        target = Descriptor.of(index, media.INDEX)
        _taken(lambda: store.put_document(target, index, fallback_tag(subject)))


def _send_parts(
    store: RegistryStore, source: Readable, referrer: Descriptor, content: bytes
) -> None:
    for part in children(content, referrer.media_type):
        store.put(part, io.BytesIO(read(source, part)))


def _taken(send: Callable[[], bool | None]) -> bool:
    try:
        return bool(send())
    except Refused as error:
        if error.status in _NOT_TAKEN:
            raise NotTaken(str(error)) from error
        raise


def _entry(referrer: Descriptor, content: bytes) -> dict[str, object]:
    """The descriptor of ``referrer`` as an index of referrers has it."""
    manifest = parse(content, "manifest")
    kind, notes = manifest.get("artifactType"), manifest.get("annotations")
    shown = kind or manifest.need("config").need("mediaType")
    described = Descriptor(
        referrer.media_type,
        referrer.digest,
        referrer.size,
        notes.text_map() if notes else {},
        artifact_type=shown.text(),
    )
    return described.to_json()


def _with(
    held: tuple[Descriptor, bytes] | None, entry: dict[str, object], where: str
) -> bytes | None:
    """The index with ``entry`` added; ``None`` where it lists it already."""
    listed: list[object] = []
    kept: dict[str, object] = {}
    if held is not None:
        document = parse(held[1], where)
        if held[0].media_type != media.INDEX:
            raise NotTaken(f"tag {where} is no index of referrers, so it was left as it is")
        try:
            nodes = list(document.need("manifests").elements())
            if any(node.need("digest").value == entry["digest"] for node in nodes):
                return None
        except InvalidContent as error:
            raise NotTaken(f"{error}, so it was left as it is") from error
        listed = [node.value for node in nodes]
        kept = dict(document.mapping())
    kept.update({"schemaVersion": 2, "mediaType": media.INDEX, "manifests": [*listed, entry]})
    return canonical(kept)
