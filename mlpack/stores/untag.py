"""Taking names out of a layout; blobs stay."""

from __future__ import annotations

from mlpack.oci import descriptor as media
from mlpack.oci.document import canonical
from mlpack.stores.files import atomic, locked
from mlpack.stores.layout import REF_NAME, LayoutStore


def untag(layout: LayoutStore, *names: str) -> None:
    """Remove ``names`` from ``index.json``, all of them or none; unknown ones are no error."""
    with locked(layout.root.with_name(f"{layout.root.name}.lock")):
        entries = layout.entries()
        kept = [each for each in entries if each.annotations.get(REF_NAME) not in names]
        if len(kept) == len(entries):
            return
        document = {
            "schemaVersion": 2,
            "mediaType": media.INDEX,
            "manifests": [each.to_json() for each in kept],
        }
        with atomic(layout.root / "index.json") as out:
            out.write(canonical(document))
