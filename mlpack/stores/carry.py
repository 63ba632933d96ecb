"""Bringing a release's record along when the release is pushed, pulled or copied."""

from __future__ import annotations

from dataclasses import replace

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.digest import Digest
from mlpack.oci.document import InvalidContent, parse
from mlpack.stores.base import Corrupt, NotFound, Readable, Store, read
from mlpack.stores.copy import copy
from mlpack.stores.exchange import Refused
from mlpack.stores.layout import LayoutStore
from mlpack.stores.records import RECORD, RECORDS
from mlpack.stores.referrers import attach
from mlpack.stores.registry import RegistryStore

MAX_BYTES = 64 * 1024
"""A record is 1 KB; what claims to be one and is larger is left where it is."""


def records(store: Readable, target: Descriptor) -> tuple[Descriptor, ...]:
    """The records of the image ``target`` that ``store`` has; none where it cannot say.

    A registry is asked; in a layout what ``index.json`` lists is looked through.
    """
    if isinstance(store, RegistryStore):
        try:
            listed = store.referrers(target, RECORD)
        except Refused:
            return ()
    elif isinstance(store, LayoutStore):
        listed = tuple(each for each in store.entries() if each.artifact_type == RECORD)
    else:
        return ()
    return tuple(each for each in listed if _is_of(store, each, target))


def carry(
    source: Readable, target: Store, image: Descriptor, name: str = "", *, new: bool = False
) -> Digest | None:
    """Bring the record of ``image`` along, where there is one; its digest.

    In a layout it is called ``release/<name>``, or by its digest where ``name`` is empty.
    ``new`` where ``target`` did not have the image before.
    Raises :class:`~mlpack.stores.referrers.NotTaken`.
    """
    found = records(source, image)
    if not found:
        return None
    record = replace(found[0], annotations={}, platform=None, artifact_type=RECORD)
    if isinstance(target, RegistryStore):
        attach(target, source, record, image, new=new)
    elif isinstance(target, LayoutStore):
        copy(source, target, record)
        target.tag(record, f"{RECORDS}{name}" if name else f"referrers/{record.digest.hex}")
    else:
        return None
    return record.digest


def _is_of(store: Readable, record: Descriptor, target: Descriptor) -> bool:
    """Whether ``record`` is a small artifact that says it is about ``target``."""
    if record.media_type != media.MANIFEST:
        return False
    try:
        manifest = parse(read(store, record), "record")
        subject = Descriptor.from_json(manifest.need("subject"))
        parts = [Descriptor.from_json(each) for each in manifest.need("layers").elements()]
    except (InvalidContent, Corrupt, NotFound):
        return False
    return subject.digest == target.digest and sum(each.size for each in parts) <= MAX_BYTES
