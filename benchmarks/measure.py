"""Timing whole processes: wall clock, and processor time of the process and its children."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlpack.base.python import find_uv

RUNS = 7


@dataclass(frozen=True, slots=True)
class Run:
    """One finished process; seconds."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Case:
    """A command to time, and a line of shell to run before each run, untimed."""

    name: str
    command: Sequence[str]
    before: str = ""
    cpu_counts: bool = True
    """Whether the work is done by this process, and not by a daemon."""


def once(case: Case) -> Run:
    """Run the command; what it says is shown only if it fails."""
    if case.before:
        subprocess.run(["sh", "-ec", case.before], check=True, capture_output=True)
    os.sync()
    start = time.perf_counter()
    with subprocess.Popen(
        case.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        said = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{case.name} failed:\n{said}")
    return Run(time.perf_counter() - start, usage.ru_utime + usage.ru_stime)


def installed(folder: Path) -> Path:
    """mlpack as a user installs it: without what only developers have, byte code compiled."""
    place = folder / "installed"
    uv = find_uv()
    checkout = Path(__file__).parents[1]
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(place)], check=True)
    subprocess.run(
        [uv, "pip", "install", "-q", "--compile-bytecode", "--python", str(place), str(checkout)],
        check=True,
    )
    return place / "bin" / "mlpack"


def interleaved(cases: Sequence[Case], runs: int = RUNS) -> dict[str, list[Run]]:
    """Time all cases in turn, A B C A B C …, after one warm-up, so drift hits all alike."""
    found: dict[str, list[Run]] = {case.name: [] for case in cases}
    for turn in range(runs + 1):
        for case in cases:
            done = once(case)
            if turn:
                found[case.name].append(done)
    return found


def report(title: str, cases: Sequence[Case], found: Mapping[str, Sequence[Run]]) -> None:
    """Print medians, ranges, and each case's ratio to the first (pair by pair, the median)."""
    print(f"\n{title}")
    print(f"{'':<44}{'wall s':>8}{'min-max':>15}{'cpu s':>8}{'wall ratio':>12}")
    first = found[cases[0].name]
    for case in cases:
        runs = found[case.name]
        walls = [run.wall for run in runs]
        ratio = statistics.median(a.wall / b.wall for a, b in zip(runs, first, strict=True))
        cpu = f"{statistics.median(run.cpu for run in runs):.3f}" if case.cpu_counts else "daemon"
        spread = f"{min(walls):.3f}-{max(walls):.3f}"
        print(f"{case.name:<44}{statistics.median(walls):>8.3f}{spread:>15}{cpu:>8}{ratio:>12.2f}")
