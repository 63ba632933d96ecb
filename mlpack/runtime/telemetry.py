"""The log and the metrics of a module.

The log is one JSON object per line. Metrics are counted in plain numbers: importing Prometheus'
client takes longer than starting this whole server, so that is left to the first request for
``/metrics``.
"""

from __future__ import annotations

import logging
import sys
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import orjson

_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128)

record: ContextVar[MutableMapping[str, object] | None] = ContextVar("record", default=None)
"""The fields of the current request's log line."""


class JsonLines(logging.Handler):
    """Writes records of ``logging`` to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a failure loses the record, never the request."""
        try:
            found: dict[str, object] = {"message": record.getMessage()}
            if record.name != "mlpack_runtime":
                found["logger"] = record.name
            if record.exc_info:
                found["traceback"] = logging.Formatter().formatException(record.exc_info)
            write(record.levelname.lower(), found)
        except Exception:
            self.handleError(record)


def configure(level: int) -> None:
    """Send everything from ``level`` on to standard error."""
    logging.basicConfig(level=level, handlers=[JsonLines()], force=True)


def write(level: str, fields: Mapping[str, object]) -> None:
    """Write one line: the time, the level, and ``fields``."""
    line = {"time": datetime.now(UTC), "level": level, **fields}
    # A single write, so that lines of several threads do not mix.
    sys.stderr.buffer.write(orjson.dumps(line, str, _OPTIONS))
    sys.stderr.buffer.flush()


class Histogram:
    """Counts of values by bucket."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return the cumulative count up to each bound; the last bound is ``+Inf``."""
        found, so_far = [], 0
        for bound, count in zip((*map(float, self._bounds), None), self._counts, strict=True):
            so_far += count
            found.append(("+Inf" if bound is None else str(bound), float(so_far)))
        return found


_COUNTERS = {
    "mlpack_requests": ("HTTP responses.", "route", "code"),
    "mlpack_scores": ("Requests by status.", "code"),
    "mlpack_messages": ("Messages of devices.", "front", "outcome"),
}
"""What each counts, and its labels."""

_HISTOGRAMS: Mapping[str, tuple[Sequence[float], str, tuple[str, ...]]] = {
    "mlpack_request_seconds": (_SECONDS, "From a request's arrival to its response.", ("route",)),
    "mlpack_queue_seconds": (_SECONDS, "Time that requests waited.", ()),
    "mlpack_run_seconds": (_SECONDS, "Duration of runs.", ()),
    "mlpack_batch_requests": (_REQUESTS, "Requests scored in one run.", ()),
}
"""The bounds of its buckets, what each measures, and its labels."""


class Metrics:
    """The counters and histograms of a module; any thread may count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[tuple[str, ...]]] = {each: Counter() for each in _COUNTERS}
        self._histograms: dict[str, dict[tuple[str, ...], Histogram]] = {
            name: {} if labels else {(): Histogram(bounds)}
            for name, (bounds, _, labels) in _HISTOGRAMS.items()
        }

    def _observe(self, name: str, value: float, *labels: str) -> None:
        found = self._histograms[name].get(labels)
        if found is None:
            found = self._histograms[name][labels] = Histogram(_HISTOGRAMS[name][0])
        found.observe(value)

    def request(self, route: str, code: int, seconds: float) -> None:
        """Count a response over HTTP."""
        with self._lock:
            self._counts["mlpack_requests"][route, str(code)] += 1
            self._observe("mlpack_request_seconds", seconds, route)

    def scored(self, code: int, queued: float, run: float, joined: int) -> None:
        """Count a request that was scored, over any transport; times in seconds."""
        with self._lock:
            self._counts["mlpack_scores"][str(code),] += 1
            self._observe("mlpack_queue_seconds", queued)
            self._observe("mlpack_run_seconds", run)
            self._observe("mlpack_batch_requests", joined)

    def refused(self, code: int) -> None:
        """Count a request that was not scored."""
        with self._lock:
            self._counts["mlpack_scores"][str(code),] += 1

    def message(self, transport: str, outcome: str) -> None:
        """Count the outcome of a message over ``transport``, mqtt or iotedge."""
        with self._lock:
            self._counts["mlpack_messages"][transport, outcome] += 1

    def messages(self, transport: str) -> dict[str, int]:
        """Return the number of messages over ``transport`` by outcome."""
        with self._lock:
            found = self._counts["mlpack_messages"].items()
            return {outcome: count for (over, outcome), count in found if over == transport}

    def families(self) -> Iterator[Any]:
        """Return all metrics as Prometheus' client represents them."""
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        with self._lock:
            for name, (about, *labels) in _COUNTERS.items():
                counter = CounterMetricFamily(name, about, labels=labels)
                for values, count in self._counts[name].items():
                    counter.add_metric(values, count)
                yield counter
            for name, (_, about, listed) in _HISTOGRAMS.items():
                histogram = HistogramMetricFamily(name, about, labels=listed)
                for values, each in self._histograms[name].items():
                    histogram.add_metric(values, each.buckets(), each.total)
                yield histogram


def exposition(families: Callable[[], Iterator[Any]], accept: str) -> tuple[str, bytes]:
    """Return the content type and the text of ``/metrics`` in the format that ``accept`` names."""
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.exposition import choose_encoder

    class Collector:
        def collect(self) -> Iterator[Any]:
            return families()

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(Collector())
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)
