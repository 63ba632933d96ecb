"""``mlpack push``: a release, or the base, into a registry; only what is missing moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlpack.errors import UsageError
from mlpack.model.recipe import check_word
from mlpack.model.version import LATEST
from mlpack.oci.descriptor import Descriptor
from mlpack.oci.digest import Digest
from mlpack.oci.reference import Reference
from mlpack.stores.base import NotFound, Readable, images
from mlpack.stores.carry import carry
from mlpack.stores.copy import Copied, FirstOf, MountFrom, copy
from mlpack.stores.layout import REF_NAME
from mlpack.stores.project import Project
from mlpack.stores.references import find_image
from mlpack.stores.referrers import NotTaken
from mlpack.stores.registries import Registries
from mlpack.stores.registry import RegistryStore
from mlpack.stores.releases import VERSION
from mlpack.stores.remote_base import base_place
from mlpack.stores.wire import Counted

Advance = Callable[[int], None]


class NowhereToPush(UsageError):
    """A push without a place for it."""

    hint = 'add repository = "registry.example.com/team/model" under [image] in mlpack.toml, '
    hint += "or name it with --to"


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """Where a release is now, and what went there."""

    name: str
    tagged: Reference
    target: Descriptor
    replaced: Digest | None
    """What the tag was before, where it was something else."""

    copied: Copied
    counted: Counted
    record: Digest | None = None
    """The identity record beside it, where this push sent one."""

    record_problem: str = ""
    """Why the registry did not take the record."""

    @property
    def reference(self) -> Reference:
        """The release by its digest: what a deployment names."""
        return self.tagged.pinned(self.target.digest)

    def to_json(self) -> dict[str, object]:
        """The document of ``mlpack --json push``."""
        return {
            "name": self.name,
            "reference": str(self.reference),
            "tag": self.tagged.tag,
            "digest": str(self.target.digest),
            "replaced": str(self.replaced) if self.replaced else None,
            "record": str(self.record) if self.record else None,
            **describe(self.copied, self.counted),
        }


def describe(copied: Copied, counted: Counted) -> dict[str, object]:
    """What a copy did, for the JSON of push, pull and copy."""
    return {
        "sent": [{"digest": str(each.digest), "bytes": each.size} for each in copied.sent],
        "mounted": [str(each.digest) for each in copied.mounted],
        "present": [str(each.digest) for each in copied.present],
        "wire": counted.to_json(),
    }


def push(
    project: Project,
    registries: Registries,
    name: str = "",
    *,
    to: Reference | None = None,
    advance: Advance = lambda _: None,
    expect: Advance = lambda _: None,
) -> Pushed:
    """Push ``name`` (``NAME[:VERSION]``, ``base``, or by digest; the project's model by default).

    It goes ``to`` a repository, or that of mlpack.toml, under the tag named there or its
    version, and its identity record beside it. Where the tag is that release already,
    nothing is looked at: the tag comes last. Raises :class:`NowhereToPush` and
    :class:`~mlpack.stores.exchange.RegistryError`.
    """
    text = name or project.recipe.model
    found = find_image(project, text)
    place = _place(project, to, found.target, text)
    store = registries.store(place, push=True)
    held = _held(store, place.tag)
    copied = Copied(present=(found.target,))
    record, problem = None, ""
    if held != found.target:
        source, mount = _source(project, registries, found.target, place)
        copied = copy(source, store, found.target, mount=mount, advance=advance, expect=expect)
        try:
            record = carry(project.layout, store, found.target, new=bool(copied.sent))
        except NotTaken as error:
            problem = str(error)
        store.tag(found.target, place.tag)
    return Pushed(
        name=text,
        tagged=place,
        target=found.target,
        replaced=held.digest if held and held != found.target else None,
        copied=copied,
        counted=registries.counted,
        record=record,
        record_problem=problem,
    )


def _held(store: RegistryStore, tag: str) -> Descriptor | None:
    """What the tag is now: one request says whether there is anything to do at all."""
    try:
        return store.resolve(tag)
    except NotFound:
        return None


def _source(
    project: Project, registries: Registries, target: Descriptor, place: Reference
) -> tuple[Readable, MountFrom | None]:
    """Where the parts are: here, or with the base it was built on, which may be mounted."""
    base = base_place(project.layout, target)
    if base is not None:
        made = images(project.layout, target)
        below = frozenset(layer.digest for image in made for layer in image.layers[:-1])
        source = FirstOf(project.layout, registries.store(base))
        return source, _mount(base, place, below)
    locked = project.lock().base if project.has_lock else None
    if locked is None or not locked.pinned:
        return project.layout, None
    held = (each for on in locked.platforms for each in on.layers if each.role == "source")
    from_there = frozenset(each.layer.digest for each in held)
    return project.layout, _mount(Reference.parse(locked.pinned), place, from_there)


def _mount(base: Reference, place: Reference, digests: frozenset[Digest]) -> MountFrom | None:
    """What the registry of ``place`` can take from another of its repositories."""
    if base.registry != place.registry or base.repository == place.repository:
        return None
    return MountFrom(base.repository, digests)


def _place(project: Project, to: Reference | None, target: Descriptor, text: str) -> Reference:
    place = to or project.recipe.repository
    if place is None:
        raise NowhereToPush(f"it is not said where to push {text!r}")
    if place.digest is not None:
        raise UsageError(
            f"{place} names a digest, and what is pushed has its own", hint="name a tag, or none"
        )
    if place.tag:
        return place
    entries = (each for each in project.layout.entries() if each.digest == target.digest)
    named = next(entries, target).annotations
    tag = named.get(VERSION) or named.get(REF_NAME) or LATEST
    return Reference(place.registry, place.repository, check_word(tag, "tag"))
