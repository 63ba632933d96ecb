"""``mlpack diff`` and ``mlpack plan``: what one device fetches to reach an image, and a group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from mlpack.errors import MlpackError
from mlpack.model.version import NONE
from mlpack.oci.descriptor import Descriptor, Digest, InvalidContent, Node, Platform, Reference
from mlpack.oci.image import Image, Layer, NoSuchPlatform
from mlpack.oci.platforms import best, compatible
from mlpack.plan.engines import DeviceState, EngineRule, Link, PullScenario
from mlpack.plan.engines import engine as known_engine
from mlpack.plan.fleet import EMPTY, UNKNOWN, Cohort, CohortPlan, Device, FleetPlan, cohorts
from mlpack.plan.release_strategy import TargetDevices
from mlpack.plan.transfer import (
    Alternative,
    AlternativeName,
    PullDiff,
    alternative,
    diff_pull,
    usual_build,
    whole_image,
    with_layer,
)
from mlpack.project.device_groups import find_group, group_engine, group_tariff
from mlpack.project.directory import ProjectDirectory
from mlpack.project.engine_support import all_refusals, layer_facts
from mlpack.project.references import (
    FoundImage,
    NoSuchImage,
    find_image,
    in_registry,
    is_archive,
    never_started,
)
from mlpack.rollout.decide import bucket
from mlpack.settings.project_settings import DeviceSettings
from mlpack.settings.targets import DeviceGroup
from mlpack.stores.records import read_record

if TYPE_CHECKING:
    from mlpack.api.release_strategy import Cohorts
    from mlpack.api.requests import Diff, Plan
    from mlpack.api.session import Session
    from mlpack.model.version import ModelVersion
    from mlpack.project.patch_releases import Anchor
    from mlpack.registry.repository import Registries


class OtherPlatform(MlpackError):
    """Two images for different platforms."""

    hint = "name the platform of both with --platform"


@dataclass(frozen=True, kw_only=True)
class ImageUpdate:
    """Two images, and the pull that updates a device from one to the other."""

    old: FoundImage | None
    new: FoundImage
    pull: PullScenario


def diff(session: Session, request: Diff) -> PullDiff:
    """Plan the pull of an image on a device that holds another (or ``none``).

    EngineRule and link are the project's; outside of one, moby over TLS. Raises
    :class:`~mlpack.plan.engines.UnknownEngine`, :class:`OtherPlatform` and what
    finding an image raises.
    """
    project = session.project_if_any
    device = project.settings.device if project else DeviceSettings()
    rule = known_engine(request.engine or device.engine)
    new = session.find(request.new, request.platform)
    update = session_update(session, request, new)
    facts = layer_facts(new.store, new.image, rule)
    return diff_pull(rule.name, request.old, request.new, update.pull, facts)


def session_update(session: Session, request: Diff, new: FoundImage) -> ImageUpdate:
    """Find the request's old image for the device that takes ``new``, and plan the update."""
    platform = request.platform or new.image.platform
    held = None if request.old == NONE else session.find(request.old, platform)
    return _update(session.project_if_any, held, new, loaded=request.loaded)


def find_update(
    project: ProjectDirectory,
    old: str,
    new: FoundImage,
    *,
    registries: Registries | None = None,
) -> ImageUpdate:
    """Find ``old`` (or ``none``) in a project for the platform of ``new``, and plan the update."""
    platform = new.image.platform
    held = None if old == NONE else find_image(project, old, platform, registries=registries)
    return _update(project, held, new)


def _update(
    project: ProjectDirectory | None,
    held: FoundImage | None,
    new: FoundImage,
    *,
    loaded: bool = False,
) -> ImageUpdate:
    """``loaded``: the device got the old image from a file, and no registry's digests with it."""
    if held is not None:
        _check_platform(held, new)
    device = project.settings.device if project else DeviceSettings()
    named = Reference.parse(new.name) if in_registry(new.name) else None
    link = Link.of(device, named or (project.settings.repository if project else None))
    pull = PullScenario(image=new.image, index=new.index, state=_state(held, loaded), link=link)
    return ImageUpdate(old=held, new=new, pull=pull)


def _state(held: FoundImage | None, loaded: bool) -> DeviceState:
    """Return what the device holds; a ``docker save`` file can only have been loaded."""
    if held is None:
        return DeviceState()
    if loaded or is_archive(held.name):
        return DeviceState.loaded(held.image)
    return DeviceState.holding(held.image, indexes=[held.index] if held.index else [])


def _check_platform(old: FoundImage, new: FoundImage) -> None:
    ours, theirs = old.image.platform, new.image.platform
    if not compatible(ours, theirs):
        raise OtherPlatform(f"{old.name} is for {ours}, {new.name} for {theirs}")


def ways(
    project: ProjectDirectory, engine: EngineRule, update: ImageUpdate
) -> tuple[tuple[Alternative, ...], bool]:
    """Work out all ways of bringing a device to a release, dearest first, mlpack's own last.

    Also returns whether the usual build is among them: if the release is not on the locked base,
    it is not known which layers hold its dependencies.
    """
    pull = update.pull
    strategy, whole = whole_layer(project, update.new)
    # What is compared carries the model as it is in one layer, as other builds do.
    full = replace(pull, image=with_layer(pull.image, whole, strategy)) if whole else pull
    found = [whole_image(engine, pull)]
    locked = project.lock().base.on(pull.image.platform) if project.has_lock else None
    held = update.old.image if update.old else None
    usual = usual_build(engine, full, held, locked.layers) if locked else None
    if usual:
        found.append(usual)
    found.append(alternative("layer", engine, full))
    if whole:
        found.append(alternative(strategy, engine, pull))
    return tuple(found), usual is not None


def whole_layer(
    project: ProjectDirectory, release: FoundImage
) -> tuple[AlternativeName, Layer | None]:
    """Return a release's strategy, and the layer it would have with its model as it is.

    ``None`` if it has that layer. It is in the release's record; a release that came without one
    is taken as it is.
    """
    if release.store is not project.layout:
        return "layer", None
    record = read_record(project.layout, release.target)
    strategies: tuple[AlternativeName, ...] = ("packed", "patch")
    strategy = next((each for each in strategies if record.get("strategy") == each), None)
    if strategy is None or len(release.image.layers) < 2:
        return "layer", None
    try:
        node = Node(record, "record").need("whole")
        return strategy, Layer(Descriptor.from_json(node), Digest.from_json(node.need("diff_id")))
    except InvalidContent:
        return "layer", None


def plan_request(session: Session, request: Plan) -> FleetPlan:
    """Work out what bringing a device group to a release takes; nothing is sent."""
    group = find_group(session.project, request.device_group)

    def read() -> Iterator[Device]:
        from mlpack.api.devices import devices
        from mlpack.api.requests import Devices

        yield from devices(session, Devices(request.device_group, fleet=request.fleet)).devices

    # The devices are read once the release and the group's settings are known to be right.
    return plan(session.project, group, request.release, read(), stages=request.stages)


def plan(
    project: ProjectDirectory,
    group: DeviceGroup,
    release: str,
    devices: Iterable[Device],
    *,
    stages: tuple[Decimal, ...] = (),
) -> FleetPlan:
    """Work out what bringing ``devices`` to ``release`` takes; nothing is sent.

    ``devices`` is read once everything else was checked, so a generator may query a hub.

    ``release`` is ``NAME[:VERSION]`` or what ``mlpack build`` prints; empty for the newest of the
    project's model. Raises :class:`~mlpack.oci.image.NoSuchPlatform` if no device can run it, and
    what finding an image raises.
    """
    engine, tariff = group_engine(project, group), group_tariff(project, group)
    target = find_image(project, release or project.settings.model)
    named = ":".join(target.release)
    stages = stages or group.stages
    planner = _Planner(project, engine, target, named)
    planned = tuple(planner.plan(each) for each in cohorts(_with_buckets(devices), stages))
    if planned and planner.unfit == len(planned):
        raise NoSuchPlatform(f"no device of {group.name} can run {named}: {planner.missing[0]}")
    return FleetPlan(
        group=group.name,
        condition=group.condition.text,
        release=named,
        digest=target.target.digest,
        engine=engine.name,
        stages=stages,
        cohorts=planned,
        tariff=tariff,
        link_bytes_per_second=group.link_bytes_per_second,
        strategy=whole_layer(project, target)[0],
        missing=tuple(planner.missing),
        never_started=never_started(target),
        refusals=all_refusals(engine, target),
    )


def _with_buckets(devices: Iterable[Device]) -> Iterable[tuple[Device, int]]:
    return ((each, bucket(each.id)) for each in devices)


class _Planner:
    """Plans one cohort after the other, and collects what could not be worked out."""

    def __init__(
        self, project: ProjectDirectory, engine: EngineRule, target: FoundImage, release: str
    ) -> None:
        self._project = project
        self._engine = engine
        self._target = target
        self._release = release
        self.missing: list[str] = []
        self.unfit = 0
        """Cohorts on a platform that the release has no image for."""

    def plan(self, cohort: Cohort) -> CohortPlan:
        if cohort.holds == self._release:
            return CohortPlan(cohort=cohort, alternatives=(), current=True)
        new = self._target
        if cohort.platform:
            try:
                new = find_image(self._project, self._release, Platform.parse(cohort.platform))
            except NoSuchPlatform:
                self.unfit += 1
                self._miss(
                    f"{self._release} has no image for {cohort.platform}: those devices cannot "
                    "run it"
                )
                return CohortPlan(cohort=cohort, alternatives=())
        found, usual = ways(self._project, self._engine, self._move(cohort, new))
        if not usual:
            self._miss("the usual build: this release is not based on the base in mlpack.lock")
        return CohortPlan(cohort=cohort, alternatives=found)

    def _move(self, cohort: Cohort, new: FoundImage) -> ImageUpdate:
        old = NONE if cohort.holds in (EMPTY, UNKNOWN) else cohort.holds
        try:
            return find_update(self._project, old, new)
        except NoSuchImage:
            self._miss(f"{old} is not in this project: devices on it are counted as empty")
            return find_update(self._project, NONE, new)

    def _miss(self, what: str) -> None:
        if what not in self.missing:
            self.missing.append(what)


def target_devices(project: ProjectDirectory, devices: Iterable[Device]) -> Cohorts:
    """Return the devices a release is for, by what they hold; without those that run it."""
    found = cohorts(_with_buckets(devices), (Decimal(1),))

    def on(anchor: Anchor, model: ModelVersion) -> tuple[TargetDevices, ...]:
        others = (each for each in found if each.holds != str(model))
        return tuple(_target(project, each, anchor.images) for each in others)

    return on


def _target(project: ProjectDirectory, cohort: Cohort, images: Sequence[Image]) -> TargetDevices:
    """Return a cohort as targets; on a platform without an image it counts with the first one."""
    platform = Platform.parse(cohort.platform) if cohort.platform else images[0].platform
    number = best(platform, [each.platform for each in images]) or 0
    state = DeviceState()
    if cohort.holds not in (EMPTY, UNKNOWN):
        with suppress(NoSuchImage, NoSuchPlatform):
            held = find_image(project, cohort.holds, images[number].platform)
            state = DeviceState.holding(held.image, indexes=[held.index] if held.index else [])
    return TargetDevices(holds=cohort.holds, devices=cohort.devices, state=state, image=number)
