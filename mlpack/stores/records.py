"""A release's identity record: an OCI artifact whose subject is the release.

No engine asks for it. It is kept, found and moved beside the release, never as a part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.document import InvalidContent, canonical, parse
from mlpack.stores.base import Corrupt, NotFound, Readable, put_bytes, read
from mlpack.stores.layout import LayoutStore

RECORD = "application/vnd.mlpack.release.v1+json"
MAX_BYTES = 64 * 1024
"""A record is 1 KB; what claims to be one and is larger is left where it is."""

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


def read_record(layout: LayoutStore, target: Descriptor) -> Mapping[str, object]:
    """What the record of the image ``target`` says; nothing where there is none to be read."""
    for each in layout.entries():
        if each.artifact_type != RECORD or not is_of(layout, each, target):
            continue
        try:
            manifest = parse(read(layout, each), "record")
            content = Descriptor.from_json(next(iter(manifest.need("layers").elements())))
            return parse(read(layout, content, limit=MAX_BYTES), "record").mapping()
        except (InvalidContent, Corrupt, NotFound, StopIteration):
            continue
    return {}


def is_of(store: Readable, record: Descriptor, target: Descriptor) -> bool:
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
