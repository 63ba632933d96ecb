"""How many processors this process may use: affinity and the container's limit."""

from __future__ import annotations

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def limit(cgroups: Path = CGROUPS) -> int | None:
    """Processors allowed, rounded down but one at least; ``None`` where all may be used."""
    allowed = _affinity()
    quota = _quota(cgroups)
    if quota is not None:
        return max(1, min(allowed, int(quota)))
    return allowed if allowed < (os.cpu_count() or 1) else None


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota(cgroups: Path) -> float | None:
    """Processors by the cgroup's quota, version 2 or 1.

    A container sees its own group as the root. Source: the kernel's
    Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst.
    """
    words = _read(cgroups / "cpu.max").split()
    if not words:
        cpu = cgroups / "cpu"
        words = (_read(cpu / "cpu.cfs_quota_us") + " " + _read(cpu / "cpu.cfs_period_us")).split()
    if len(words) != 2 or not all(each.isdecimal() for each in words):
        return None  # "max", -1, or no cgroups at all
    quota, period = map(int, words)
    return quota / period if quota and period else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
