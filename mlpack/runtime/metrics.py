"""Figures for Prometheus, counted in plain numbers.

Its client takes longer to import than this whole server to start, so that is
left to the first request for ``/metrics``.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Histogram:
    """How many values fell into which bucket."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Counts up to each bound, the last without one."""
        found, sofar = [], 0
        for bound, count in zip((*map(float, self._bounds), None), self._counts, strict=True):
            sofar += count
            found.append(("+Inf" if bound is None else str(bound), float(sofar)))
        return found


class Metrics:
    """What a module counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._scored: Counter[str] = Counter()
        self._messages: Counter[tuple[str, str]] = Counter()
        self._request_seconds: dict[str, Histogram] = {}
        self._run_seconds = Histogram(_SECONDS)
        self._queue_seconds = Histogram(_SECONDS)
        self._joined = Histogram(_ROWS)

    def request(self, route: str, code: int, seconds: float) -> None:
        """Count an answer over HTTP."""
        with self._lock:
            self._requests[route, str(code)] += 1
            found = self._request_seconds.get(route)
            if found is None:
                found = self._request_seconds[route] = Histogram(_SECONDS)
            found.observe(seconds)

    def scored(self, code: int, queued: float, run: float, joined: int) -> None:
        """Count a request that was scored, over whatever it came; times in seconds."""
        with self._lock:
            self._scored[str(code)] += 1
            self._queue_seconds.observe(queued)
            self._run_seconds.observe(run)
            self._joined.observe(joined)

    def message(self, front: str, outcome: str) -> None:
        """Count what became of a message that came over ``front``, mqtt or iotedge."""
        with self._lock:
            self._messages[front, outcome] += 1

    def messages(self, front: str) -> dict[str, int]:
        """How many messages over ``front`` had which outcome."""
        with self._lock:
            return {each: count for (over, each), count in self._messages.items() if over == front}

    def refused(self, code: int) -> None:
        """Count a request that was not scored."""
        with self._lock:
            self._scored[str(code)] += 1

    def families(self) -> Iterator[Any]:
        """What was counted, as Prometheus' client has it."""
        from prometheus_client import core

        with self._lock:
            requests = core.CounterMetricFamily(
                "mlpack_requests", "Answers over HTTP.", labels=["route", "code"]
            )
            for (route, code), count in self._requests.items():
                requests.add_metric([route, code], count)
            yield requests
            scored = core.CounterMetricFamily(
                "mlpack_scores", "Requests by the status of their result.", labels=["code"]
            )
            for code, count in self._scored.items():
                scored.add_metric([code], count)
            yield scored
            messages = core.CounterMetricFamily(
                "mlpack_messages", "Messages of devices.", labels=["front", "outcome"]
            )
            for (front, outcome), count in self._messages.items():
                messages.add_metric([front, outcome], count)
            yield messages
            seconds = core.HistogramMetricFamily(
                "mlpack_request_seconds",
                "From a request's arrival to its answer.",
                labels=["route"],
            )
            for route, each in self._request_seconds.items():
                seconds.add_metric([route], each.buckets(), each.total)
            yield seconds
            for name, help_, found in (
                ("mlpack_queue_seconds", "How long requests waited.", self._queue_seconds),
                ("mlpack_run_seconds", "How long the model or script took.", self._run_seconds),
                ("mlpack_batch_requests", "Requests scored in one run.", self._joined),
            ):
                family = core.HistogramMetricFamily(name, help_)
                family.add_metric([], found.buckets(), found.total)
                yield family
