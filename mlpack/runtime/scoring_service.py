"""A model version that scores: the one service behind HTTP, MQTT and IoT Edge."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import suppress
from dataclasses import replace
from functools import partial

from . import codec, telemetry
from .http_errors import HttpError, ScoringFailed, ScoringTimeout
from .identity import ModelIdentity, check_files, read_identity
from .loop_handoff import LoopHandoff
from .rebuild import rebuild
from .scorer import Array, Payload, Scorer, open_scorer
from .settings import RuntimeSettings
from .worker import Interrupted, ScoringJob, Work, Worker

_LARGE = 256 * 1024
"""Bytes of a request from which on it is decoded on another thread."""
_RECOVERY_SECONDS = 1.0
"""How long a script may take to end after an interrupt before the service counts as hung."""
_PAUSE_SECONDS = 0.005
"""How long a response that is being sent waits before it looks for a place in the queue again."""

_log = logging.getLogger("mlpack_runtime")


class ScoringService:
    """A scorer and its worker. One thread must call :meth:`work`."""

    def __init__(
        self,
        scorer: Scorer,
        settings: RuntimeSettings,
        identity: ModelIdentity,
        load_seconds: float = 0.0,
    ) -> None:
        self.scorer = scorer
        self.settings = settings
        self.identity = identity
        self.load_seconds = load_seconds
        self.metrics = telemetry.Metrics()
        self.draining = False
        """Whether the process is about to stop: it still answers, but is not ready."""
        self.body_bytes = 0
        """Bytes of all request bodies in memory."""
        self._closed = False
        self._worker = Worker(
            scorer.run_tensors,
            limit=settings.queue,
            rows=settings.batch if _may_join(scorer, settings, identity) else 1,
            wait=settings.batch_wait,
            inputs=_required(scorer) if scorer.generic else frozenset(),
        )
        self._handoff: LoopHandoff | None = None

    @classmethod
    def open(cls, settings: RuntimeSettings) -> ScoringService:
        """Check and load the model; the same thread must then call :meth:`work`.

        Raises :class:`~.settings.NotServable`.
        """
        start = time.perf_counter()
        identity = read_identity(settings)
        rebuilt = rebuild(identity.files, settings)
        if rebuilt:
            _log.info("model %s %s: %s", identity.name, identity.version, rebuilt)
            settings = replace(settings, model_dir=rebuilt.folder)
        else:
            check_files(identity.files, settings.model_dir)
        # Before onnxruntime is imported, which reads it.
        os.environ.update(settings.environment)
        scorer = open_scorer(settings)
        if scorer.images:
            codec.require_pillow()
        return cls(scorer, settings, identity, time.perf_counter() - start)

    def work(self) -> None:
        """Score on this thread until closed."""
        self._worker.work()

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return self.live and not self.draining and not self._closed

    @property
    def live(self) -> bool:
        """Whether it can score; ``False`` if a run hangs past its timeout."""
        job = self._worker.current
        if job is None:
            return True
        return time.perf_counter() - job.started < self.settings.timeout + _RECOVERY_SECONDS

    @property
    def depth(self) -> int:
        """The number of requests that wait."""
        return self._worker.depth

    def close(self) -> None:
        """Accept no new work; when the queue is done, :meth:`work` returns."""
        self._closed = True
        self._worker.close()

    async def score(self, payload: Payload) -> object:
        """Return the result of a request: a JSON value or a :class:`~.scorer.Reply`.

        Raises an :class:`~.http_errors.HttpError`.
        """
        decode = partial(codec.decode, payload, self.scorer, self.settings)
        job = await self._run(decode, len(payload.content))
        return codec.encode(job, payload)

    async def infer(self, given: Mapping[str, Array]) -> Mapping[str, object]:
        """Return the outputs for tensors by name; raise an :class:`~.http_errors.HttpError`."""
        job = await self._run(partial(codec.tensor_work, given, self.scorer, self.settings))
        outputs: Mapping[str, object] = job.result
        return outputs

    def score_blocking(self, payload: Payload) -> object:
        """Return the same as :meth:`score`, on a thread that may wait."""
        try:
            self._worker.require_room()
            work = codec.decode(payload, self.scorer, self.settings)
            job, future = self._submit(work)
        except HttpError as error:
            raise self._refused(error) from None
        try:
            future.result(self.settings.timeout)
        except TimeoutError:
            self._worker.abandon(job)
            raise self._refused(self._timeout_error()) from None
        self._conclude(job)
        return codec.encode(job, payload)

    def configure(self, properties: Mapping[str, object]) -> None:
        """Pass a device twin's desired properties to the scorer and wait until it took them.

        Raises an :class:`~.http_errors.HttpError` with the scorer's message if it refuses them.
        """
        _, future = self._submit(Work(call=partial(self.scorer.configure, properties)))
        error = future.result().error
        if isinstance(error, HttpError):
            raise error
        if error is not None:
            raise ScoringFailed(f"configure() failed: {error!r}") from error

    async def try_out(self, function: Callable[[], object]) -> object:
        """Return a function's result from the thread that scores; it does not count as a request.

        Raises an :class:`~.http_errors.HttpError` if there is no room, and
        :class:`~.http_errors.ScoringFailed` if the function raises.
        """
        self._worker.require_room()
        _, future = self._submit(Work(call=function))
        job = await asyncio.wrap_future(future)
        if job.error is not None:
            raise ScoringFailed(f"the trial failed: {job.error!r}") from job.error
        return job.result

    def _submit(self, work: Work) -> tuple[ScoringJob, futures.Future[ScoringJob]]:
        """Queue work for a thread that waits for the future."""
        future: futures.Future[ScoringJob] = futures.Future()
        job = ScoringJob(work, future.set_result)
        self._worker.submit(job)
        return job, future

    async def next_chunk(self, chunks: Iterator[bytes]) -> bytes | None:
        """Return the next part of a response that is sent while it is made; ``None`` at its end.

        Each part is a job of its own: a client that reads slowly keeps nobody else waiting.
        Raises an :class:`~.http_errors.HttpError`.
        """
        job = await self._continue(partial(next, chunks, None))
        if job.error is not None:
            raise self._failure(job.error) from job.error
        found = job.result
        if found is None or isinstance(found, bytes):
            return found
        raise ScoringFailed(f"run() returned a body of {type(found).__name__}, not of bytes")

    async def end_chunks(self, chunks: Iterator[bytes]) -> None:
        """Close the generator of a response, so that its ``finally`` blocks run."""
        close = getattr(chunks, "close", None)
        if close is not None:
            # The service may be stopping, and the process with it.
            with suppress(HttpError):
                await self._continue(close)

    async def _continue(self, call: Callable[[], object]) -> ScoringJob:
        """Call ``call`` on the worker's thread for a request that has its place already."""
        while self._worker.full and not self._closed:
            await asyncio.sleep(_PAUSE_SECONDS)
        return await self._wait(lambda: Work(call=call))

    async def _run(self, decode: Callable[[], Work], size: int = 0) -> ScoringJob:
        """Queue the work of a request, wait for it until the timeout, and count it."""
        job = await self._wait(decode, size)
        self._conclude(job)
        return job

    async def _wait(self, decode: Callable[[], Work], size: int = 0) -> ScoringJob:
        """Queue work and wait for it until the timeout."""
        loop = asyncio.get_running_loop()
        handoff = self._handoff
        if handoff is None or handoff.loop is not loop:
            handoff = self._handoff = LoopHandoff(loop, self._worker)
        # Short runs are done before this loop's next turn but one.
        while self._worker.full and self._worker.quick:
            await asyncio.sleep(0)
        try:
            self._worker.require_room()
            # Decoding a large request must not keep the loop from the others.
            work = decode() if size < _LARGE else await loop.run_in_executor(None, decode)
            future: asyncio.Future[ScoringJob] = loop.create_future()
            job = handoff.submit(work, future)
        except HttpError as error:
            raise self._refused(error) from None
        timer = loop.call_later(self.settings.timeout, self._expire, future)
        try:
            await future
        except (ScoringTimeout, asyncio.CancelledError):
            self._worker.abandon(job)
            raise
        finally:
            timer.cancel()
        return job

    def _refused(self, error: HttpError) -> HttpError:
        self.metrics.refused(error.status)
        return error

    def _expire(self, future: asyncio.Future[ScoringJob]) -> None:
        if not future.done():
            future.set_exception(self._refused(self._timeout_error()))

    def _timeout_error(self) -> ScoringTimeout:
        return ScoringTimeout(f"scoring took longer than {self.settings.timeout:g} seconds")

    def _conclude(self, job: ScoringJob) -> None:
        """Count a finished job, describe it in the request's log line, and raise its error."""
        error = job.error
        problem = None if error is None else self._failure(error)
        queued, run = job.started - job.queued, job.ended - job.started
        self.metrics.scored(200 if problem is None else problem.status, queued, run, job.joined)
        record = telemetry.record.get()
        if record is not None:
            record.update(queue_ms=_ms(queued), run_ms=_ms(run), joined=job.joined)
        if problem is not None:
            raise problem from error

    def _failure(self, error: BaseException) -> HttpError:
        """Return the error that the client gets for one in the scorer."""
        if isinstance(error, HttpError):
            return error
        if isinstance(error, Interrupted):
            return self._timeout_error()
        # The log has the traceback, the response only the name: values may be confidential.
        _log.error("scoring failed", exc_info=error)
        return ScoringFailed(f"scoring failed with {type(error).__name__}; see the module's log")


def _may_join(scorer: Scorer, settings: RuntimeSettings, identity: ModelIdentity) -> bool:
    """Return whether requests are joined: the user, the script or a proof must allow it."""
    if settings.batch_forced:
        return scorer.tensors
    return scorer.batches or (scorer.generic and identity.rows_independent)


def _required(scorer: Scorer) -> frozenset[str]:
    signature = scorer.signature
    inputs = signature.inputs if signature else ()
    return frozenset(each.name for each in inputs if not each.optional)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
