"""Interruptions (Ctrl-C, SIGTERM) that come between an effect and what takes it back.

Python raises ``KeyboardInterrupt`` between any two instructions of the main thread. A file that
was just created, or a container that was just started, is then lost to the code that removes it.
So signals are held back while an effect happens and its undo is registered; they arrive after it.

They are held back by their handler, not by ``signal.pthread_sigmask``: a signal that the main
thread blocks is delivered to a thread of OpenBLAS or onnxruntime, which makes the main thread
run the handler all the same; and programs that are started would inherit the mask.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Holder:
    """The handler of :data:`SIGNALS`: it calls the handlers that were there, or notes signals.

    It runs in the main thread only, as all of Python's handlers.
    """

    def __init__(self) -> None:
        self.depth = 0
        self._came: list[int] = []
        self._handlers: dict[int, Callable[[int, FrameType | None], object]] = {}

    def install(self) -> None:
        for each in SIGNALS:
            handler = signal.getsignal(each)
            if callable(handler) and handler != self.receive:
                self._handlers[each] = handler
                signal.signal(each, self.receive)

    def receive(self, number: int, frame: FrameType | None) -> None:
        if self.depth:
            self._came.append(number)
        else:
            self._came.clear()  # one interruption is enough
            self._handlers[number](number, frame)

    def release(self) -> None:
        self.depth -= 1
        if self._came and not self.depth:
            self.receive(self._came[0], None)


_holder = _Holder()


@contextmanager
def held_back() -> Iterator[None]:
    """Hold signals back while the block runs; one that came is raised when it ends.

    Without effect in other threads, which no signal interrupts.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _holder.install()
    _holder.depth += 1
    try:
        yield
    finally:
        _holder.release()


@contextmanager
def undone_on_failure() -> Iterator[ExitStack]:
    """Run the callbacks of a stack, last first, if the block raises or is interrupted.

    Take a step and register its undo together::

        with undone_on_failure() as undo:
            with held_back():
                container = engine.run(request)
                undo.callback(engine.remove, container)
    """
    stack = ExitStack()
    try:
        yield stack
    except BaseException:
        with held_back():
            stack.close()
        raise


def call_in_threads(
    calls: Sequence[Callable[[], T]], threads: int, stop: Callable[[], object]
) -> list[T]:
    """Make all ``calls`` in at most so many threads; return the results in the order of ``calls``.

    If one raises or the main thread is interrupted, ``stop`` is called, which has running calls
    end soon; calls that did not begin are dropped, and the error is raised when all threads have
    ended.

    The main thread waits on a queue, not with ``concurrent.futures.wait``: an interruption inside
    ``wait`` can leave a future's lock taken, and its thread then waits for that lock forever.
    """
    pool = ThreadPoolExecutor(max(1, min(threads, len(calls))))
    ended: SimpleQueue[Future[T]] = SimpleQueue()
    try:
        with held_back():  # an interruption inside submit would lose a thread
            running = [pool.submit(each) for each in calls]
            for each in running:
                each.add_done_callback(ended.put)
        for _ in running:
            _next_of(ended).result()
        return [each.result() for each in running]
    except BaseException:
        with held_back():
            stop()
            pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        pool.shutdown()


def _next_of(queue: SimpleQueue[T]) -> T:
    """Wait for the next item, and look for signals five times a second.

    A signal that arrives after Python last looked for one and before the thread sleeps does not
    wake it.
    """
    while True:
        try:
            return queue.get(timeout=0.2)
        except Empty:
            continue
