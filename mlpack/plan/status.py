"""How a device group's latest rollout stands, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlpack.model.groups import DeviceGroup
from mlpack.plan import deployed
from mlpack.plan.deployed import Deployed


@dataclass(frozen=True, slots=True)
class StageStatus:
    """One stage: its share, the devices up to it, and how many of them run the release."""

    share: str
    devices: int
    running: int
    state: str
    """``done``, ``now`` or ``ahead``."""


@dataclass(frozen=True, kw_only=True)
class GroupStatus:
    """A device group and its latest deployment."""

    group: DeviceGroup
    current: Deployed | None = None
    targeted: int = 0
    applied: int = 0
    running: int = 0
    failed: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    stages: tuple[StageStatus, ...] = ()
    older: tuple[Deployed, ...] = ()

    @property
    def silent(self) -> int:
        """Devices that said neither that it runs nor that it failed."""
        return max(0, self.targeted - self.running - self.failed)

    def to_json(self) -> dict[str, object]:
        """One element of the ``groups`` of ``mlpack --json status``."""
        current = self.current
        return {
            "group": self.group.name,
            "release": current.release if current else None,
            "deployment": current.id if current else None,
            "state": current.state if current else None,
            "started": current.labels.get(deployed.STARTED) if current else None,
            "since": current.labels.get(deployed.SINCE) if current else None,
            "targeted": self.targeted,
            "applied": self.applied,
            "running": self.running,
            "failed": self.failed,
            "silent": self.silent,
            "reasons": dict(self.reasons),
            "stages": [
                {
                    "share": each.share,
                    "devices": each.devices,
                    "running": each.running,
                    "state": each.state,
                }
                for each in self.stages
            ],
            "older": [each.release for each in self.older],
        }
