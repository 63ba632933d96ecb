"""What a hub holds of mlpack's deployments: their labels are the state of every rollout.

The labels are written with the deployment in one request, under its ETag, so that
a rollout goes on from them on any machine, whatever became of the one that began it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from mlpack.oci.digest import Digest

GROUP, RELEASE, DIGEST = "mlpack.group", "mlpack.release", "mlpack.digest"
STATE, STAGE, STAGES = "mlpack.state", "mlpack.stage", "mlpack.stages"
SUCCESS, FAILURES, SOAK = "mlpack.success", "mlpack.failures", "mlpack.soak"
STARTED, SINCE, PREVIOUS = "mlpack.started", "mlpack.since", "mlpack.previous"
REASON, UNDONE, IMAGE = "mlpack.reason", "mlpack.undone", "mlpack.image"

State = Literal["rolling", "stopping", "complete", "base", "foreign"]
_STATES: Mapping[str, State] = {
    "rolling": "rolling",
    "stopping": "stopping",
    "complete": "complete",
    "base": "base",
}
MAX_ID = 128
_UNUSABLE = re.compile(r"[^a-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """One deployment (*configuration*) of the hub."""

    id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    condition: str = ""
    priority: int = 0
    created: str = ""

    @property
    def group(self) -> str:
        """The device group it is mlpack's for; empty where it is not mlpack's."""
        return self.labels.get(GROUP, "")

    @property
    def state(self) -> State:
        """How far it is; ``foreign`` where it is not mlpack's."""
        return _STATES.get(self.labels.get(STATE, ""), "foreign") if self.group else "foreign"

    @property
    def release(self) -> str:
        """``NAME:VERSION``."""
        return self.labels.get(RELEASE, "")

    @property
    def stage(self) -> int:
        """Which stage it is in, from 0."""
        text = self.labels.get(STAGE, "")
        return int(text) - 1 if text.isdecimal() and int(text) > 0 else 0

    @property
    def since(self) -> datetime | None:
        """When that stage began."""
        return read_moment(self.labels.get(SINCE, ""))

    @property
    def order(self) -> tuple[int, str]:
        """Of two deployments for one device the hub applies that of the higher order."""
        return self.priority, self.created


def deployment_id(group: str, release: str, digest: Digest) -> str:
    """The id of a release's deployment to a group: one per release, as its content never changes.

    >>> deployment_id("vans", "fan.v2:2.1", Digest.of(b"x"))
    'mlpack-vans-fan-v2-2-1-2d711642'
    """
    plain = _UNUSABLE.sub("-", release.lower())
    head = f"mlpack-{group}-{plain}"[: MAX_ID - 9]
    return f"{head}-{digest.hex[:8]}"


def base_id(group: str) -> str:
    """The id of a group's base deployment."""
    return f"mlpack-{group}-base"


def of_group(deployments: Iterable[Deployed], group: str) -> tuple[Deployed, ...]:
    """A group's releases, the one that applies first; without its base deployment."""
    found = (d for d in deployments if d.group == group and d.state in _RELEASES)
    return tuple(sorted(found, key=lambda each: each.order, reverse=True))


_RELEASES = {"rolling", "stopping", "complete"}


def moment(when: datetime) -> str:
    """A moment as a label holds it."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_moment(text: str) -> datetime | None:
    """The moment in a label; ``None`` where there is none that can be read."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
