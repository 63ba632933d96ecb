"""``mlpack plan``: what a release takes on a device group, before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from decimal import Decimal

from mlpack.api.diff import find_move
from mlpack.api.groups import group_engine, group_tariff
from mlpack.api.strategy import Cohorts
from mlpack.api.ways import ways, whole_layer
from mlpack.model.groups import DeviceGroup
from mlpack.model.recipe import NONE
from mlpack.model.version import ModelVersion
from mlpack.oci.descriptor import Platform
from mlpack.oci.image import Image
from mlpack.oci.index import NoSuchPlatform
from mlpack.plan.engines import DeviceState, Engine
from mlpack.plan.fleet import EMPTY, UNKNOWN, Cohort, CohortPlan, Device, FleetPlan, cohorts
from mlpack.plan.patching import Meant
from mlpack.plan.rollout import bucket
from mlpack.stores.patches import Anchor
from mlpack.stores.project import Project
from mlpack.stores.references import Found, NoSuchImage, find_image


def plan(
    project: Project,
    group: DeviceGroup,
    release: str,
    devices: Iterable[Device],
    *,
    stages: tuple[Decimal, ...] = (),
) -> FleetPlan:
    """Work out what bringing ``devices`` to ``release`` takes; nothing is sent.

    ``release`` is ``NAME[:VERSION]`` or what ``mlpack build`` prints; empty for the newest of the
    project's model. Raises what finding an image raises.
    """
    target = find_image(project, release or project.recipe.model)
    name, version = target.release
    engine = group_engine(project, group)
    steps = stages or group.stages
    found = cohorts([(each, bucket(each.id)) for each in devices], steps)
    missing: dict[str, None] = {}
    planned = tuple(
        _cohort(project, engine, each, target, f"{name}:{version}", missing) for each in found
    )
    return FleetPlan(
        group=group.name,
        condition=group.condition.text,
        release=f"{name}:{version}",
        digest=target.target.digest,
        engine=engine.name,
        stages=steps,
        cohorts=planned,
        tariff=group_tariff(project, group),
        link_bytes_per_second=group.link_bytes_per_second,
        way="patch" if whole_layer(project, target) else "layer",
        missing=tuple(missing),
    )


def meant(project: Project, devices: Iterable[Device]) -> Cohorts:
    """The devices a release is for, as what they hold says; without those that run it."""
    found = cohorts([(each, bucket(each.id)) for each in devices], (Decimal(1),))

    def on(anchor: Anchor, model: ModelVersion) -> tuple[Meant, ...]:
        others = (each for each in found if each.holds != str(model))
        return tuple(_meant(project, each, anchor.images) for each in others)

    return on


def _meant(project: Project, cohort: Cohort, images: Sequence[Image]) -> Meant:
    """A cohort on a platform the release has no image for is counted with the first."""
    platform = Platform.parse(cohort.platform) if cohort.platform else images[0].platform
    fitting = (n for n, each in enumerate(images) if each.platform.fits(platform))
    number = next(fitting, 0)
    state = DeviceState()
    if cohort.holds not in (EMPTY, UNKNOWN):
        with suppress(NoSuchImage, NoSuchPlatform):
            held = find_image(project, cohort.holds, images[number].platform)
            state = DeviceState.holding(held.image, indexes=[held.index] if held.index else [])
    return Meant(holds=cohort.holds, devices=cohort.devices, state=state, image=number)


def _cohort(
    project: Project,
    engine: Engine,
    cohort: Cohort,
    target: Found,
    release: str,
    missing: dict[str, None],
) -> CohortPlan:
    if cohort.holds == release:
        return CohortPlan(cohort=cohort, ways=())
    try:
        platform = Platform.parse(cohort.platform) if cohort.platform else None
        new = find_image(project, release, platform) if platform else target
    except NoSuchPlatform:
        missing[f"{release} has no image for {cohort.platform}: those devices cannot run it"] = None
        return CohortPlan(cohort=cohort, ways=())
    old = NONE if cohort.holds in (EMPTY, UNKNOWN) else cohort.holds
    try:
        move = find_move(project, old, new)
    except NoSuchImage:
        missing[f"{old} is not in this project: devices on it are counted as empty ones"] = None
        move = find_move(project, NONE, new)
    found, usual = ways(project, engine, move)
    if not usual:
        missing["the usual build: this release is not on the base mlpack.lock names"] = None
    return CohortPlan(cohort=cohort, ways=found)
