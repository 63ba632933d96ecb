"""A device's message to its prediction, tried again for as long as the message is not at fault."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from . import logs, messages
from .problems import Busy, Late, Problem
from .remote import Remote
from .scorer import Payload

if TYPE_CHECKING:
    from .module import Module

_MOST_LATE = 3
"""How often a message may exceed the timeout before it counts as the message's fault."""

_log = logging.getLogger("mlpack_runtime")


class Stopped(Exception):
    """The process ends before the message could be scored; whoever holds it still has it."""


class Predictor:
    """Scores messages that came over ``front``, in this process or at ``url``."""

    def __init__(self, module: Module, front: str, url: str = "") -> None:
        self._module = module
        self._front = front
        self._fields = module.scorer.fields
        self._members = module.scorer.prediction
        self._most = module.settings.max_body
        self._remote = Remote(url, module.settings.timeout) if url else None
        self._score: Callable[[Payload], object] = (
            self._remote.score if self._remote is not None else module.score_here
        )

    @property
    def threads(self) -> int:
        """How many messages may be scored at once: here one after the other, elsewhere some."""
        return 1 if self._remote is None else 8

    def predict(self, content: bytes, content_type: str, stopping: threading.Event) -> bytes | None:
        """The prediction; ``None`` for a message that cannot be scored: logged and counted.

        Raises :class:`Stopped`.
        """
        start = time.perf_counter()
        waits = backoff()
        late = 0
        while True:
            try:
                found = self._predict(content, content_type)
            except Busy as problem:
                self._again(problem, next(waits), stopping)
            except Late as problem:
                late += 1
                if late == _MOST_LATE:
                    self._refuse(problem, content)
                    return None
                self._again(problem, next(waits), stopping)
            except Problem as problem:
                self._refuse(problem, content)
                return None
            else:
                self._note("predicted", content, ms=round((time.perf_counter() - start) * 1e3, 3))
                return found

    def close(self) -> None:
        """Leave the place where it scores."""
        if self._remote is not None:
            self._remote.close()

    def _predict(self, content: bytes, content_type: str) -> bytes:
        reading = messages.read(
            content, content_type=content_type, fields=self._fields, most=self._most
        )
        answer = self._score(reading.payload)
        return messages.write(answer, reading.device, self._members)

    def _again(self, problem: Problem, seconds: float, stopping: threading.Event) -> None:
        self._module.metrics.message(self._front, "retried")
        _log.warning("%s: tried again in %.1f s: %s", self._front, seconds, problem.message)
        if stopping.wait(seconds):
            raise Stopped

    def _refuse(self, problem: Problem, content: bytes) -> None:
        self._note("refused", content, status=problem.status, reason=problem.message)

    def _note(self, outcome: str, content: bytes, **said: object) -> None:
        self._module.metrics.message(self._front, outcome)
        if outcome == "predicted" and self._module.settings.level > logging.INFO:
            return
        level = "info" if outcome == "predicted" else "warning"
        device = messages.device_of(content)
        logs.write(
            level,
            {"message": outcome, "front": self._front, "bytes": len(content), "device": device}
            | said,
        )


def backoff(first: float = 0.5, most: float = 60.0) -> Iterator[float]:
    """Seconds to wait before each next try: doubling, and spread so that a fleet does not march.

    >>> waits = backoff(first=1, most=8)
    >>> all(0.5 <= next(waits) / bound <= 1 for bound in (1, 2, 4, 8, 8))
    True
    """
    bound = first
    while True:
        yield bound * random.uniform(0.5, 1)  # noqa: S311 (not for secrets)
        bound = min(bound * 2, most)
