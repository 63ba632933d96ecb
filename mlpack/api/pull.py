"""``mlpack pull``: an image from a registry into the project's store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mlpack.api.push import describe
from mlpack.errors import UsageError
from mlpack.model.recipe import check_name, check_word
from mlpack.model.version import LATEST, check_version
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.digest import Digest
from mlpack.oci.image import Image
from mlpack.oci.reference import Reference
from mlpack.stores.carry import carry
from mlpack.stores.copy import Copied, copy
from mlpack.stores.project import Project
from mlpack.stores.references import find_image
from mlpack.stores.registries import Registries
from mlpack.stores.releases import MODEL, VERSION, TagTaken, release_tag
from mlpack.stores.wire import Counted


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """An image that is here now."""

    reference: Reference
    name: str
    """What the project's store calls it."""

    release: str
    """``NAME:VERSION`` where it is a release of a model, else empty."""

    target: Descriptor
    copied: Copied
    counted: Counted
    record: Digest | None
    """The release's identity record, where the registry has one."""

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json pull``."""
        return {
            "reference": str(self.reference),
            "name": self.name,
            "release": self.release or None,
            "digest": str(self.target.digest),
            "record": str(self.record) if self.record else None,
            **describe(self.copied, self.counted),
        }


def pull(
    project: Project,
    registries: Registries,
    place: Reference,
    *,
    name: str = "",
    advance: Callable[[int], None] = lambda _: None,
    expect: Callable[[int], None] = lambda _: None,
) -> Pulled:
    """Bring the image at ``place``, on all its platforms, into the project's store.

    A release of a model is from then on a release of this project; ``name`` gives it,
    or any image, a name in the store instead. Raises :class:`TagTaken` where that name is
    another image's, before anything is fetched.
    """
    found = find_image(None, str(place), registries=registries)
    model, version = _release(found.image)
    tag = check_word(name, "name") if name else release_tag(model, version) if model else ""
    tag = tag or _default(place)
    if name:
        model = version = ""
    held = project.layout.tags().get(tag)
    if held is not None and held.digest != found.target.digest:
        raise TagTaken(
            f"the store has another image called {tag!r}", hint="give this one a name with --as"
        )
    copied = copy(found.store, project.layout, found.target, advance=advance, expect=expect)
    with project.exclusive():
        place_of_record = f"{model}/{version}" if model else ""
        record = carry(found.store, project.layout, found.target, place_of_record)
        noted = {MODEL: model, VERSION: version} if model else {}
        kept = held.annotations if held else {}
        project.layout.tag(replace(found.target, annotations={**kept, **noted}), tag)
    return Pulled(
        reference=place.pinned(found.target.digest),
        name=tag,
        release=f"{model}:{version}" if model else "",
        target=found.target,
        copied=copied,
        counted=registries.counted,
        record=record,
    )


def _release(image: Image) -> tuple[str, str]:
    """The model and version its labels name; empty where they name none that can be one."""
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
        raise UsageError(f"{place} gives no name for the store", hint="add --as NAME") from error
