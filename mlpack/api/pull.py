"""``mlpack pull``: an image from a registry into the project's store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlpack.api.push import copy_members
from mlpack.errors import UsageError
from mlpack.interruptions import held_back
from mlpack.model.order import moment
from mlpack.model.version import BASE, LATEST, check_name, check_version, check_word
from mlpack.oci.descriptor import Descriptor, Digest, InvalidDigest, Reference
from mlpack.oci.image import Image
from mlpack.project.ledger import Ledger, ReleaseRecord
from mlpack.project.references import FoundImage, find_image
from mlpack.project.releases import TagTaken, record_base, record_strategy
from mlpack.registry.counting_transport import Traffic
from mlpack.stores.copy import (
    CopyOptions,
    CopyResult,
    DigestChange,
    copy,
    copy_record,
    shown,
)
from mlpack.stores.records import (
    CONTENT,
    CREATED,
    MODEL,
    VERSION,
    read_record,
    record_times,
    records,
    release_tag,
)
from mlpack.stores.store import ReferrersUnsupported

if TYPE_CHECKING:
    from mlpack.api.requests import Pull
    from mlpack.api.session import Session


@dataclass(frozen=True, kw_only=True)
class PullResult:
    """An image in the project's store."""

    reference: Reference
    name: str
    """What the project's store calls it."""

    release: str
    """``NAME:VERSION`` if it is a release of a model, else empty."""

    written: str
    """How commands of this project take it."""

    target: Descriptor
    copied: CopyResult
    traffic: Traffic
    record: Digest | None
    """The release's identity record, if the registry has one."""

    converted: DigestChange | None = None
    """How its digest differs for other readers of the store, if it does."""

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json pull``."""
        return {
            "reference": self.reference,
            "name": self.name,
            "release": self.release or None,
            "digest": self.target.digest,
            "converted": self.converted,
            "record": self.record,
            **copy_members(self.copied, self.traffic),
        }


def pull(session: Session, request: Pull) -> PullResult:
    """Bring an image, for all its platforms, into the project's store.

    A release of a model becomes a release of this project; ``name`` gives it,
    or any image, a name in the store instead. Raises :class:`TagTaken` if that name is
    another image's, before anything is fetched. The store shows other tools an image with
    Docker's media types as one with OCI's; the project knows it by the digest devices pull.
    """
    project, place = session.project, Reference.parse(request.reference)
    name = check_word(request.name, "name") if request.name else ""
    registries = session.registries
    before = registries.traffic
    found = find_image(None, str(place), registries=registries)
    model, version = ("", "") if name else _release(found.image)
    tag = name or (release_tag(model, version) if model else _default(place))
    held = project.layout.tags().get(tag)
    if held is not None and held.digest != found.target.digest:
        raise TagTaken(
            f"the store has another image called {tag!r}", hint="give this one a name with --as"
        )
    with session.step("pulling") as step:
        copied = copy(found.store, project.layout, found.target, CopyOptions(progress=step))
    with project.exclusive(), held_back():
        place_of_record = f"{model}/{version}" if model else ""
        record = None
        try:
            record = copy_record(found.store, project.layout, found.target, place_of_record)
        except ReferrersUnsupported as error:
            session.say(f"without its identity record: {error}")
        noted = {MODEL: model, VERSION: version} if model else {}
        if created := record_times(project.layout, records(project.layout, found.target)):
            noted[CREATED] = created[found.target.digest]
        kept = held.annotations if held else {}
        project.layout.tag(replace(found.target, annotations={**kept, **noted}), tag)
        entry = _entry(session, found, noted)
        if entry is not None:
            Ledger(project.ledger).record_release(entry)
    release = f"{model}:{version}" if model else ""
    return PullResult(
        reference=place.pinned(found.target.digest),
        name=tag,
        release=release,
        written=release or _written(session, tag),
        target=found.target,
        copied=copied,
        traffic=registries.traffic.since(before),
        record=record,
        converted=DigestChange.between(found.target, shown(project.layout, found.target)),
    )


def _entry(session: Session, found: FoundImage, noted: Mapping[str, str]) -> ReleaseRecord | None:
    """Return the ledger's line of a release that came with its record, as of one built here."""
    record = read_record(session.project.layout, found.target)
    base, image = record_base(record), found.image
    try:
        content = Digest.parse(image.labels.get(CONTENT, ""))
    except InvalidDigest:
        return None
    if base is None or MODEL not in noted:
        return None
    layer, when = image.layers[-1], noted.get(CREATED, "")
    return ReleaseRecord(
        digest=found.target.digest,
        name=noted[MODEL],
        version=noted[VERSION],
        model_digest=content,
        base_digest=base,
        strategy=record_strategy(record),
        layer_digest=layer.digest,
        layer_bytes=layer.size,
        identity=record,
        created=moment(when) if when else session.clock.now(),
    )


def _written(session: Session, tag: str) -> str:
    """Return how commands take an image of the store that is not a release."""
    if tag == BASE:
        return BASE
    root = session.project.layout.root
    inside = root.is_relative_to(session.directory)
    return f"oci:{root.relative_to(session.directory) if inside else root}:{tag}"


def _release(image: Image) -> tuple[str, str]:
    """The model and version its labels name; empty if they name none, or invalid ones."""
    model, version = image.labels.get(MODEL, ""), image.labels.get(VERSION, "")
    try:
        return check_name(model), check_version(version)
    except ValueError:
        return "", ""


def _default(place: Reference) -> str:
    last = place.repository.rpartition("/")[2]
    tag = place.tag or (place.digest.short if place.digest else LATEST)
    try:
        return check_word(f"{last}-{tag}".lower(), "name")
    except ValueError as error:
        raise UsageError(f"cannot derive a name from {place}", hint="add --as NAME") from error
