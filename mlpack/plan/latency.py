"""How long requests took, and how many failed: measured times in, a summary out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request: seconds until its answer was whole, and what was wrong, if anything."""

    seconds: float
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Times are those of requests that were answered, in seconds; 0 where none was."""

    requests: int
    answered: int
    seconds: float
    """From the first request to the last answer."""

    p50: float
    p90: float
    p99: float
    longest: float
    problems: Mapping[str, int]
    """How often what went wrong, the most frequent first."""

    @property
    def rate(self) -> float:
        """Answered requests a second."""
        return self.answered / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, object]:
        """For ``mlpack --json score``."""
        return {
            "requests": self.requests,
            "answered": self.answered,
            "seconds": round(self.seconds, 6),
            "requests_per_second": round(self.rate, 3),
            "p50": round(self.p50, 6),
            "p90": round(self.p90, 6),
            "p99": round(self.p99, 6),
            "longest": round(self.longest, 6),
            "problems": dict(self.problems),
        }


def summarize(outcomes: Sequence[Outcome], seconds: float) -> Summary:
    """Sum up requests that took ``seconds`` together."""
    times = sorted(each.seconds for each in outcomes if not each.problem)
    problems = Counter(each.problem for each in outcomes if each.problem)
    return Summary(
        requests=len(outcomes),
        answered=len(times),
        seconds=seconds,
        p50=percentile(times, 50),
        p90=percentile(times, 90),
        p99=percentile(times, 99),
        longest=times[-1] if times else 0.0,
        problems=dict(problems.most_common()),
    )


def percentile(ordered: Sequence[float], share: int) -> float:
    """The least value that ``share`` per cent do not exceed (nearest rank); 0 of nothing.

    >>> percentile([1, 2, 3, 4], 50), percentile([1, 2, 3, 4], 99), percentile([], 50)
    (2, 4, 0.0)
    """
    if not ordered:
        return 0.0
    return ordered[max(1, math.ceil(len(ordered) * share / 100)) - 1]
