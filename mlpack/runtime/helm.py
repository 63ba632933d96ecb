"""Which thread runs the event loop: one of its own, or, while runs are short, the one that scores.

Two threads hand every request over through one interpreter lock, which costs more than a small
model's run. So the thread that scores runs the loop itself, requests gather in the queue, the loop
is stopped and they are scored, in turn. Whoever runs the loop holds a lock. It is free during a
turn of scoring: where that lasts too long, the other thread takes the loop and answers, and the
next request finds two threads again.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress

_SAMPLE = 64
"""Runs from which it is judged whether they are short."""
_SHARE = 0.5
"""Of the process's processor time, so that one rule does for slow and fast machines: where runs
take more, two threads have something to share."""
_SHORT = 0.0005
"""Seconds of a run, in the mean, that others may wait for."""
_SLACK = 1.3
"""How much more of both there may be until it changes back."""
_TURN = 0.001
"""Seconds of short runs in a row until what they found is sent."""
_LOOK = 0.01
"""Seconds between the looks of the thread beside: a run is noticed after one or two of them."""
LATE = 10 * _LOOK
"""Seconds that are long beside that: what must be noticed sooner needs two threads."""


class Helm:
    """The event loop of two threads: one calls :meth:`run`, and the one that scores
    :meth:`between`.
    """

    def __init__(self, *, fixed: bool = False) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._fixed = fixed
        """Whether the thread that scores never runs the loop."""
        self.steering = False
        """Whether the loop is run by the thread that scores; nobody else sets it."""
        self._held = threading.Lock()
        """Held by whoever runs the loop."""
        self._short = False
        """Whether runs were short, the last time it was judged."""
        self._runs = 0
        self._seconds = self._used = 0.0
        self._free = False
        """Whether the loop may be run by the thread that scores."""
        self._wanted = False
        self._returned = False
        self._scoring: int | None = None
        self._turn = 0
        """Goes up by one when a turn of scoring begins, and when it ends."""
        self._began = 0.0
        self._asleep = False
        self._alarm = threading.Event()
        self._calls: deque[Callable[[], None]] = deque()
        self._failure: BaseException | None = None

    def run(self, loop: asyncio.AbstractEventLoop, main: Coroutine[None, None, None]) -> None:
        """Run ``loop`` until ``main`` is done, but for the time in which the other thread does."""
        with self._held:
            self.loop = loop
            task = loop.create_task(main)
            task.add_done_callback(lambda _: self.keep())
            self._judge(short=False)
            self._free = not self._fixed
            try:
                while self._failure is None and not task.done():
                    loop.run_forever()
                    if self._wanted:
                        self._stand_beside()
            finally:
                self._free = False
        if self._failure is not None:
            raise self._failure
        task.result()

    def keep(self) -> None:
        """From now on the loop is run by the thread of :meth:`run` alone; called in the loop."""
        self._free = False
        if self.loop is not None:
            self.loop.stop()

    @property
    def here(self) -> bool:
        """Whether the calling thread is the one that scores: if it is in the loop, it runs it."""
        return threading.get_ident() == self._scoring

    def ran(self, seconds: float) -> None:
        """Take note of how long a run took; for the thread that scores."""
        self._runs += 1
        self._seconds += seconds
        if self._runs == _SAMPLE:
            slack = _SLACK if self.steering else 1.0
            share = self._seconds / max(time.process_time() - self._used, 1e-9)
            self._judge(share < _SHARE * slack and self._seconds < _SAMPLE * _SHORT * slack)

    def _judge(self, short: bool) -> None:
        self._short = short
        self._runs, self._seconds, self._used = 0, 0.0, time.process_time()

    def queued(self) -> None:
        """Say that a request waits; called by any thread."""
        loop = self.loop
        if loop is None or not self.steering:
            return
        if self.here:
            loop.stop()
        else:
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(loop.stop)

    def call(self, callback: Callable[[], None]) -> None:
        """Have the loop call ``callback``; for the thread that scores.

        Raises :class:`RuntimeError` where the loop is closed.
        """
        if self.steering:
            self._calls.append(callback)
        elif self.loop is not None:
            self.loop.call_soon_threadsafe(callback)

    def between(self, waiting: Callable[[], object]) -> None:
        """Run the loop until requests wait, where that is for the thread that scores to do."""
        if self.steering:
            if waiting() and time.perf_counter() - self._began < _TURN:
                return
            self._turn += 1
            if not self._held.acquire(blocking=False):
                self._lose()
                return
        elif not (self._free and self._short and self._take()):
            return
        self._steer(waiting)

    def _take(self) -> bool:
        """Get the loop from the thread that runs it; whether it may be had."""
        if self.loop is None:
            return False
        self._scoring = threading.get_ident()
        self._wanted = True
        with suppress(RuntimeError):  # the loop was closed meanwhile, and is not free any more
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._held.acquire()
        self._wanted = False
        self.steering = self._free
        if not self._free:
            self._give_back()
        return self.steering

    def _lose(self) -> None:
        """The other thread has taken the loop: what it does not know yet is sent to it."""
        self.steering = False
        self._judge(short=False)
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
            while self._calls:
                self.call(self._calls.popleft())

    def _steer(self, waiting: Callable[[], object]) -> None:
        loop = self.loop
        try:
            self._deliver()
            while loop is not None and self._free and self._short:
                if waiting():
                    loop.stop()  # that is, look once who has sent something, and return
                loop.run_forever()
                if waiting():
                    break
        except BaseException as error:  # raised again by the thread it is for
            self._failure = error
        if self._failure is not None or not (self._free and self._short):
            self._give_back()
            return
        self._began = time.perf_counter()
        self._turn += 1
        self._held.release()
        if self._asleep:
            self._alarm.set()

    def _give_back(self) -> None:
        self.steering = False
        self._returned = True
        self._held.release()
        self._alarm.set()

    def _deliver(self) -> None:
        """Call what the loop was to call; for the thread that holds it while it does not run."""
        while self._calls:
            self._calls.popleft()()

    def _stand_beside(self) -> None:
        """Let the thread that scores run the loop until it gives it back or scores for too long."""
        self._held.release()
        seen = -1
        while not self._returned:
            turn = self._turn
            if turn != seen:
                seen = turn
                time.sleep(_LOOK)
            elif turn % 2 == 0:
                self._sleep(turn)
            elif self._held.acquire(blocking=False):
                self._deliver()
                return
        self._returned = False
        self._held.acquire()

    def _sleep(self, turn: int) -> None:
        """Sleep until the next turn: a device that nobody asks anything needs no processor."""
        self._asleep = True
        if self._turn == turn and not self._returned:
            self._alarm.wait()
        self._asleep = False
        self._alarm.clear()
