"""What was scored, on its way back to those who wait for it on an event loop."""

from __future__ import annotations

import asyncio
from collections import deque

from .batching import Job
from .helm import Helm


class Outbox:
    """Hands finished jobs over to an event loop, waking it once for all that are finished."""

    def __init__(self, loop: asyncio.AbstractEventLoop, helm: Helm) -> None:
        self.loop = loop
        self._call = helm.call if helm.loop is loop else loop.call_soon_threadsafe
        self._finished: deque[tuple[asyncio.Future[Job], Job]] = deque()
        self._woken = False

    def put(self, future: asyncio.Future[Job], job: Job) -> None:
        """Called by the thread that scores."""
        self._finished.append((future, job))
        if not self._woken:
            self._woken = True
            try:
                self._call(self._deliver)
            except RuntimeError:  # the loop was closed meanwhile: nobody waits
                self._finished.clear()

    def _deliver(self) -> None:
        # First, so that what is put from now on wakes the loop again.
        self._woken = False
        while self._finished:
            future, job = self._finished.popleft()
            if not future.done():
                future.set_result(job)
