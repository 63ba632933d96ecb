"""The event loop in turns with scoring: taken while runs are short, given back when one is not."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TypeVar

import pytest

from mlpack.runtime.identity import Identity
from mlpack.runtime.module import Module
from mlpack.runtime.problems import Busy, Late
from mlpack.runtime.scorer import Payload
from mlpack.runtime.settings import Settings
from tests.runtime.test_module import Scorer

T = TypeVar("T")
USUAL = Settings()


class Ship:
    """A module whose loop and scoring have a thread each, as in a container."""

    def __init__(self, run: Callable[[bytes], object], chosen: Settings) -> None:
        scorer = Scorer(lambda payload: run(payload.content))
        self.module = Module(scorer, chosen, Identity(name="a", version="1"))
        self.helm = self.module.helm
        self.failure: BaseException | None = None
        self._started: Future[asyncio.Event] = Future()
        self.threads = [
            threading.Thread(target=self.module.work, name="scoring", daemon=True),
            threading.Thread(target=self._run, name="http", daemon=True),
        ]

    def start(self) -> None:
        for thread in self.threads:
            thread.start()
        self._end = self._started.result(10)

    def _run(self) -> None:
        async def main() -> None:
            end = asyncio.Event()
            self._started.set_result(end)
            await end.wait()

        try:
            with asyncio.Runner() as runner:
                self.helm.run(runner.get_loop(), main())
        except BaseException as error:
            self.failure = error
        finally:
            self.module.close()

    def soon(self, what: Awaitable[T]) -> Future[T]:
        async def whole() -> T:
            return await what

        assert self.helm.loop is not None
        return asyncio.run_coroutine_threadsafe(whole(), self.helm.loop)

    def ask(self, content: bytes = b"", timeout: float = 10) -> object:
        return self.soon(self.module.score(Payload(content=content))).result(timeout)

    def thread(self) -> str:
        """The name of the thread that runs the loop."""

        async def name() -> str:
            return threading.current_thread().name

        return self.soon(name()).result(5)

    def all(self, *contents: bytes) -> list[object]:
        """Answers to requests that come in the same moment."""

        return self.soon(together(self.module, contents)).result(20)

    def warm(self) -> None:
        """Ask for short runs until the thread that scores runs the loop."""
        deadline = time.monotonic() + 20
        while self.thread() != "scoring":
            assert time.monotonic() < deadline
            assert self.all(*[b"0"] * 4) == [b"0"] * 4

    def end(self) -> None:
        assert self.helm.loop is not None
        with suppress(RuntimeError):
            self.helm.loop.call_soon_threadsafe(self._end.set)
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()


async def together(module: Module, contents: Iterable[bytes]) -> list[object]:
    made = (module.score(Payload(content=each)) for each in contents)
    return list(await asyncio.gather(*made, return_exceptions=True))


def slept(content: bytes) -> bytes:
    """Take as long as the request says."""
    seconds = float(content)
    if seconds:
        time.sleep(seconds)
    return content


@contextmanager
def ship(run: Callable[[bytes], object] = slept, settings: Settings = USUAL) -> Iterator[Ship]:
    found = Ship(run, settings)
    found.start()
    try:
        yield found
    finally:
        found.end()


def test_the_thread_that_scores_runs_the_loop_while_runs_are_short() -> None:
    with ship() as found:
        assert found.thread() == "http"
        found.warm()
        assert [found.ask(b"0") for _ in range(100)] == [b"0"] * 100
        found.warm()
    assert found.failure is None


def test_two_threads_are_for_runs_that_are_not() -> None:
    with ship() as found:
        for _ in range(10):
            found.all(*[b"0.001"] * 16)
        assert found.thread() == "http"


def test_runs_that_become_longer_give_the_loop_back() -> None:
    with ship() as found:
        found.warm()
        found.all(*[b"0.003"] * 64)
        found.all(*[b"0.003"] * 64)
        assert found.thread() == "http"
        found.warm()


def test_a_long_run_keeps_nobody_else_waiting() -> None:
    gate = threading.Event()

    def run(content: bytes) -> bytes:
        if content == b"hold":
            gate.wait(10)
        return content

    with ship(run) as found:
        for _ in range(3):
            found.warm()
            gate.clear()

            async def first_and_long(found: Ship = found) -> tuple[object, Awaitable[object]]:
                first = asyncio.ensure_future(found.module.score(Payload(content=b"0")))
                long = asyncio.ensure_future(found.module.score(Payload(content=b"hold")))
                return await first, long

            # The first is scored in the same turn, and answered while the second is scored.
            first, long = found.soon(first_and_long()).result(5)
            assert first == b"0"
            assert found.thread() == "http"
            assert found.module.live
            waiting = [found.soon(found.module.score(Payload(content=b"%d" % n))) for n in range(5)]
            gate.set()
            assert found.soon(long).result(5) == b"hold"
            assert [each.result(5) for each in waiting] == [b"%d" % n for n in range(5)]


def test_who_takes_too_long_is_told_so_and_the_next_is_scored() -> None:
    with ship(settings=Settings(timeout=0.2)) as found:
        found.warm()
        with pytest.raises(Late):
            found.ask(b"0.35")  # this thread is not the main one: it is not interrupted
        assert found.ask(b"0") == b"0"


@pytest.mark.parametrize("settings", [Settings(timeout=0.05), Settings(batch_wait=0.001)])
def test_two_threads_where_the_loop_may_not_wait(settings: Settings) -> None:
    with ship(settings=settings) as found:
        for _ in range(20):
            found.all(*[b"0"] * 16)
        assert not found.helm.steering


def test_short_runs_are_not_refused_for_coming_at_once() -> None:
    busy, gate = threading.Event(), threading.Event()

    def run(content: bytes) -> bytes:
        if content == b"hold":
            busy.set()
            gate.wait(10)
        return content

    with ship(run, Settings(queue=4)) as found:
        found.warm()
        assert found.all(*[b"0"] * 100) == [b"0"] * 100
        # Unlike those behind a long one.
        long = found.soon(found.module.score(Payload(content=b"hold")))
        assert busy.wait(5)
        waiting = found.soon(together(found.module, [b"0"] * 10))
        while found.module.depth < 4:
            time.sleep(0.001)
        gate.set()
        answers = waiting.result(5)
        assert sum(isinstance(each, Busy) for each in answers) == 6
        assert long.result(5) == b"hold"


def test_other_threads_ask_as_well() -> None:
    with ship() as found:
        found.warm()
        for _ in range(50):
            assert found.module.score_here(Payload(content=b"0")) == b"0"
        found.warm()


def test_from_the_end_on_the_loop_keeps_its_thread() -> None:
    with ship() as found:
        found.warm()
        assert found.helm.loop is not None
        found.helm.loop.call_soon_threadsafe(found.helm.keep)
        assert found.thread() == "http"
        for _ in range(20):
            assert found.all(*[b"0"] * 16) == [b"0"] * 16
        assert found.thread() == "http"


def test_what_ends_the_loop_is_raised_where_it_began() -> None:
    def fail() -> None:
        raise SystemExit(3)

    with ship() as found:
        found.warm()
        assert found.helm.loop is not None
        found.helm.loop.call_soon_threadsafe(fail)
        found.threads[1].join(10)
    assert isinstance(found.failure, SystemExit)


def test_the_end_while_the_loop_is_run_by_the_thread_that_scores() -> None:
    with ship() as found:
        found.warm()
    assert found.failure is None
    assert not found.helm.steering
    with pytest.raises(Busy):
        found.module.score_here(Payload(content=b"0"))


def test_no_loop_is_kept_from_a_script() -> None:
    """A script may run coroutines of its own, as it may where each request has a thread."""
    with ship(lambda content: asyncio.run(asyncio.sleep(0, content))) as found:
        assert found.all(*[b"a"] * 20) == [b"a"] * 20
    running: list[bool] = []

    def run(content: bytes) -> bytes:
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            running.append(True)
        return content

    with ship(run) as found:
        found.warm()
        found.all(*[b"0"] * 50)
    assert not running


@pytest.mark.parametrize("seed", range(4))
def test_every_request_is_answered_whatever_comes(seed: int) -> None:
    chosen = random.Random(seed)
    lengths = [b"0"] * 400 + [b"0.0002"] * 20 + [b"0.03"]
    lost: list[BaseException] = []

    def ask_aside(found: Ship) -> None:
        for _ in range(200):
            try:
                found.module.score_here(Payload(content=b"0"))
            except Busy:
                time.sleep(0.001)
            except BaseException as error:
                lost.append(error)

    with ship(settings=Settings(queue=1000)) as found:
        aside = threading.Thread(target=ask_aside, args=(found,))
        aside.start()
        for _ in range(150):
            asked = [chosen.choice(lengths) for _ in range(chosen.randint(1, 20))]
            assert found.all(*asked) == asked
        aside.join(20)
    assert not lost
    assert found.failure is None
