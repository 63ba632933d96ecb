"""``mlpack push``: a release, or the base, into a registry; only what is missing moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlpack.errors import MlpackError, UsageError
from mlpack.model.version import LATEST, check_word
from mlpack.oci.descriptor import Descriptor, Digest, Reference
from mlpack.plan.engines import engine
from mlpack.plan.refusals import Refusal, require_taken
from mlpack.project.directory import ProjectDirectory
from mlpack.project.engine_support import all_refusals, named_engines
from mlpack.project.references import FoundImage, find_image
from mlpack.project.releases import base_place
from mlpack.registry.counting_transport import Traffic
from mlpack.registry.repository import Registries
from mlpack.stores.copy import CopyOptions, CopyResult, FirstOf, copy, copy_record
from mlpack.stores.layout import REF_NAME
from mlpack.stores.records import VERSION
from mlpack.stores.store import NotFound, Readable, ReferrersUnsupported, images

if TYPE_CHECKING:
    from mlpack.api.requests import Push
    from mlpack.api.session import Session, Step


class NoPushTarget(MlpackError):
    """A push without a repository."""

    hint = 'add repository = "registry.example.com/team/model" under [image] in mlpack.toml, '
    hint += "or name it with --to"


@dataclass(frozen=True, kw_only=True)
class PushResult:
    """Where a release was pushed, and what was sent."""

    name: str
    tagged: Reference
    target: Descriptor
    replaced: Digest | None
    """What the tag was before, if it was something else."""

    copied: CopyResult
    traffic: Traffic
    record: Digest | None = None
    """The identity record, if this push sent one."""

    refusals: tuple[Refusal, ...] = ()
    """Why an engine of the project's devices does not take it as it is."""

    record_problem: str = ""
    """Why the registry does not keep the record."""

    workspace: str = ""
    """The address of the model in Azure ML that was tagged with the release."""

    @property
    def reference(self) -> Reference:
        """The release by its digest: what a deployment names."""
        return self.tagged.pinned(self.target.digest)

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json push``."""
        return {
            "name": self.name,
            "reference": self.reference,
            "tag": self.tagged.tag,
            "digest": self.target.digest,
            "replaced": self.replaced,
            "record": self.record,
            "refusals": self.refusals,
            **copy_members(self.copied, self.traffic),
        }


def copy_members(copied: CopyResult, traffic: Traffic) -> Mapping[str, object]:
    """What a copy did, for the documents of push, pull and copy."""
    return {
        "copied": [{"digest": each.digest, "bytes": each.size} for each in copied.sent],
        "mounted": [each.digest for each in copied.mounted],
        "present": [each.digest for each in copied.present],
        "wire": traffic,
    }


def push(session: Session, request: Push) -> PushResult:
    """Push a release (``NAME[:VERSION]``, ``base``, or by digest) to its registry.

    It goes ``to`` a repository, or that of mlpack.toml, under the tag named there or its
    version, with its identity record. If the tag is that release already, nothing else is
    compared: the tag is written last. Raises :class:`NoPushTarget`,
    :class:`~mlpack.plan.refusals.NotTaken` if no engine of the project's devices takes it, and
    :class:`~mlpack.registry.http_types.RegistryError`.
    """
    project, account = session.project, None
    if request.workspace:
        account = session.workspace(request.workspace)
    to = Reference.parse(request.to) if request.to else project.settings.repository
    text = request.release or project.settings.model
    if to is None:
        raise NoPushTarget(f"no repository is configured for {text!r}")
    found = find_image(project, text)
    place = _place(project, to, found.target)
    refusals = _check_taken(project, found)
    with session.step("pushing") as step:
        pushed = _send(session, found.target, place, step)
    pushed = replace(pushed, name=text, refusals=refusals)
    if account is None:
        return pushed
    from mlpack.api.azureml import tag_release

    return replace(pushed, workspace=tag_release(project, account, pushed.reference))


def _check_taken(project: ProjectDirectory, found: FoundImage) -> tuple[Refusal, ...]:
    """Return what the devices' engines do not take; raise if none of those named pulls it.

    Where mlpack.toml names no engine, nobody in particular is pushed for.
    """
    named = named_engines(project)
    rules = named or [engine(project.settings.device.engine)]
    told = [all_refusals(rule, found) for rule in rules]
    refused = [[each for each in some if each.effect == "refused"] for some in told]
    if named and all(refused):
        require_taken(found.name, refused[0])
    return tuple(each for some in told for each in some)


def _send(session: Session, target: Descriptor, place: Reference, step: Step) -> PushResult:
    project, registries = session.project, session.registries
    before, store = registries.traffic, registries.store(place, push=True)
    held = _current(store, place.tag)
    copied = CopyResult(present=(target,))
    record, problem = None, ""
    if held != target:
        source, mounts = _source(project, registries, target)
        copied = copy(source, store, target, CopyOptions(mounts=mounts, progress=step))
        try:
            record = copy_record(project.layout, store, target, new=bool(copied.sent))
        except ReferrersUnsupported as error:
            problem = str(error)
        store.tag(target, place.tag)
    return PushResult(
        name="",
        tagged=place,
        target=target,
        replaced=held.digest if held and held != target else None,
        copied=copied,
        traffic=registries.traffic.since(before),
        record=record,
        record_problem=problem,
    )


def _current(store: Readable, tag: str) -> Descriptor | None:
    """Return what the tag points at: one request tells whether there is anything to do."""
    try:
        return store.resolve(tag)
    except NotFound:
        return None


def _source(
    project: ProjectDirectory, registries: Registries, target: Descriptor
) -> tuple[Readable, Mapping[Digest, Reference]]:
    """Return where the layers are, and the repository from which the base's can be mounted."""
    base = base_place(project.layout, target)
    if base is not None:
        made = images(project.layout, target)
        below = frozenset(layer.digest for image in made for layer in image.layers[:-1])
        return FirstOf(project.layout, registries.store(base)), dict.fromkeys(below, base)
    locked = project.lock().base if project.has_lock else None
    if locked is None or not locked.pinned:
        return project.layout, {}
    held = (each for on in locked.platforms for each in on.layers if each.role == "source")
    source = Reference.parse(locked.pinned)
    return project.layout, {each.layer.digest: source for each in held}


def _place(project: ProjectDirectory, place: Reference, target: Descriptor) -> Reference:
    """``place`` with a tag: the one it names, or the release's version."""
    if place.digest is not None:
        raise UsageError(
            f"cannot push to the digest {place}: an image has its own", hint="name a tag, or none"
        )
    if place.tag:
        return place
    entries = (each for each in project.layout.entries() if each.digest == target.digest)
    named = next(entries, target).annotations
    tag = named.get(VERSION) or named.get(REF_NAME) or LATEST
    return Reference(place.registry, place.repository, check_word(tag, "tag"))
