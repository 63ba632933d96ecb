"""``mlpack build``: a model version on the base, as one more layer; built, checked, pushed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from mlpack.api.release_strategy import (
    Cohorts,
    Criteria,
    Decision,
    Subject,
    becomes_anchor,
    check_strategy,
    decide_strategy,
    keep_anchor,
    without_anchor,
)
from mlpack.api.trial_start import trial_starts
from mlpack.base.requirements import base_image, check_base, locked_platforms
from mlpack.errors import UsageError
from mlpack.interruptions import held_back
from mlpack.model.lock import Lock
from mlpack.model.trial_start import TrialStart
from mlpack.model.version import ModelVersion, parse_name
from mlpack.oci.descriptor import Descriptor, Digest, Platform, Reference, Writable
from mlpack.oci.image import Image, Index, Layer
from mlpack.plan.engines import DeviceState, Link, engine
from mlpack.plan.release_strategy import StrategyDecision
from mlpack.plan.transfer import Transfer, transfer
from mlpack.project.directory import ModelStore, ProjectDirectory
from mlpack.project.ledger import Ledger, ReleaseRecord
from mlpack.project.releases import Builder, OciBuilder, identity, keep_release, remember_base
from mlpack.stores.records import RecordContent, release_tag

if TYPE_CHECKING:
    from mlpack.api.base import RemoteBase
    from mlpack.api.push import PushResult
    from mlpack.api.requests import Build
    from mlpack.api.session import Session


@dataclass(frozen=True, kw_only=True)
class Release:
    """What ``mlpack build`` made."""

    version: ModelVersion
    target: Descriptor
    """The image, or the index if the release is for several platforms."""

    reference: str
    """The release by digest: in its registry if mlpack.toml names one, else by model name."""

    images: tuple[Image, ...]
    base: Descriptor
    transfer: Transfer
    """What a device on the base fetches, or on the anchor if it is a patch release; with the
    project's engine and link."""

    choice: StrategyDecision
    anchor: Digest | None = None
    """The anchor release: what a patch is made against, or what mlpack.lock names now."""

    anchored: bool = False
    """Whether this build made the release its model's anchor."""

    starts: Mapping[Platform, TrialStart] = field(default_factory=dict)
    """How each platform's image started, once, before the release was named."""

    pushed: PushResult | None = None
    """Where it was pushed, if that was requested."""

    @property
    def strategy(self) -> str:
        """``layer``, ``packed`` or ``patch``."""
        return self.choice.strategy

    @property
    def layer(self) -> Layer:
        """The top layer: the same on every platform, except that Docker dates it."""
        return self.images[0].layers[-1]

    def json_members(self) -> Mapping[str, object]:
        """The document of ``mlpack --json build``."""
        layer = self.layer
        return {
            "name": self.version.name,
            "version": self.version.version,
            "digest": self.target.digest,
            "reference": self.reference,
            "strategy": self.strategy,
            "why": self.choice.why,
            "anchor": self.anchor,
            "anchored": self.anchored,
            "candidates": self.choice,
            "base": self.base.digest,
            "layer": {"digest": layer.digest, "diff_id": layer.diff_id, "bytes": layer.size},
            "platforms": {image.platform: image.digest for image in self.images},
            "transfer": self.transfer,
            "start": self.starts,
            **({"pushed": self.pushed} if self.pushed else {}),
        }


@dataclass(frozen=True, kw_only=True)
class PreparedBuild:
    """A build whose request was checked: nothing is written yet."""

    request: Build
    model: ModelVersion
    remote: RemoteBase | None
    builder: Builder | None
    """``None`` is mlpack's own."""

    cohorts: Cohorts | None = None

    @property
    def pushes(self) -> bool:
        """Whether the release is pushed."""
        return self.request.push or bool(self.request.to)


def build(session: Session, request: Build) -> Release:
    """Put a model version on the base: whole, packed, as a patch, or by what devices fetch less of.

    The first release that is worth patching is noted as the anchor in mlpack.lock. With
    ``check`` it is held against [budget]: :class:`~mlpack.api.report.BudgetExceeded` has the
    release, which is not pushed then. Everything that can be checked is, before anything is
    written: raises ``BaseDisagrees`` if requirements, source or platforms are not the lock's,
    ``UnsupportedModel`` if the base's onnxruntime would not load the model where that cannot be
    tried. Elsewhere the release is started once before it is named, and ``CannotStart`` raised.
    """
    plan = _prepare(session, request)
    if plan.pushes or request.check:
        from mlpack.api.publish import publish

        return publish(session, plan)
    return make(session, plan)


def _prepare(session: Session, request: Build) -> PreparedBuild:
    """Check the request; read from a registry or a hub only after all that needs neither."""
    project = session.project
    check_strategy(request.strategy, request.builder)
    _check_request(project, request)
    name, version = parse_name(request.model or project.settings.model)
    model = ModelStore(project.layout).get(name, version)
    remote = _remote_base(session, request.base, name) if request.base else None
    return PreparedBuild(
        request=request,
        model=model,
        remote=remote,
        builder=_builder(session, request, remote.place if remote else None),
        cohorts=_cohorts(session, request) if request.device_group else None,
    )


def _check_request(project: ProjectDirectory, request: Build) -> None:
    pushes = request.push or bool(request.to)
    if pushes and request.builder == "acr":
        raise UsageError("ACR pushes what it builds itself", hint="leave --push and --to out")
    if request.to:
        Reference.parse(request.to)
    elif pushes and project.settings.repository is None:
        from mlpack.api.push import NoPushTarget

        raise NoPushTarget(
            f"no repository is configured for {request.model or project.settings.model!r}"
        )
    if request.base:
        Reference.parse(request.base)
    if request.fleet and not request.device_group:
        raise UsageError("--fleet needs a group", hint="name it: --device-group GROUP")
    if request.device_group:
        from mlpack.project.device_groups import find_group

        find_group(project, request.device_group)
    if request.check:
        from mlpack.api.report import check_budget

        check_budget(project)


def _remote_base(session: Session, reference: str, model: str) -> RemoteBase:
    from mlpack.api.base import adopt, adopt_anchor

    found = adopt(session.project, session.registries, Reference.parse(reference))
    adopt_anchor(session.project, session.registries, model)
    return found


def _builder(session: Session, request: Build, base_at: Reference | None) -> Builder | None:
    """Open the requested builder; ``None`` is mlpack's own."""
    if request.builder == "acr":
        return _acr_builder(session, request, base_at)
    if request.builder == "docker":
        from mlpack.builders.docker import DockerBuilder

        return DockerBuilder(base_at)
    return None


def _acr_builder(session: Session, request: Build, base_at: Reference | None) -> Builder:
    from mlpack.azure.management import registry_account
    from mlpack.builders.acr import AcrBuilder

    repository = session.project.settings.repository
    if repository is None:
        raise UsageError(
            "no image repository is configured for ACR to push to",
            hint='add under [image]: repository = "contoso.azurecr.io/edge/model"',
        )
    place = request.acr or session.setting("acr")
    return AcrBuilder(
        account=registry_account(place, repository, session.azure_endpoint),
        repository=repository,
        open_store=session.registries.store,
        say=session.say,
        base_at=base_at,
    )


def _cohorts(session: Session, request: Build) -> Cohorts:
    """Read the devices of the group, from a fleet file or from the hub."""
    from mlpack.api.devices import devices
    from mlpack.api.plan import target_devices
    from mlpack.api.requests import Devices

    asked = Devices(request.device_group, fleet=request.fleet)
    return target_devices(session.project, devices(session, asked).devices)


def make(
    session: Session,
    plan: PreparedBuild,
    open_stream: Callable[[], Writable | None] = lambda: None,
) -> Release:
    """Build what was planned.

    ``open_stream`` is called if mlpack's own builder writes a layer, for what gets its bytes, too.
    """
    project, model, remote = session.project, plan.model, plan.remote
    lock = remote.lock if remote else project.lock()
    own = remote is None or remote.locked
    platforms = plan.request.platforms or (remote.platforms if remote else ())
    chosen = locked_platforms(project, lock, platforms)
    if own:
        check_base(project, lock, chosen)
    subject = Subject(
        project=project,
        lock=lock if own else None,
        model=model,
        platforms=chosen,
        bases=[base_image(project, locked) for locked in chosen],
    )
    criteria = Criteria(
        strategy=plan.request.strategy,
        engine=engine(project.settings.device.engine),
        link=Link.of(project.settings.device),
        cohorts=plan.cohorts,
        patchable=plan.builder is None,
        effort=plan.request.effort,
        step=session.step,
    )
    with trial_starts(session, subject, plan.request) as trials:
        decision = decide_strategy(subject, criteria)
        if decision.layer:
            images = decision.images
            decision.layer.keep(project.layout)
        else:
            trials.begin()
            builder = plan.builder or OciBuilder(open_stream())
            with session.step("making the layer"):
                images = builder.build(project.layout, model, subject.bases)
        with session.step("starting the release once"):
            starts = trials.finish(images)
    made = _Made(
        subject=subject,
        criteria=criteria,
        decision=decision,
        lock=lock,
        images=images,
        starts=starts,
    )
    return _keep(session, made, remote)


@dataclass(frozen=True, kw_only=True)
class _Made:
    """Images that have no name yet, and how they came to be."""

    subject: Subject
    criteria: Criteria
    decision: Decision
    lock: Lock
    images: tuple[Image, ...]
    starts: Mapping[Platform, TrialStart]

    @property
    def content(self) -> RecordContent:
        """The record, with the starts."""
        return RecordContent(
            self.record, {each.digest: self.starts[each.platform] for each in self.images}
        )

    @property
    def record(self) -> dict[str, object]:
        """The identity record."""
        below, choice = self.decision.below, self.decision.choice
        anchor = below.target.digest if below else None
        whole = choice.layers["layer"] if self.decision.layer else None
        return identity(self.lock, self.subject.model, self.images, anchor, whole)


def _keep(session: Session, made: _Made, remote: RemoteBase | None) -> Release:
    """Name the release; note it in the ledger, and in the lock if it is the anchor now."""
    project, model = session.project, made.subject.model
    decision, below, base = made.decision, made.decision.below, made.subject.bases[0]
    choice = decision.choice
    with project.exclusive(), held_back():
        now = session.clock.now()
        target, index = keep_release(project.layout, model, made.images, made.content, now)
        if remote is not None:
            place = _place_below(project, remote, decision)
            remember_base(project.layout, release_tag(model.name, model.version), place)
        due = becomes_anchor(made.criteria, choice, base, made.images[0])
        anchored = due and keep_anchor(project, made.lock, model.name, target.digest)
        anchor = target.digest if anchored else made.lock.anchors.get(model.name)
        release = Release(
            version=model,
            target=target,
            reference=_reference(project, model, target),
            images=made.images,
            base=made.lock.base.index,
            transfer=_predict(project, below.images[0] if below else base, made.images[0], index),
            choice=choice if due else without_anchor(choice),
            anchor=below.target.digest if below else anchor,
            anchored=anchored,
            starts=made.starts,
        )
        Ledger(project.ledger).record_release(_entry(release, made.record, now))
    return release


def _place_below(project: ProjectDirectory, base: RemoteBase, decision: Decision) -> Reference:
    """Where the layers below the top one are: with the base, or with an anchor that is not here."""
    anchor, where = decision.below, project.settings.repository
    if anchor is None or where is None:
        return base.place
    here = project.layout.exists(anchor.images[0].layers[-1].descriptor)
    return base.place if here else where.pinned(anchor.target.digest)


def _reference(project: ProjectDirectory, model: ModelVersion, target: Descriptor) -> str:
    where = project.settings.repository
    return str(where.pinned(target.digest)) if where else f"{model.name}@{target.digest}"


def _entry(release: Release, record: dict[str, object], now: datetime) -> ReleaseRecord:
    return ReleaseRecord(
        digest=release.target.digest,
        name=release.version.name,
        version=release.version.version,
        model_digest=release.version.digest,
        base_digest=release.base.digest,
        strategy=release.strategy,
        layer_digest=release.layer.digest,
        layer_bytes=release.layer.size,
        identity=record,
        created=now,
    )


def _predict(project: ProjectDirectory, base: Image, image: Image, index: Index | None) -> Transfer:
    device = project.settings.device
    state = DeviceState.holding(base)
    return transfer(engine(device.engine), image, index, state, Link.of(device))
