"""Bringing a release's record along when the release is pushed, pulled or copied."""

from __future__ import annotations

from dataclasses import replace

from mlpack.oci.descriptor import Descriptor
from mlpack.oci.digest import Digest
from mlpack.stores.base import Readable, Store
from mlpack.stores.copy import copy
from mlpack.stores.exchange import Refused
from mlpack.stores.layout import LayoutStore
from mlpack.stores.records import RECORD, RECORDS, is_of
from mlpack.stores.referrers import attach
from mlpack.stores.registry import RegistryStore


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
    return tuple(each for each in listed if is_of(store, each, target))


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
