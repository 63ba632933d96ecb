"""``mlpack rollback``: back to a release whose deployment is still on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpack.errors import MlpackError
from mlpack.model.version import NONE
from mlpack.plan.engines import DeviceState, Link
from mlpack.plan.transfer import Transfer, transfer
from mlpack.project.device_groups import find_group, group_engine
from mlpack.project.directory import ProjectDirectory
from mlpack.project.ledger import Ledger
from mlpack.project.references import exact_name, find_image
from mlpack.rollout.decide import (
    Delete,
    Done,
    HubDeployment,
    Label,
    Observation,
    RolloutRefused,
    go_back,
    moment,
    of_group,
)
from mlpack.rollout.hub import count
from mlpack.rollout.record import record_undone
from mlpack.rollout.run import MAX_STEPS, guarded, undo_step
from mlpack.settings.targets import DeviceGroup

if TYPE_CHECKING:
    from mlpack.api.requests import Rollback
    from mlpack.api.session import Session


@dataclass(frozen=True, kw_only=True)
class PreparedRollback:
    """A rollback that was checked and not yet begun."""

    group: DeviceGroup
    gone: tuple[HubDeployment, ...]
    """Deployments that will be deleted, the one that applies now first."""

    heir: HubDeployment | None
    """The deployment that applies then; ``None`` if the devices will run no release."""

    devices: int
    """How many devices the first of them targets."""

    transfer: Transfer | None
    """What each of them fetches; ``None`` if an image is not in this project."""

    ledger: Ledger

    @property
    def release(self) -> str:
        """The release that the devices will run."""
        return self.heir.release if self.heir else NONE

    def to_json(self) -> dict[str, object]:
        """Return what ``mlpack --json rollback`` prints."""
        return {
            "group": self.group.name,
            "from": self.gone[0].release if self.gone else self.release,
            "to": self.release,
            "deployment": self.heir.id if self.heir else None,
            "deleted": [each.id for each in self.gone],
            "devices": self.devices,
            "bytes": self.transfer.total * self.devices if self.transfer else None,
            "transfer": self.transfer.to_json() if self.transfer else None,
        }


def prepare(session: Session, request: Rollback) -> PreparedRollback:
    """Find the deployments between a group's release and the one to go back to.

    Changes nothing. Raises :class:`RolloutRefused`.
    """
    project, hub = session.project, session.hub
    group = find_group(project, request.device_group)
    group_engine(project, group)
    releases = of_group(hub.configurations(), group.name)
    if not releases:
        raise RolloutRefused(
            f"mlpack has deployed no release to {group.name}", hint="see: mlpack status"
        )
    heir = _heir(group.name, releases, exact_name(project.layout, request.to))
    gone = releases[: releases.index(heir)] if heir else releases
    return PreparedRollback(
        group=group,
        gone=gone,
        heir=heir,
        devices=count(hub, gone[0].condition) if gone else 0,
        transfer=_transfer(project, group, gone[0], heir) if gone and heir else None,
        ledger=Ledger(project.ledger),
    )


def _heir(group: str, releases: tuple[HubDeployment, ...], to: str) -> HubDeployment | None:
    if to == NONE:
        return None
    if not to and len(releases) < 2:
        raise RolloutRefused(
            f"{releases[0].release} is the only release on {group}",
            hint="deploy another one, or remove it: --to none",
        )
    found = (each for each in releases if each.release == to) if to else iter(releases[1:])
    heir = next(found, None)
    if heir is None:
        held = ", ".join(each.release for each in releases)
        raise RolloutRefused(
            f"the hub no longer has a deployment of {to} for {group} (it has: {held})",
            hint=f"deploy it again: mlpack deploy --device-group {group} {to} --stages 100%",
        )
    return heir


def _transfer(
    project: ProjectDirectory, group: DeviceGroup, now: HubDeployment, heir: HubDeployment
) -> Transfer | None:
    """Return what a device that holds both images transfers to start the older one."""
    try:
        new, old = find_image(project, now.release), find_image(project, heir.release)
    except MlpackError:
        return None
    if {str(new.target.digest), str(old.target.digest)} != {
        now.labels.get(Label.DIGEST),
        heir.labels.get(Label.DIGEST),
    }:
        return None
    indexes = [each.index for each in (new, old) if each.index]
    state = DeviceState.holding(new.image, old.image, indexes=indexes)
    link = Link.of(project.settings.device, project.settings.repository)
    return transfer(group_engine(project, group), old.image, old.index, state, link)


def rollback(session: Session, back: PreparedRollback) -> None:
    """Delete every deployment above the one to go back to; running it again changes nothing."""
    hub = session.hub
    to = back.heir.id if back.heir else ""
    why = f"rolled back by hand at {moment(session.clock.now())}"
    for _ in range(MAX_STEPS):
        seen = Observation(deployments=hub.configurations())
        action = go_back(back.group.name, to, seen, why)
        if isinstance(action, Done):
            return
        if isinstance(action, Delete):
            record_undone(back.ledger, action.id, action.why)
        with guarded():
            undo_step(hub, action, seen, session.say)
