"""A release's identity record: an OCI artifact whose subject is the release.

No engine asks for it. It is kept, found and moved beside the release, never as a part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.document import canonical
from mlpack.stores.base import put_bytes
from mlpack.stores.layout import LayoutStore

RECORD = "application/vnd.mlpack.release.v1+json"
RECORDS = "release/"
"""Where a project keeps them, by name and version."""


def keep_record(
    layout: LayoutStore, name: str, version: str, target: Descriptor, record: Mapping[str, object]
) -> Descriptor:
    """Keep ``record`` as what release ``name``:``version``, which is ``target``, came from."""
    content = put_bytes(layout, canonical(record), RECORD)
    manifest = {
        "schemaVersion": 2,
        "mediaType": media.MANIFEST,
        "artifactType": RECORD,
        "config": put_bytes(layout, b"{}", media.EMPTY).to_json(),
        "layers": [content.to_json()],
        "subject": replace(target, annotations={}, platform=None).to_json(),
    }
    made = put_bytes(layout, canonical(manifest), media.MANIFEST)
    layout.tag(replace(made, artifact_type=RECORD), f"{RECORDS}{name}/{version}")
    return made
