"""One thread that scores, a bounded queue before it, and requests joined to one run.

Azure ML calls a script from one thread, and scripts are written for that. The
thread here is whichever calls :meth:`Worker.work`: in a container the main one,
as in Azure ML's server, so a script that takes too long can be interrupted.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .helm import Helm
from .problems import Busy
from .scorer import Array

INTERRUPT = signal.SIGUSR2
"""Sent to the thread that scores when a request has taken too long."""

_CHECKS = 3
"""How many joined runs are compared with separate ones before joining is trusted."""

_log = logging.getLogger("mlpack_runtime")

Tensors = Mapping[str, Array]


class Interrupted(BaseException):
    """Raised inside a script that takes too long; not an :class:`Exception`, so few catch it."""


class Job:
    """One request's work, and then its result or error; times are those of ``perf_counter``."""

    __slots__ = (
        "_done", "abandoned", "call", "ended", "error", "joined", "queued", "result", "rows",
        "started", "tensors",
    )  # fmt: skip

    def __init__(
        self,
        done: Callable[[Job], None],
        call: Callable[[], object] | None = None,
        tensors: Tensors | None = None,
    ) -> None:
        self._done = done
        self.call = call
        self.tensors = tensors
        self.rows = 1 if tensors is None else _rows(tensors)
        self.joined = 1
        """How many requests were scored in the same run."""
        self.abandoned = False
        """Whether nobody waits for it any more."""
        self.queued = time.perf_counter()
        self.started = self.ended = 0.0
        self.result: Any = None
        self.error: BaseException | None = None

    def finish(self, result: object = None, error: BaseException | None = None) -> None:
        """Say what became of it."""
        self.ended = time.perf_counter()
        self.result, self.error = result, error
        self._done(self)


class Worker:
    """The queue, and what is done with it."""

    def __init__(
        self,
        run_tensors: Callable[[Tensors], Mapping[str, object]],
        *,
        limit: int,
        rows: int = 1,
        wait: float = 0.0,
        helm: Helm | None = None,
    ) -> None:
        self._run_tensors = run_tensors
        self._helm = Helm() if helm is None else helm
        self._limit = limit
        self._rows = rows
        self._wait = wait
        self._checks = 0
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._ahead: deque[Job] = deque()
        self._closed = False
        self._thread: int | None = None
        self._interruptible: Job | None = None
        self.current: Job | None = None

    @property
    def depth(self) -> int:
        """How many requests wait."""
        return self._queue.qsize() + len(self._ahead)

    def submit(self, job: Job) -> None:
        """Queue ``job``; raise :class:`~.problems.Busy` where that cannot be done."""
        self.require_room()
        self._queue.put(job)
        self._helm.queued()

    @property
    def full(self) -> bool:
        """Whether as many wait as may."""
        return self.depth >= self._limit

    def require_room(self) -> None:
        """Raise :class:`~.problems.Busy` where too many wait already, or it is closed."""
        if self._closed:
            raise Busy("the module is stopping")
        if self.full:
            raise Busy(f"{self._limit} requests wait already")

    def close(self) -> None:
        """Take no more; :meth:`work` returns when what is queued is done."""
        self._closed = True
        self._queue.put(None)
        self._helm.queued()

    def work(self) -> None:
        """Score until closed; nothing that a script raises ends it."""
        self._thread = threading.get_ident()
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(INTERRUPT, self._interrupt) if main else None
        try:
            while (job := self._next()) is not None:
                jobs = self._gather(job)
                start = time.perf_counter()
                self._score(jobs)
                self._helm.ran(time.perf_counter() - start)
        finally:
            if main:
                signal.signal(INTERRUPT, before)
            self._thread = None

    def abandon(self, job: Job) -> None:
        """Nobody waits for ``job`` any more: skip it, or interrupt it where that can be done."""
        job.abandoned = True
        thread = self._thread
        if self._interruptible is job and thread and thread == threading.main_thread().ident:
            signal.pthread_kill(thread, INTERRUPT)

    def _interrupt(self, *_: object) -> None:
        job = self._interruptible
        if job is not None and job.abandoned:
            self._interruptible = None
            raise Interrupted

    def _next(self) -> Job | None:
        while True:
            self._helm.between(self._waits)
            job = self._ahead.popleft() if self._ahead else self._queue.get()
            if job is None or not job.abandoned:
                return job

    def _waits(self) -> bool:
        return bool(self._ahead) or not self._queue.empty()

    def _gather(self, first: Job) -> list[Job]:
        """``first``, and those waiting behind it that can be joined with it."""
        found = [first]
        if self._rows <= first.rows or first.tensors is None:
            return found
        rows, until = first.rows, time.perf_counter() + self._wait
        while rows < self._rows:
            job = self._waiting(until)
            if job is None:
                break
            if job.abandoned:
                continue
            if rows + job.rows > self._rows or not _alike(first, job):
                self._ahead.append(job)
                break
            found.append(job)
            rows += job.rows
        return found

    def _waiting(self, until: float) -> Job | None:
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

    def _score(self, jobs: Sequence[Job]) -> None:
        if len(jobs) > 1:
            if self._checks < _CHECKS:
                self._compare(jobs)
                return
            if self._joined(jobs):
                return
        for job in jobs:
            self._alone(job)

    def _alone(self, job: Job) -> None:
        job.started = time.perf_counter()
        self.current = job
        result: object = None
        error: BaseException | None = None
        try:
            self._interruptible = job
            if job.tensors is not None:
                result = self._run_tensors(job.tensors)
            elif job.call is not None:
                result = job.call()
            self._interruptible = None
        except BaseException as caught:  # SystemExit and its like end the request, not the server
            error = caught
        self._interruptible = self.current = None
        job.finish(result, error)

    def _joined(self, jobs: Sequence[Job]) -> bool:
        """Score ``jobs`` in one run; whether that worked."""
        now = time.perf_counter()
        self.current = jobs[0]
        for job in jobs:
            job.started, job.joined = now, len(jobs)
        try:
            self._interruptible = jobs[0]
            parts = split(self._run_tensors(join(jobs)), [job.rows for job in jobs])
            self._interruptible = None
        except BaseException:  # perhaps one request's fault: each shows when scored alone
            parts = None
        self._interruptible = self.current = None
        if parts is None:
            for job in jobs:
                job.joined = 1
            return False
        for job, part in zip(jobs, parts, strict=True):
            job.finish(part)
        return True

    def _compare(self, jobs: Sequence[Job]) -> None:
        """Score ``jobs`` one by one and joined; join no more where that gives other results.

        A first dimension may be free without being a batch's, and a model may
        quantize with a scale taken over all rows.
        """
        for job in jobs:
            self._alone(job)
        if any(job.error for job in jobs) or all(_same(jobs[0], job) for job in jobs[1:]):
            return  # nothing to learn from
        # Their answers are out; should this hang, it must show nevertheless.
        self.current = Job(lambda _: None)
        self.current.started = self.current.queued
        try:
            parts = split(self._run_tensors(join(jobs)), [job.rows for job in jobs])
        except BaseException:
            parts = None
        self.current = None
        if parts is not None and all(
            close(part, job.result) for part, job in zip(parts, jobs, strict=True)
        ):
            self._checks += 1
            return
        self._rows = 1
        _log.warning("requests are not joined: the model gives other results for joined ones")


def join(jobs: Sequence[Job]) -> Tensors:
    """The tensors of all, one after the other on axis 0."""
    given = [job.tensors for job in jobs if job.tensors is not None]
    return {name: np.concatenate([each[name] for each in given]) for name in given[0]}


def split(outputs: Mapping[str, object], rows: Sequence[int]) -> list[dict[str, object]] | None:
    """Each request's part of joined outputs; ``None`` where they are not one for each row."""
    total = sum(rows)
    for value in outputs.values():
        if not isinstance(value, np.ndarray | list) or not np.ndim(value) or len(value) != total:
            return None
    parts, start = [], 0
    for count in rows:
        parts.append({name: value[start : start + count] for name, value in outputs.items()})  # type: ignore[index]
        start += count
    return parts


def close(one: object, other: object) -> bool:
    """Whether two outputs are the same but for rounding.

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


def _rows(tensors: Tensors) -> int:
    return max((len(each) for each in tensors.values() if each.ndim), default=1)


def _alike(one: Job, other: Job) -> bool:
    """Whether two requests' tensors differ in nothing but their rows."""
    if one.tensors is None or other.tensors is None or one.tensors.keys() != other.tensors.keys():
        return False
    return all(
        a.dtype == b.dtype and a.ndim > 0 and a.shape[1:] == b.shape[1:] and len(b) == other.rows
        for a, b in ((one.tensors[name], other.tensors[name]) for name in one.tensors)
    )


def _same(one: Job, other: Job) -> bool:
    if one.tensors is None or other.tensors is None:
        return False
    return all(np.array_equal(one.tensors[name], other.tensors[name]) for name in one.tensors)
