"""``mlpack rollback``: back to a release whose deployment is still on the hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from mlpack.api.deploy import Refused
from mlpack.api.groups import find_group, group_engine
from mlpack.api.hub import Hub, Seen, configurations, count, deployments
from mlpack.api.rollout_run import MAX_STEPS
from mlpack.api.rollout_steps import Say, guarded, undo_step
from mlpack.errors import MlpackError
from mlpack.model.groups import DeviceGroup
from mlpack.model.recipe import NONE
from mlpack.oci.index import Index
from mlpack.plan import deployed
from mlpack.plan.actions import Delete, Done
from mlpack.plan.deployed import Deployed, moment, of_group
from mlpack.plan.engines import DeviceState
from mlpack.plan.rollout import Observation, go_back
from mlpack.plan.transfer import Link, Transfer, transfer
from mlpack.stores.ledger import Ledger
from mlpack.stores.project import Project
from mlpack.stores.references import Found, find_image


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """A way back that was looked at, and not taken."""

    project: Project
    group: DeviceGroup
    gone: tuple[Deployed, ...]
    """Deployments that will be deleted, the one that applies now first."""

    heir: Deployed | None
    """What applies then; ``None`` where the devices will run no release."""

    devices: int
    """How many devices the first of them means."""

    transfer: Transfer | None
    """What each of them fetches; ``None`` where an image is not known here."""

    @property
    def release(self) -> str:
        """What the devices will run."""
        return self.heir.release if self.heir else NONE

    def to_json(self) -> dict[str, object]:
        """What ``mlpack --json rollback`` prints."""
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


def prepare_rollback(project: Project, hub: Hub, name: str, to: str = "") -> Rollback:
    """Find the way from what group ``name`` has to release ``to``, or to the one before.

    ``to`` may be ``none``: the devices will run no release at all. Raises :class:`Refused`.
    """
    group = find_group(project, name)
    seen = _look(hub)
    releases = of_group(seen.observation.deployments, name)
    if not releases:
        raise Refused(
            f"no release of mlpack's is deployed to {name}", hint="look with: mlpack status"
        )
    heir = _heir(name, releases, to)
    gone = releases[: releases.index(heir)] if heir else releases
    return Rollback(
        project=project,
        group=group,
        gone=gone,
        heir=heir,
        devices=count(hub, gone[0].condition) if gone else 0,
        transfer=_transfer(project, group, gone[0], heir) if gone and heir else None,
    )


def _heir(group: str, releases: tuple[Deployed, ...], to: str) -> Deployed | None:
    if to == NONE:
        return None
    if not to and len(releases) < 2:
        raise Refused(
            f"{releases[0].release} is the only release on {group}",
            hint="deploy another one, or take it away: --to none",
        )
    found = next(
        (each for each in releases[0 if to else 1 :] if not to or each.release == to), None
    )
    if found is None:
        held = ", ".join(each.release for each in releases)
        raise Refused(
            f"the hub holds no deployment of {to} for {group} any more (it has: {held})",
            hint=f"send it anew: mlpack deploy --device-group {group} {to} --stages 100%",
        )
    return found


def _transfer(
    project: Project, group: DeviceGroup, now: Deployed, heir: Deployed
) -> Transfer | None:
    """What a device that holds both images sends and receives to start the older one."""
    try:
        new, old = find_image(project, now.release), find_image(project, heir.release)
    except MlpackError:
        return None
    if {str(new.target.digest), str(old.target.digest)} != {
        now.labels.get(deployed.DIGEST),
        heir.labels.get(deployed.DIGEST),
    }:
        return None
    state = DeviceState.holding(new.image, old.image, indexes=_indexes(new, old))
    link = Link.of(project.recipe.device, project.recipe.repository)
    return transfer(group_engine(project, group), old.image, old.index, state, link)


def _indexes(*images: Found) -> tuple[Index, ...]:
    return tuple(each.index for each in images if each.index)


def run_rollback(
    back: Rollback,
    hub: Hub,
    now: Callable[[], datetime],
    *,
    say: Say = lambda _: None,
) -> None:
    """Delete every deployment above the one to go back to; running it again changes nothing."""
    to = back.heir.id if back.heir else ""
    why = f"rolled back by hand at {moment(now())}"
    for _ in range(MAX_STEPS):
        seen = _look(hub)
        action = go_back(back.group.name, to, seen.observation, why)
        if isinstance(action, Done):
            return
        if isinstance(action, Delete):
            _record(back.project, action)
        with guarded():
            undo_step(hub, action, seen, say)


def _look(hub: Hub) -> Seen:
    found = configurations(hub)
    return Seen(Observation(deployments=deployments(found)), found)


def _record(project: Project, action: Delete) -> None:
    """Say in the ledger that the rollout ended so, where this machine knows of it."""
    ledger = Ledger(project.ledger)
    found = [e for e in ledger.rollouts() if e.planned.get("deployment") == action.id]
    if found:
        measured = dict(found[-1].measured or {})
        if measured.get("state") != "undone":
            ledger.record_measured(found[-1].id, {**measured, "state": "undone", "why": action.why})
