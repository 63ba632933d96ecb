"""A release's identity record: an OCI artifact whose subject is the release.

No container engine reads it. It is kept, listed and copied with the release, never as part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from mlpack.errors import MlpackError
from mlpack.json_document import document
from mlpack.model.trial_start import TrialStart
from mlpack.oci import descriptor as media
from mlpack.oci.descriptor import Descriptor, Digest, InvalidContent, canonical, parse
from mlpack.stores.store import (
    Corrupt,
    ListsReferrers,
    NotFound,
    Readable,
    Store,
    parts,
    put_bytes,
    read,
    subject,
)

MODEL, VERSION, CONTENT = "io.mlpack.model", "io.mlpack.version", "io.mlpack.digest"
"""Annotations and labels that name a release: its model, its version, the model's digest."""

CREATED = "org.opencontainers.image.created"
"""Annotation of a release's or a model version's entry: when it was made (image-spec,
annotations.md). It orders those of a model; nothing that a device fetches has it."""

PACKED = "io.mlpack.packed"
"""Label of a release that holds its model packed: the numbers of those files, from 1, by commas."""

RECORD = "application/vnd.mlpack.release.v1+json"
START = "application/vnd.mlpack.start.v1+json"
"""How the release's images started when it was built: next to the identity, which is the same on
every machine."""

MAX_BYTES = 64 * 1024
"""A record is 1 KB; larger artifacts of its type are ignored."""

RECORDS = "release/"
"""Where a project keeps records, by name and version."""

ALIASES = "alias/"
"""Where a project keeps aliases, by name and alias (:mod:`mlpack.project.aliases`)."""


@dataclass(frozen=True, slots=True)
class RecordContent:
    """What is kept next to a release."""

    identity: Mapping[str, object]
    """Equal for equal images, on every machine."""

    starts: Mapping[Digest, TrialStart] = field(default_factory=dict)
    """How its images started when it was built, by their digests."""


def release_tag(name: str, version: str) -> str:
    """Return the layout's name of a release."""
    return f"{name}-{version}"


def keep_record(
    store: Store, name: str, version: str, target: Descriptor, record: RecordContent
) -> Descriptor:
    """Keep ``record`` as that of release ``name``:``version``, which is ``target``.

    If ``target`` is annotated with when it was made, so is the record, which goes where the release
    goes.
    """
    created = target.annotations.get(CREATED)
    layers = [put_bytes(store, canonical(record.identity), RECORD)]
    if record.starts:
        tried = {str(digest): document(start) for digest, start in record.starts.items()}
        layers.append(put_bytes(store, canonical({"images": tried}), START))
    manifest = {
        "schemaVersion": 2,
        "mediaType": media.MANIFEST,
        "artifactType": RECORD,
        "config": put_bytes(store, b"{}", media.EMPTY).to_json(),
        "layers": [each.to_json() for each in layers],
        "subject": replace(target, annotations={}, platform=None).to_json(),
        **({"annotations": {CREATED: created}} if created else {}),
    }
    made = put_bytes(store, canonical(manifest), media.MANIFEST)
    store.tag(replace(made, artifact_type=RECORD), f"{RECORDS}{name}/{version}")
    return made


def records(store: Readable, target: Descriptor) -> tuple[Descriptor, ...]:
    """Return the records of the image ``target`` in ``store``; none if it lists no referrers."""
    if not isinstance(store, ListsReferrers):
        return ()
    listed = store.referrers(target, RECORD)
    return tuple(each for each in listed if _is_record(store, each, target))


def read_record(store: Readable, target: Descriptor) -> Mapping[str, object]:
    """Return the content of the record of ``target``, or nothing if no record can be read."""
    for each in records(store, target):
        try:
            _, content, *_ = parts(read(store, each), each.media_type)
            return parse(read(store, content, limit=MAX_BYTES), "record").mapping()
        except (InvalidContent, Corrupt, NotFound, ValueError):
            continue
    return {}


def record_times(store: Readable, listed: Iterable[Descriptor]) -> Mapping[Digest, str]:
    """Return when releases were made, by their digests, as the records among ``listed`` have it."""
    found = {}
    for each in listed:
        if each.artifact_type not in ("", RECORD) or each.media_type != media.MANIFEST:
            continue
        try:
            manifest = parse(read(store, each), "record")
        except (InvalidContent, Corrupt, NotFound):
            continue
        subject, notes = manifest.get("subject"), manifest.get("annotations")
        if subject and notes and CREATED in (noted := notes.text_map()):
            found[Descriptor.from_json(subject).digest] = noted[CREATED]
    return found


def read_starts(store: Readable, target: Descriptor) -> Mapping[Digest, TrialStart]:
    """Return how the images of ``target`` started when it was built, by digest; or nothing."""
    for each in records(store, target):
        try:
            listed = parse(read(store, each), "record").need("layers").elements()
            kept = [Descriptor.from_json(node) for node in listed]
            content = next((part for part in kept if part.media_type == START), None)
            if content is None:
                continue
            images = parse(read(store, content, limit=MAX_BYTES), "start").need("images")
            return {Digest.parse(key): TrialStart.from_json(each) for key, each in images.items()}
        except (InvalidContent, Corrupt, NotFound, ValueError):
            continue
    return {}


def _is_record(store: Readable, record: Descriptor, target: Descriptor) -> bool:
    """Whether ``record`` is a small artifact whose subject is ``target``."""
    if record.media_type != media.MANIFEST:
        return False
    try:
        size = sum(each.size for each in parts(read(store, record), record.media_type))
        return size <= MAX_BYTES and subject(store, record) == target.digest
    except MlpackError:
        # Whatever a registry answers for it: nobody needs a record to have the image.
        return False
