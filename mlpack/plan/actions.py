"""What a rollout does next, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tag:
    """Give devices their bucket."""

    buckets: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Create the release's deployment for its first stage."""

    stage: int
    condition: str
    priority: int
    previous: str
    """The deployment that applies without it; empty where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Widen:
    """Give the deployment another target condition: that of ``stage``."""

    stage: int
    condition: str


@dataclass(frozen=True, slots=True)
class Complete:
    """Mark the deployment as done."""

    id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Mark the deployment as one that goes, and why; the next steps are :class:`Remember`
    and :class:`Delete`."""

    id: str
    why: str


@dataclass(frozen=True, slots=True)
class Remember:
    """Let the deployment that takes over remember what was undone."""

    id: str
    note: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a deployment that was stopped, so that the one below it applies."""

    id: str
    why: str
    heir: str = ""


@dataclass(frozen=True, slots=True)
class Prune:
    """Delete old deployments that apply to no device."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again later."""

    why: str


@dataclass(frozen=True, slots=True)
class Done:
    """All devices of the group are meant, enough of them run the release."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do nothing: it would be wrong, or a policy is against it."""

    why: str
    hint: str = ""
    policy: bool = False


Action = Tag | Create | Widen | Complete | Stop | Remember | Delete | Prune | Wait | Done | Refuse
