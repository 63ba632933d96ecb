"""Jobs between an event loop and the worker: batches, short and long runs, nothing lost."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import pytest

from mlpack.runtime.http_errors import ScoringTimeout, ServiceUnavailable
from mlpack.runtime.identity import ModelIdentity
from mlpack.runtime.scorer import Payload
from mlpack.runtime.scoring_service import ScoringService
from mlpack.runtime.settings import RuntimeSettings
from tests.runtime.test_scoring_service import HELD, Scorer

USUAL = RuntimeSettings()


def slept(content: bytes) -> bytes:
    """Take as long as the request says."""
    seconds = float(content)
    if seconds:
        time.sleep(seconds)
    return content


@contextmanager
def service(
    run: Callable[[bytes], object] = slept, settings: RuntimeSettings = USUAL
) -> Iterator[ScoringService]:
    """A service whose worker has a thread of its own, as in a container."""
    scorer = Scorer(lambda payload: run(payload.content))
    found = ScoringService(scorer, settings, ModelIdentity(name="a", version="1"))
    worker = threading.Thread(target=found.work, daemon=True)
    worker.start()
    try:
        yield found
    finally:
        found.close()
        worker.join(HELD)
        assert not worker.is_alive()


async def together(found: ScoringService, contents: Iterable[bytes]) -> list[object]:
    """Answers to requests that come in the same moment."""
    made = (found.score(Payload(content=each)) for each in contents)
    return list(await asyncio.gather(*made, return_exceptions=True))


def test_requests_of_one_moment_are_answered_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine short runs look long, and are not waited for as long.
    monkeypatch.setattr("mlpack.runtime.worker._SHORT_SECONDS", HELD)
    monkeypatch.setattr("mlpack.runtime.loop_handoff._PATIENCE_SECONDS", HELD)
    turns = 0

    async def main(found: ScoringService) -> list[object]:
        nonlocal turns
        answers = asyncio.ensure_future(together(found, [b"0"] * 50))
        while not answers.done():
            turns += 1
            await asyncio.sleep(0)
        return await answers

    with service() as found:
        assert asyncio.run(main(found)) == [b"0"] * 50
    # The loop waited: without that it would turn thousands of times.
    assert turns < 100


def test_a_long_run_keeps_nobody_else_waiting() -> None:
    gate = threading.Event()

    def run(content: bytes) -> bytes:
        if content == b"hold":
            gate.wait(HELD)
        return content

    async def main(found: ScoringService) -> None:
        for _ in range(3):
            gate.clear()
            first = asyncio.ensure_future(found.score(Payload(content=b"0")))
            long = asyncio.ensure_future(found.score(Payload(content=b"hold")))
            # The first is scored in the same batch, and answered while the second is scored.
            assert await first == b"0"
            await asyncio.sleep(0)
            assert not long.done()
            assert found.live
            waiting = [
                asyncio.ensure_future(found.score(Payload(content=b"%d" % n))) for n in range(5)
            ]
            await asyncio.sleep(0.05)
            assert not any(each.done() for each in waiting)
            gate.set()
            assert await long == b"hold"
            assert await asyncio.gather(*waiting) == [b"%d" % n for n in range(5)]

    with service(run) as found:
        asyncio.run(main(found))


def test_the_loop_does_not_wait_for_runs_that_are_usually_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mlpack.runtime.loop_handoff._PATIENCE_SECONDS", HELD)
    gate = threading.Event()

    def run(content: bytes) -> bytes:
        if content == b"hold":
            assert gate.wait(HELD), "the loop did not turn while the model ran"
            return content
        return slept(content)

    async def main(found: ScoringService) -> None:
        for _ in range(20):
            await found.score(Payload(content=b"0.01"))
        long = asyncio.ensure_future(found.score(Payload(content=b"hold")))
        for _ in range(10):
            await asyncio.sleep(0)
            assert not long.done()
        gate.set()
        assert await long == b"hold"

    with service(run) as found:
        asyncio.run(main(found))


def test_who_takes_too_long_is_told_so_and_the_next_is_scored() -> None:
    gate = threading.Event()

    def run(content: bytes) -> bytes:
        if content == b"hold":
            gate.wait(HELD)  # not the main thread: not interrupted
        return content

    async def main(found: ScoringService) -> None:
        with pytest.raises(ScoringTimeout):
            await found.score(Payload(content=b"hold"))
        gate.set()
        assert await found.score(Payload(content=b"0")) == b"0"

    with service(run, RuntimeSettings(timeout=1.5)) as found:
        asyncio.run(main(found))


def test_short_runs_are_not_refused_for_coming_at_once() -> None:
    busy, gate = threading.Event(), threading.Event()

    def run(content: bytes) -> bytes:
        if content == b"hold":
            busy.set()
            gate.wait(HELD)
        return content

    async def main(found: ScoringService) -> None:
        assert await together(found, [b"0"] * 100) == [b"0"] * 100
        # Unlike those behind a long one.
        long = asyncio.ensure_future(found.score(Payload(content=b"hold")))
        assert await asyncio.to_thread(busy.wait, HELD)
        waiting = asyncio.ensure_future(together(found, [b"0"] * 10))
        await asyncio.sleep(0.05)
        assert found.depth == 4
        gate.set()
        answers = await waiting
        assert sum(isinstance(each, ServiceUnavailable) for each in answers) == 6
        assert await long == b"hold"

    with service(run, RuntimeSettings(queue=4)) as found:
        asyncio.run(main(found))


def test_no_loop_is_kept_from_a_script() -> None:
    """A script may run coroutines of its own, as it may where each request has a thread."""
    with service(lambda content: asyncio.run(asyncio.sleep(0, content))) as found:
        assert asyncio.run(together(found, [b"a"] * 20)) == [b"a"] * 20


def test_a_loop_that_is_closed_does_not_end_the_worker() -> None:
    async def leave(found: ScoringService) -> None:
        waiting = asyncio.ensure_future(found.score(Payload(content=b"0.2")))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting

    with service() as found:
        asyncio.run(leave(found))
        assert found.score_blocking(Payload(content=b"0")) == b"0"
        assert asyncio.run(together(found, [b"0"])) == [b"0"]


@pytest.mark.parametrize("seed", range(4))
def test_every_request_is_answered_whatever_comes(seed: int) -> None:
    chosen = random.Random(seed)
    lengths = [b"0"] * 400 + [b"0.0002"] * 20 + [b"0.03"]
    lost: list[BaseException] = []

    def ask_aside(found: ScoringService) -> None:
        for _ in range(200):
            try:
                found.score_blocking(Payload(content=b"0"))
            except ServiceUnavailable:
                time.sleep(0.001)
            except BaseException as error:
                lost.append(error)

    async def main(found: ScoringService) -> None:
        for _ in range(150):
            asked = [chosen.choice(lengths) for _ in range(chosen.randint(1, 20))]
            assert await asyncio.wait_for(together(found, asked), HELD) == asked

    with service(settings=RuntimeSettings(queue=1000)) as found:
        aside = threading.Thread(target=ask_aside, args=(found,))
        aside.start()
        asyncio.run(main(found))
        aside.join(HELD)
    assert not lost
