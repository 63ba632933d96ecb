"""The thread that scores: a bounded queue of jobs, scored one by one or joined.

Azure ML calls a script from one thread, and scripts rely on that. Here it is the thread that
calls :meth:`Worker.work`: the main thread in a container, so a signal can interrupt a script
that takes too long.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .http_errors import ServiceUnavailable
from .scorer import Array

Tensors = Mapping[str, Array]

INTERRUPT = signal.SIGUSR2
"""Sent to the worker's thread when a request has taken too long."""

_COMPARISONS = 3
"""Number of joined runs compared with separate ones before joining is trusted."""
_SHORT_SECONDS = 0.00025
"""Mean duration of a run below which the event loop may wait for runs."""
_MEAN_OVER = 32
"""Number of runs that the mean is taken over (an exponential moving average)."""

_log = logging.getLogger("mlpack_runtime")


class Interrupted(BaseException):
    """Raised inside a script that takes too long; not an :class:`Exception`, so few catch it."""


class RowsDiffer(Exception):
    """A run returned another number of rows than it got."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a request asks for: a run on ``tensors``, or a ``call``."""

    tensors: Tensors | None = None
    call: Callable[[], object] | None = None


class ScoringJob:
    """One request's work, and then its result or error; times are those of ``perf_counter``."""

    __slots__ = (
        "_finished", "abandoned", "call", "ended", "error", "interrupted", "joined",
        "queued", "result", "rows", "started", "tensors",
    )  # fmt: skip

    def __init__(self, work: Work, finished: Callable[[ScoringJob], None]) -> None:
        """``finished`` is called with the job, by the worker's thread, when the job is done."""
        self._finished = finished
        self.call = work.call
        self.tensors = work.tensors
        self.rows = 1 if work.tensors is None else rows_of(work.tensors)
        self.joined = 1
        """Number of requests scored in the same run."""
        self.abandoned = self.interrupted = False
        """Whether nobody waits for the result any more; whether the run was interrupted."""
        self.queued = time.perf_counter()
        self.started = self.ended = 0.0
        self.result: Any = None
        self.error: BaseException | None = None

    def finish(self, result: object, error: BaseException | None = None) -> None:
        """Record the outcome and pass the job on; called by the worker's thread."""
        self.ended = time.perf_counter()
        self.result, self.error = result, error
        self._finished(self)


class Worker:
    """A queue of jobs and the thread that runs them."""

    def __init__(
        self,
        run_tensors: Callable[[Tensors], Mapping[str, object]],
        *,
        limit: int,
        rows: int = 1,
        wait: float = 0.0,
        inputs: Set[str] = frozenset(),
    ) -> None:
        """``limit`` jobs may wait; up to ``rows`` rows are joined, after ``wait`` seconds.

        Only requests with exactly these ``inputs`` are joined; empty for any.
        """
        self._run_tensors = run_tensors
        self._limit = limit
        self._rows = rows
        self._wait = wait
        self._inputs = inputs
        self._comparisons = 0
        self._queue: queue.SimpleQueue[ScoringJob | None] = queue.SimpleQueue()
        self._ahead: deque[ScoringJob] = deque()
        """Jobs taken from the queue that are scored next."""
        self._reserved = 0
        self._closed = False
        self._thread: int | None = None
        self._mean_seconds = 0.0
        self.current: ScoringJob | None = None
        """The job being run."""
        self.on_idle: Callable[[], None] = lambda: None
        """Called by the worker's thread before it waits for the next job."""

    @property
    def depth(self) -> int:
        """The number of jobs that wait."""
        return self._queue.qsize() + len(self._ahead) + self._reserved

    @property
    def full(self) -> bool:
        """Whether no more jobs may wait."""
        return self.depth >= self._limit

    @property
    def quick(self) -> bool:
        """Whether the worker is idle and would finish a job sooner than a thread wakes up."""
        return self.current is None and self._mean_seconds < _SHORT_SECONDS and not self._wait

    def require_room(self) -> None:
        """Raise :class:`~.http_errors.ServiceUnavailable` if the worker is full or closed."""
        if self._closed:
            raise ServiceUnavailable("the module is stopping")
        if self.full:
            raise ServiceUnavailable(f"{self._limit} requests wait already")

    def submit(self, job: ScoringJob) -> None:
        """Queue ``job``; raise :class:`~.http_errors.ServiceUnavailable`. Any thread may call."""
        self.require_room()
        self._queue.put(job)

    def reserve(self) -> None:
        """Count a job that :meth:`submit_reserved` will queue; one thread may use the two.

        Raises :class:`~.http_errors.ServiceUnavailable`.
        """
        self.require_room()
        self._reserved += 1

    def submit_reserved(self, jobs: Sequence[ScoringJob]) -> None:
        """Queue all jobs that room was reserved for."""
        self._reserved = 0
        for job in jobs:
            self._queue.put(job)

    def close(self) -> None:
        """Accept no more jobs; :meth:`work` returns when the queued ones are done."""
        self._closed = True
        self._queue.put(None)

    def work(self) -> None:
        """Run jobs until closed; nothing that a script raises ends this."""
        self._thread = threading.get_ident()
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(INTERRUPT, self._interrupt) if main else None
        try:
            while (job := self._next()) is not None:
                jobs = self._gather(job)
                start = time.perf_counter()
                self._score(jobs)
                seconds = time.perf_counter() - start
                self._mean_seconds += (seconds - self._mean_seconds) / _MEAN_OVER
        finally:
            if main:
                signal.signal(INTERRUPT, before)
            self._thread = None

    def abandon(self, job: ScoringJob) -> None:
        """Skip ``job``, or interrupt it if it runs in the main thread; nobody waits for it."""
        job.abandoned = True
        thread = self._thread
        if self.current is job and thread and thread == threading.main_thread().ident:
            signal.pthread_kill(thread, INTERRUPT)

    def _interrupt(self, *_: object) -> None:
        job = self.current
        if job is not None and job.abandoned and not job.interrupted:
            job.interrupted = True
            raise Interrupted

    def _next(self) -> ScoringJob | None:
        while True:
            if not self._ahead and self._queue.empty():
                self.on_idle()
            job = self._ahead.popleft() if self._ahead else self._queue.get()
            if job is None or not job.abandoned:
                return job

    def _gather(self, first: ScoringJob) -> list[ScoringJob]:
        """Return ``first`` and the jobs behind it that can be joined with it."""
        found = [first]
        if self._rows <= first.rows or first.tensors is None:
            return found
        if self._inputs and first.tensors.keys() != self._inputs:
            return found
        rows, until = first.rows, time.perf_counter() + self._wait
        while rows < self._rows:
            job = self._waiting(until)
            if job is None:
                break
            if job.abandoned:
                continue
            if rows + job.rows > self._rows or not joinable(first.tensors, job.tensors):
                self._ahead.append(job)
                break
            found.append(job)
            rows += job.rows
        return found

    def _waiting(self, until: float) -> ScoringJob | None:
        if self._ahead:
            return self._ahead.popleft()
        left = until - time.perf_counter()
        try:
            job = self._queue.get(timeout=left) if left > 0 else self._queue.get_nowait()
        except queue.Empty:
            return None
        if job is None:  # closed: work() must see it, too
            self._queue.put(None)
        return job

    def _score(self, jobs: Sequence[ScoringJob]) -> None:
        if len(jobs) > 1 and self._comparisons == _COMPARISONS and self._score_joined(jobs):
            return
        for job in jobs:
            job.started = time.perf_counter()
            call = job.call or partial(self._run_tensors, job.tensors or {})
            result, error = self._run(job, call)
            if self._rows > 1 and job.tensors is not None and error is None:
                self._watch(result, job.rows)
            job.finish(result, error)
        if len(jobs) > 1 and self._comparisons < _COMPARISONS:
            self._compare(jobs)

    def _run(self, job: ScoringJob, call: Callable[[], object]) -> tuple[Any, BaseException | None]:
        """Return the result of ``call`` and what it raised; an interrupt of ``job`` ends it."""
        try:
            try:
                self.current = job
                return call(), None
            finally:
                self.current = None  # from here on no interrupt is raised
        except BaseException as error:  # SystemExit and its like end the request, not the server
            return None, error

    def _score_joined(self, jobs: Sequence[ScoringJob]) -> bool:
        """Score ``jobs`` in one run; return whether that worked."""
        now = time.perf_counter()
        for job in jobs:
            job.started, job.joined = now, len(jobs)
        parts = self._joined_results(jobs[0], jobs)
        if parts is None:  # perhaps one request's fault: each is scored alone
            for job in jobs:
                job.joined = 1
            return False
        for job, part in zip(jobs, parts, strict=True):
            job.finish(part)
        return True

    def _joined_results(
        self, current: ScoringJob, jobs: Sequence[ScoringJob]
    ) -> list[dict[str, object]] | None:
        def call() -> object:
            tensors = join([job.tensors for job in jobs if job.tensors is not None])
            return split(self._run_tensors(tensors), [job.rows for job in jobs])

        parts: list[dict[str, object]] | None
        parts, error = self._run(current, call)
        if isinstance(error, RowsDiffer):
            self._stop_joining(str(error))
        return parts

    def _watch(self, outputs: Mapping[str, object], rows: int) -> None:
        """Join no more if a run returned another number of rows than it got."""
        try:
            require_rows(outputs, rows)
        except RowsDiffer as error:
            self._stop_joining(str(error))

    def _stop_joining(self, reason: str) -> None:
        self._rows = 1
        _log.warning("requests are not joined any more: %s", reason)

    def _compare(self, jobs: Sequence[ScoringJob]) -> None:
        """Score ``jobs`` joined, too; join no more if the results differ.

        A free first dimension may not be a batch's, and a model may quantize with a scale taken
        over all rows.
        """
        first = jobs[0].tensors
        if any(job.error for job in jobs) or all(equal(first, job.tensors) for job in jobs[1:]):
            return  # nothing to learn from
        # The jobs are finished; a job of its own shows a run that hangs and is not interrupted.
        trial = ScoringJob(Work(), lambda _: None)
        trial.started = trial.queued
        parts = self._joined_results(trial, jobs)
        if parts is not None and all(
            close(part, job.result) for part, job in zip(parts, jobs, strict=True)
        ):
            self._comparisons += 1
            return
        if self._rows > 1:
            self._stop_joining("the model's results differ for joined requests")


def rows_of(tensors: Tensors) -> int:
    """Return the number of rows of a request's tensors."""
    return max((len(each) for each in tensors.values() if each.ndim), default=1)


def joinable(one: Tensors | None, other: Tensors | None) -> bool:
    """Return whether two requests' tensors differ in nothing but their rows."""
    if one is None or other is None or one.keys() != other.keys():
        return False
    rows = rows_of(other)
    return all(
        a.dtype == b.dtype and a.ndim > 0 and a.shape[1:] == b.shape[1:] and len(b) == rows
        for a, b in ((one[name], other[name]) for name in one)
    )


def equal(one: Tensors | None, other: Tensors | None) -> bool:
    """Return whether two requests that can be joined hold the same numbers."""
    if one is None or other is None:
        return False
    return all(np.array_equal(one[name], other[name]) for name in one)


def join(requests: Sequence[Tensors]) -> Tensors:
    """Concatenate the tensors of all requests on axis 0."""
    return {name: np.concatenate([each[name] for each in requests]) for name in requests[0]}


def require_rows(outputs: Mapping[str, object], rows: int) -> None:
    """Raise :class:`RowsDiffer` unless every output has one element for each row."""
    for name, value in outputs.items():
        if isinstance(value, np.ndarray):
            count = value.shape[0] if value.ndim else -1
        else:
            count = len(value) if isinstance(value, list) else -1
        if count != rows:
            found = "no rows" if count < 0 else f"{count} rows"
            raise RowsDiffer(f"a run of {rows} rows returned {found} of {name!r}")


def split(outputs: Mapping[str, object], rows: Sequence[int]) -> list[dict[str, object]]:
    """Return each request's part of joined outputs; raise :class:`RowsDiffer`."""
    require_rows(outputs, sum(rows))
    parts, start = [], 0
    for count in rows:
        parts.append({name: value[start : start + count] for name, value in outputs.items()})  # type: ignore[index]
        start += count
    return parts


def close(one: object, other: object) -> bool:
    """Return whether two outputs are equal except for rounding.

    >>> close({"y": np.array([1.0])}, {"y": np.array([1.0000001])})
    True
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(close, one, other))
    first, second = np.asarray(one), np.asarray(other)
    if first.shape != second.shape or first.dtype.kind not in "fc":
        return bool(np.array_equal(first, second))
    return bool(np.allclose(first, second, rtol=1e-3, atol=1e-5, equal_nan=True))
