"""What a device's edgeAgent reports about a release, and the queries that ask for it.

``lastDesiredStatus`` is 200 once edgeAgent carried out its plan, 400, 412 or 417 where it
cannot read the deployment, and 500 where a step failed. A pull that takes longer than
edgeAgent waits (300 s) is reported as 500 "The operation was canceled" while the pull goes on
or is tried again: that is no failure, and neither is a device that says nothing
(Azure/iotedge, edge-agent sources of 1.6). A report counts while it is about the configuration
that the hub wants now; one from before says nothing about this rollout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["running", "failed", "pulling", "silent"]

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TRANSITIONAL = ("operation was canceled", "operation was cancelled", "task was canceled")
_BROKEN_CONFIG = frozenset({400, 412, 417})
_DOWN = frozenset({"failed", "backoff", "unhealthy", "stopped", "dead"})
MAX_REASON = 80
_CURRENT = "properties.desired.$version = properties.reported.lastDesiredVersion"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReport:
    """The part of an edgeAgent's twin that tells of one module."""

    device: str
    image: str = ""
    """The module's image; empty where it reports none."""

    status: str = ""
    """The module's ``runtimeStatus``."""

    detail: str = ""
    code: int = 0
    """``lastDesiredStatus``; 0 where nothing was reported."""

    description: str = ""
    current: bool = False
    """Whether the report is about the configuration the hub wants now."""

    platform: str = ""
    """``linux/arm64``, where it is reported."""

    @classmethod
    def of(cls, twin: Mapping[str, object], module: str) -> AgentReport:
        """Read a module twin of ``$edgeAgent``; what is missing or odd reads as nothing."""
        reported = _map(_map(twin.get("properties")).get("reported"))
        desired = _map(_map(twin.get("properties")).get("desired"))
        last = _map(reported.get("lastDesiredStatus"))
        mine = _map(_map(reported.get("modules")).get(module))
        platform = _map(_map(reported.get("runtime")).get("platform"))
        version = desired.get("$version")
        code = last.get("code")
        return cls(
            device=str(twin.get("deviceId", "")),
            image=_text(_map(mine.get("settings")).get("image")),
            status=_text(mine.get("runtimeStatus")),
            detail=_text(mine.get("statusDescription")),
            code=code if isinstance(code, int) else 0,
            description=_text(last.get("description")),
            current=version is not None and version == reported.get("lastDesiredVersion"),
            platform=_platform(_text(platform.get("os")), _text(platform.get("architecture"))),
        )

    def outcome(self, image: str) -> Outcome:
        """What it says about ``image``."""
        if not self.current:
            return "silent"
        if self.image == image and self.status == "running":
            return "running"
        if self.image == image and self.status in _DOWN:
            return "failed"
        if self.code in (0, 200):
            return "silent"
        if self.code in _BROKEN_CONFIG:
            return "failed"
        if any(each in self.description.lower() for each in _TRANSITIONAL):
            return "pulling"
        return "failed" if self.code == 500 else "silent"

    def reason(self, image: str) -> str:
        """What a failed device says, in a short line that many devices share."""
        own = self.image == image and self.status in _DOWN
        mine = f"{self.status}: {self.detail}".rstrip(": ")
        said = mine if own else f"{self.code} {self.description}"
        line = " ".join("".join(char if char.isprintable() else " " for char in said).split())
        return line if len(line) <= MAX_REASON else f"{line[: MAX_REASON - 1]}…"


def name_in_query(name: str) -> str:
    """A property's name in a query; one of other signs stands in brackets."""
    return name if _PLAIN.fullmatch(name) else f"[[{name}]]"


def running_query(deployment: str, module: str, image: str, what: str = "deviceId") -> str:
    """Devices of a deployment that run ``image``: a custom metric of the deployment."""
    mine = f"properties.reported.modules.{name_in_query(module)}"
    return (
        f"{_applied(deployment, what)} AND {_CURRENT} AND {mine}.settings.image = '{image}'"
        f" AND {mine}.runtimeStatus = 'running'"
    )


def down_query(deployment: str, module: str, image: str) -> str:
    """Devices that have the image and whose module does not stay up: a custom metric, too."""
    mine = f"properties.reported.modules.{name_in_query(module)}"
    return (
        f"{_applied(deployment)} AND {_CURRENT} AND {mine}.settings.image = '{image}'"
        f" AND {mine}.runtimeStatus != 'running'"
    )


def trouble_query(deployment: str, module: str) -> str:
    """Devices that do not report success: their twins say which failed, and why."""
    mine = f"properties.reported.modules.{name_in_query(module)}"
    unwell = (
        f"properties.reported.lastDesiredStatus.code != 200 OR {mine}.runtimeStatus != 'running'"
    )
    return f"{_applied(deployment, '*')} AND {_CURRENT} AND ({unwell})"


def _applied(deployment: str, what: str = "deviceId") -> str:
    agents = f"SELECT {what} FROM devices.modules WHERE moduleId = '$edgeAgent'"  # noqa: S608
    return f"{agents} AND configurations.[[{deployment}]].status = 'Applied'"


def _platform(os: str, architecture: str) -> str:
    known = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    found = known.get(architecture.lower())
    return f"{os.lower()}/{found}" if os and found else ""


def _map(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
