"""A model version that scores: what every way to reach it (HTTP, MQTT, IoT Edge) calls."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from concurrent import futures
from contextvars import ContextVar
from dataclasses import replace
from functools import partial

from . import images, tensors
from .azureml import media_type
from .batching import Interrupted, Job, Worker
from .helm import LATE, Helm
from .identity import Identity, check_files, read_identity
from .metrics import Metrics
from .opening import open_scorer
from .outbox import Outbox
from .problems import Failed, Late, Problem, Unsupported
from .rebuild import rebuild
from .scorer import JSON, Array, Payload, Reply, Scorer
from .settings import Settings
from .signature import Signature

_JSON = {
    "",
    "application/json",
    "text/json",
    "text/plain",
    # What curl sends unless told otherwise.
    "application/x-www-form-urlencoded",
}
_BINARY = {tensors.OCTETS, tensors.NPY, *images.TYPES}
_LARGE = 256 * 1024
_RECOVERY_SECONDS = 1.0
"""After an interrupt, for the script to end, before the module counts as hung."""

record: ContextVar[MutableMapping[str, object] | None] = ContextVar("record", default=None)
"""Where the request that is being answered is described, for its line in the log."""

_log = logging.getLogger("mlpack_runtime")


class Module:
    """A scorer behind its queue. One thread must call :meth:`work`."""

    def __init__(
        self, scorer: Scorer, settings: Settings, identity: Identity, load_seconds: float = 0.0
    ) -> None:
        self.scorer = scorer
        self.settings = settings
        self.identity = identity
        self.load_seconds = load_seconds
        self.metrics = Metrics()
        self.draining = False
        """Whether it is about to stop: it still answers, but is not ready for more."""
        self.held = 0
        """Bytes of the bodies of requests that are being answered over HTTP."""
        # Who waits for more requests to join must not keep them from being read.
        self.helm = Helm(fixed=settings.batch_wait > 0 or settings.timeout < LATE)
        self._closed = False
        self._worker = Worker(
            scorer.run_tensors,
            limit=settings.queue,
            rows=settings.batch if scorer.batches else 1,
            wait=settings.batch_wait,
            helm=self.helm,
        )
        self._outbox: Outbox | None = None

    @classmethod
    def open(cls, settings: Settings) -> Module:
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
        # Here, before onnxruntime is imported, which reads it then.
        os.environ.update(settings.environment)
        scorer = open_scorer(settings)
        if scorer.images:
            images.require_pillow()
        return cls(scorer, settings, identity, time.perf_counter() - start)

    @classmethod
    def start(cls, settings: Settings) -> Module:
        """Open a module and let it work on a thread of its own, until closed."""
        opened: futures.Future[Module] = futures.Future()

        def live() -> None:
            try:
                module = cls.open(settings)
            except BaseException as error:
                opened.set_exception(error)
                return
            opened.set_result(module)
            module.work()

        threading.Thread(target=live, name="scoring", daemon=True).start()
        return opened.result()

    def work(self) -> None:
        """Score on this thread until closed."""
        self._worker.work()

    def work_aside(self) -> None:
        """Score on a new thread until closed, where no other one does."""
        threading.Thread(target=self.work, name="scoring", daemon=True).start()

    @property
    def ready(self) -> bool:
        """Whether requests should come."""
        return self.live and not self.draining and not self._closed

    @property
    def live(self) -> bool:
        """Whether it can score; ``False`` when it hangs in a request past its timeout."""
        job = self._worker.current
        if job is None:
            return True
        return time.perf_counter() - job.started < self.settings.timeout + _RECOVERY_SECONDS

    @property
    def depth(self) -> int:
        """How many requests wait."""
        return self._worker.depth

    def close(self) -> None:
        """Take no new work; what is queued is finished, and then :meth:`work` returns."""
        self._closed = True
        self._worker.close()

    async def score(self, payload: Payload) -> object:
        """The answer to one request: a value for JSON, or a :class:`Reply`.

        Raises a :class:`Problem`.
        """
        job = await self._run(partial(self._job, payload), len(payload.content))
        return _answer(job, payload)

    async def infer(self, given: Mapping[str, Array]) -> Mapping[str, object]:
        """Outputs of tensors by name; raise a :class:`Problem`."""
        job = await self._run(partial(self._tensor_job, given))
        found: Mapping[str, object] = job.result
        return found

    def score_here(self, payload: Payload) -> object:
        """As :meth:`score`, for a thread that may wait."""
        finished: futures.Future[Job] = futures.Future()
        try:
            self._worker.require_room()
            job = self._job(payload, finished.set_result)
            self._worker.submit(job)
        except Problem as problem:
            raise self._refused(problem) from None
        try:
            finished.result(self.settings.timeout)
        except TimeoutError:
            self._worker.abandon(job)
            raise self._refused(self._late()) from None
        self._settle(job)
        return _answer(job, payload)

    def configure(self, properties: Mapping[str, object]) -> None:
        """Hand a device twin's desired properties to the scorer, and wait until it took them.

        Raises a :class:`Problem` whose message is the scorer's where it refuses them.
        """
        finished: futures.Future[Job] = futures.Future()
        self._worker.submit(Job(finished.set_result, partial(self.scorer.configure, properties)))
        error = finished.result().error
        if isinstance(error, Problem):
            raise error
        if error is not None:
            raise Failed(f"configure() failed: {error!r}") from error

    async def _run(self, make: Callable[[Callable[[Job], None]], Job], size: int = 0) -> Job:
        """Queue the job that ``make`` makes and wait for it, as long as the timeout says."""
        loop = asyncio.get_running_loop()
        if self._outbox is None or self._outbox.loop is not loop:
            self._outbox = Outbox(loop, self.helm)
        finished: asyncio.Future[Job] = loop.create_future()
        done = partial(self._outbox.put, finished)
        # Where this thread is the one that scores, it does so before this goes on.
        while self._worker.full and self.helm.here:
            await asyncio.sleep(0)
        try:
            self._worker.require_room()
            # Parsing a large request must not keep the others from being read.
            job = make(done) if size < _LARGE else await loop.run_in_executor(None, make, done)
            self._worker.submit(job)
        except Problem as problem:
            raise self._refused(problem) from None
        late = loop.call_later(self.settings.timeout, self._expire, finished)
        try:
            await finished
        except (Late, asyncio.CancelledError):
            self._worker.abandon(job)
            raise
        finally:
            late.cancel()
        self._settle(job)
        return job

    def _refused(self, problem: Problem) -> Problem:
        self.metrics.refused(problem.status)
        return problem

    def _job(self, payload: Payload, done: Callable[[Job], None]) -> Job:
        """What has to be done for a request, by its content type; raise a :class:`Problem`."""
        kind = media_type(payload.content_type)
        scorer = self.scorer
        if kind in images.TYPES and scorer.images:
            return Job(done, partial(self._picture, payload.content, kind))
        if kind in (tensors.OCTETS, tensors.NPY) and scorer.tensors:
            return self._tensor_job(self._decode(payload, kind), done)
        if scorer.generic and (kind in _JSON or kind.endswith("+json")):
            given = tensors.from_json(payload.content, self._signature)
            return self._tensor_job(given, done)
        binary = kind in _BINARY or kind.startswith("image/")
        if scorer.generic or (binary and not scorer.raw):
            raise Unsupported(f"this module takes {', '.join(self.takes)}, not {kind or 'that'}")
        return Job(done, partial(scorer.run, payload))

    @property
    def takes(self) -> tuple[str, ...]:
        """Content types of requests."""
        found = ["application/json"]
        if self.scorer.tensors:
            found += [tensors.OCTETS, tensors.NPY]
        if self.scorer.images:
            found += ["image/jpeg", "image/png"]
        return tuple(found)

    def _decode(self, payload: Payload, kind: str) -> dict[str, Array]:
        if kind == tensors.NPY:
            return tensors.from_npy(payload.content, self._signature)
        return tensors.from_octets(payload.content, payload.headers, self._signature)

    @property
    def _signature(self) -> Signature:
        if self.scorer.signature is None:
            raise Unsupported("this module takes no tensors")
        return self.scorer.signature

    def _tensor_job(self, given: Mapping[str, Array], done: Callable[[Job], None]) -> Job:
        tensors.check(given, self._signature, allow_nan=self.settings.allow_nan)
        return Job(done, tensors=given)

    def _picture(self, content: bytes, kind: str) -> object:
        return self.scorer.run_image(images.open_image(content, kind, self.settings.max_pixels))

    def _expire(self, finished: asyncio.Future[Job]) -> None:
        if not finished.done():
            finished.set_exception(self._refused(self._late()))

    def _late(self) -> Late:
        return Late(f"scoring took longer than {self.settings.timeout:g} seconds")

    def _settle(self, job: Job) -> None:
        """Count a finished job, describe it for the log, and raise its error."""
        error = job.error
        problem = None
        if isinstance(error, Problem):
            problem = error
        elif isinstance(error, Interrupted):
            problem = self._late()
        elif error is not None:
            # The log gets the whole of it, the caller the name: values may be confidential.
            _log.error("scoring failed", exc_info=error)
            problem = Failed(
                f"scoring failed with {type(error).__name__}; the log of the module says more"
            )
        queued, run = job.started - job.queued, job.ended - job.started
        self.metrics.scored(200 if problem is None else problem.status, queued, run, job.joined)
        described = record.get()
        if described is not None:
            described.update(queue_ms=_ms(queued), run_ms=_ms(run), joined=job.joined)
        if problem is not None:
            raise problem from error


def _answer(job: Job, payload: Payload) -> object:
    """A job's result as the request accepts it."""
    if job.tensors is None:
        return job.result
    accepted = payload.headers.get("accept", "")
    for each in accepted.split(",") if "application/" in accepted else ():
        kind = media_type(each)
        if kind in (tensors.OCTETS, tensors.NPY):
            return _binary(job.result, kind)
        if kind == JSON:
            break
    return tensors.to_json(job.result)


def _binary(outputs: Mapping[str, object], kind: str) -> Reply:
    name, array = tensors.only_output(outputs)
    if kind == tensors.NPY:
        return Reply(content=tensors.to_npy(array), content_type=kind)
    headers = {
        "x-tensor-name": name,
        "x-tensor-shape": ",".join(map(str, array.shape)),
        "x-tensor-type": str(array.dtype),
    }
    return Reply(content=tensors.to_octets(array), content_type=kind, headers=headers)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
