"""A module's queue: bounded, joined, timed, and never dead."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlpack.runtime import scorer as scorers
from mlpack.runtime.codec import to_json as dumps
from mlpack.runtime.http_errors import (
    BadRequest,
    ContentTooLarge,
    ScoringFailed,
    ScoringTimeout,
    ServiceUnavailable,
    UnsupportedMediaType,
)
from mlpack.runtime.identity import ModelIdentity
from mlpack.runtime.scorer import Array, Payload, Reply
from mlpack.runtime.scoring_service import ScoringService
from mlpack.runtime.settings import RuntimeSettings
from mlpack.runtime.signature import Signature, Tensor
from mlpack.runtime.worker import RowsDiffer, ScoringJob, Work, Worker, close, split
from tests.runtime import models
from tests.runtime.support import release, started

SIGNATURE = Signature(
    (Tensor("x", "tensor(float)", ("N", 2)),), (Tensor("y", "tensor(float)", ("N", 2)),)
)


HELD = 60
"""Seconds that a run waits at most for the test, or the test for a run."""


class Scorer(scorers.Scorer):
    """A scorer that does what the test says, and remembers how many rows came at once."""

    signature = SIGNATURE
    tensors = batches = True

    def __init__(self, run: Callable[[Payload], object] = lambda payload: payload.content) -> None:
        self._run = run
        self.rows: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Event()

    def run(self, payload: Payload) -> object:
        return self._run(payload)

    def run_tensors(self, tensors: Mapping[str, Array]) -> Mapping[str, object]:
        self.busy.set()
        self.gate.wait(HELD)
        x = tensors["x"]
        self.rows.append(len(x))
        if (x == 13).any():
            raise KeyError("unlucky")
        return {"y": x * 2}


def module(scorer: Scorer, **settings: object) -> ScoringService:
    chosen = replace(RuntimeSettings(), **settings)  # type: ignore[arg-type]
    found = ScoringService(scorer, chosen, ModelIdentity(name="a", version="1"))
    threading.Thread(target=found.work, daemon=True).start()
    return found


def tensor(*rows: tuple[float, float]) -> dict[str, Array]:
    return {"x": np.array(rows, np.float32)}


def send(content: bytes = b"") -> Payload:
    return Payload(content=content)


def at_once(found: ScoringService, scorer: Scorer, *given: Mapping[str, Array]) -> list[object]:
    """The results or errors of requests that all wait while the first is scored."""
    scorer.gate.clear()
    scorer.busy.clear()

    async def main() -> list[object]:
        waiting = [asyncio.ensure_future(found.infer(given[0]))]
        await asyncio.to_thread(scorer.busy.wait, HELD)
        waiting += [asyncio.ensure_future(found.infer(each)) for each in given[1:]]
        while found.depth < len(given) - 1 and not any(each.done() for each in waiting):
            await asyncio.sleep(0.001)
        scorer.gate.set()
        return list(await asyncio.gather(*waiting, return_exceptions=True))

    return asyncio.run(main())


def results(outputs: list[object]) -> list[object]:
    return [each["y"].tolist() if isinstance(each, dict) else each for each in outputs]


def trusted(found: ScoringService, scorer: Scorer) -> None:
    """Let joining be compared with separate runs as often as it is."""
    for turn in range(4):
        at_once(found, scorer, *(tensor((turn, place)) for place in range(4)))
    scorer.rows.clear()


def test_waiting_requests_are_joined() -> None:
    scorer = Scorer()
    found = module(scorer)
    trusted(found, scorer)
    given = [tensor((1, 2)), tensor((3, 4), (5, 6)), tensor((7, 8))]
    outputs = at_once(found, scorer, tensor((0, 0)), *given)
    assert results(outputs) == [[[0, 0]], [[2, 4]], [[6, 8], [10, 12]], [[14, 16]]]
    assert scorer.rows == [1, 4]
    found.close()


def test_at_most_so_many_rows_are_joined() -> None:
    scorer = Scorer()
    found = module(scorer, batch=3)
    trusted(found, scorer)
    at_once(found, scorer, *(tensor((n, n)) for n in range(6)))
    assert scorer.rows == [1, 3, 2]
    scorer.rows.clear()
    large = tensor((1, 1), (2, 2), (3, 3), (4, 4))
    at_once(found, scorer, tensor((0, 0)), large, large, tensor((9, 9)))
    assert scorer.rows == [1, 4, 4, 1]
    found.close()


def test_one_bad_request_does_not_spoil_those_it_is_joined_with() -> None:
    scorer = Scorer()
    found = module(scorer)
    trusted(found, scorer)
    outputs = at_once(found, scorer, tensor((0, 0)), tensor((1, 1)), tensor((13, 1)))
    assert results(outputs[:2]) == [[[0, 0]], [[2, 2]]]
    assert isinstance(outputs[2], ScoringFailed)
    assert results(at_once(found, scorer, tensor((4, 4)))) == [[[8, 8]]]
    found.close()


def test_one_row_at_a_time_where_joining_is_off() -> None:
    scorer = Scorer()
    found = module(scorer, batch=1)
    at_once(found, scorer, *(tensor((n, n)) for n in range(4)))
    assert scorer.rows == [1, 1, 1, 1]
    found.close()


def test_a_wait_lets_requests_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer()
    found = module(scorer, batch_wait=0.01, batch=2)
    trusted(found, scorer)
    # It ends as soon as the second is there, however long that takes on a busy machine.
    monkeypatch.setattr(found._worker, "_wait", HELD)

    async def main() -> None:
        first = asyncio.ensure_future(found.infer(tensor((1, 1))))
        await asyncio.sleep(0.05)
        await asyncio.gather(first, found.infer(tensor((2, 2))))

    asyncio.run(main())
    assert scorer.rows == [2]
    found.close()


def test_joining_ends_for_good_when_a_run_returns_other_rows(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scorer = Scorer()
    found = module(scorer)
    trusted(found, scorer)
    right = scorer.run_tensors

    def detect(tensors: Mapping[str, Array]) -> Mapping[str, object]:
        """Return a row for each positive number."""
        outputs = right(tensors)
        y = np.asarray(outputs["y"])
        return {"y": y[y > 0].reshape(-1, 1)}

    found._worker._run_tensors = detect
    one, none = tensor((1, 1)), tensor((-1, -1))
    outputs = at_once(found, scorer, one, none, one, none)
    assert results(outputs) == [[[2], [2]], [], [[2], [2]], []]
    scorer.rows.clear()
    at_once(found, scorer, tensor((1, 1)), tensor((1, 1)), tensor((1, 1)))
    assert scorer.rows == [1, 1, 1]
    assert sum("not joined any more" in each for each in caplog.messages) == 1
    found.close()


def test_requests_that_give_an_optional_input_are_not_joined() -> None:
    scorer = Scorer()
    scorer.generic = True
    scale = Tensor("scale", "tensor(float)", (1,), optional=True)
    scorer.signature = Signature((*SIGNATURE.inputs, scale), SIGNATURE.outputs)
    found = module(scorer, batch_forced=True)
    trusted(found, scorer)
    given = {**tensor((1, 1)), "scale": np.ones(1, np.float32)}
    at_once(found, scorer, tensor((0, 0)), given, given)
    assert scorer.rows == [1, 1, 1]
    found.close()


@pytest.mark.parametrize(
    ("generic", "proved", "settings", "joined"),
    [
        (True, False, {}, False),
        (True, True, {}, True),
        (True, False, {"batch_forced": True}, True),
        (True, True, {"batch": 1}, False),
        (False, False, {}, True),  # the script has BATCHES
    ],
)
def test_requests_are_joined_where_it_is_proved_or_forced(
    generic: bool, proved: bool, settings: dict[str, object], joined: bool
) -> None:
    scorer = Scorer()
    scorer.generic = generic
    scorer.batches = not generic
    chosen = replace(RuntimeSettings(), **settings)  # type: ignore[arg-type]
    identity = ModelIdentity(name="a", version="1", rows_independent=proved)
    found = ScoringService(scorer, chosen, identity)
    threading.Thread(target=found.work, daemon=True).start()
    trusted(found, scorer)
    at_once(found, scorer, *(tensor((n, n)) for n in range(4)))
    assert scorer.rows == ([1, 3] if joined else [1, 1, 1, 1])
    found.close()


@pytest.mark.parametrize("make", [models.summed_over_rows, models.reduced])
def test_rows_that_are_no_batch_are_never_joined(
    make: Callable[[Path], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = release(tmp_path)
    make(settings.model_dir / "model.onnx")
    rows = [np.full((1, 4), n, np.float32) for n in range(8)]
    with started(settings) as found:
        alone = [found.score_blocking(Payload(content=b'{"data": [[1, 1, 1, 1]]}'))]

        async def main() -> list[Mapping[str, object]]:
            return list(await asyncio.gather(*(found.infer({"x": each}) for each in rows)))

        for _ in range(3):
            outputs = [np.asarray(each["y"]) for each in asyncio.run(main())]
            factor = 2 if make is models.summed_over_rows else 1
            for row, output in zip(rows, outputs, strict=True):
                assert output.tolist() == (row * factor).tolist()
    assert alone
    assert sum("are not joined" in each for each in caplog.messages) <= 1


def test_a_full_queue_is_said() -> None:
    scorer = Scorer()
    found = module(scorer, queue=2)
    outputs = at_once(found, scorer, *(tensor((n, n)) for n in range(3)))
    assert all(isinstance(each, dict) for each in outputs)
    scorer.gate.clear()
    scorer.busy.clear()

    async def main() -> None:
        waiting = [asyncio.ensure_future(found.infer(tensor((1, 1))))]
        assert await asyncio.to_thread(scorer.busy.wait, HELD), "that one is being scored"
        waiting += [asyncio.ensure_future(found.infer(tensor((n, n)))) for n in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(ServiceUnavailable, match="2 requests wait already") as caught:
            await found.infer(tensor((9, 9)))
        assert caught.value.headers == {"retry-after": "1"}
        with pytest.raises(ServiceUnavailable):
            await asyncio.to_thread(found.score_blocking, send(b"x"))
        scorer.gate.set()
        await asyncio.gather(*waiting)

    asyncio.run(main())
    found.close()


def test_late_requests_are_answered_and_skipped() -> None:
    hold = threading.Event()
    seen: list[bytes] = []

    def run(payload: Payload) -> object:
        seen.append(payload.content)
        hold.wait(HELD)
        return 1

    # Within that time the first has begun, however busy the machine is.
    found = module(Scorer(run), timeout=1.5)

    async def main() -> None:
        outputs = await asyncio.gather(
            found.score(send(b"first")), found.score(send(b"second")), return_exceptions=True
        )
        assert [type(each) for each in outputs] == [ScoringTimeout, ScoringTimeout]
        with pytest.raises(ScoringTimeout, match=r"longer than 1\.5 seconds"):
            await asyncio.to_thread(found.score_blocking, send(b"third"))

    asyncio.run(main())
    hold.set()
    assert found.score_blocking(send(b"fourth")) == 1
    assert seen == [b"first", b"fourth"]
    found.close()


def states(found: ScoringService) -> tuple[bool, bool]:
    return found.live, found.ready


def test_it_is_not_live_while_it_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlpack.runtime.scoring_service._RECOVERY_SECONDS", 0.05)
    hold = threading.Event()
    found = module(Scorer(lambda _: hold.wait(HELD)), timeout=1.5)
    assert states(found) == (True, True)
    with pytest.raises(ScoringTimeout):
        found.score_blocking(send())
    deadline = time.monotonic() + HELD
    while states(found) != (False, False):
        assert time.monotonic() < deadline
    hold.set()
    assert found.score_blocking(send()) is True
    assert states(found) == (True, True)
    found.close()


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), Exception])
def test_nothing_that_a_script_raises_ends_it(error: BaseException) -> None:
    def run(payload: Payload) -> object:
        if payload.content == b"bad":
            raise error
        return 1

    found = module(Scorer(run))
    for _ in range(3):
        with pytest.raises(ScoringFailed, match="scoring failed with"):
            found.score_blocking(send(b"bad"))
        assert found.score_blocking(send(b"good")) == 1
    found.close()


def test_a_failure_says_little(caplog: pytest.LogCaptureFixture) -> None:
    def run(payload: Payload) -> object:
        raise RuntimeError("a secret value")

    found = module(Scorer(run))
    with pytest.raises(ScoringFailed) as caught:
        found.score_blocking(send())
    assert "secret" not in caught.value.message
    assert "a secret value" in caplog.text
    found.close()


def test_what_is_queued_when_it_closes_is_finished() -> None:
    scorer = Scorer()
    found = module(scorer)
    scorer.gate.clear()

    async def main() -> list[object]:
        waiting = [asyncio.ensure_future(found.infer(tensor((n, n)))) for n in range(5)]
        await asyncio.sleep(0.05)
        found.close()
        with pytest.raises(ServiceUnavailable, match="stopping"):
            await found.infer(tensor((9, 9)))
        scorer.gate.set()
        return list(await asyncio.gather(*waiting))

    assert results(asyncio.run(main())) == [[[2 * n, 2 * n]] for n in range(5)]
    assert not found.ready


def test_who_goes_away_is_forgotten() -> None:
    scorer = Scorer()
    found = module(scorer, batch=1)
    scorer.gate.clear()

    async def main() -> None:
        first = asyncio.ensure_future(found.infer(tensor((1, 1))))
        gone = asyncio.ensure_future(found.infer(tensor((2, 2))))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0)
        scorer.gate.set()
        await first
        await found.infer(tensor((3, 3), (4, 4)))

    asyncio.run(main())
    assert scorer.rows == [1, 2]
    found.close()


OCTETS = np.array([[1, 2]], np.float32).tobytes()


def ask(found: ScoringService, content: bytes, kind: str, accept: str = "") -> object:
    headers = {"accept": accept, "content-type": kind}
    value = found.score_blocking(Payload(content=content, content_type=kind, headers=headers))
    return value if isinstance(value, Reply | bytes) else json.loads(dumps(value))


def test_content_types_and_what_is_accepted() -> None:
    found = module(Scorer())
    assert ask(found, OCTETS, "application/octet-stream") == {"result": [[2, 4]]}
    assert ask(found, OCTETS, "application/octet-stream", "*/*, application/json") == {
        "result": [[2, 4]]
    }
    raw = ask(found, OCTETS, "application/octet-stream", "application/octet-stream;q=0.9")
    assert isinstance(raw, Reply)
    assert raw.content == np.array([[2, 4]], np.float32).tobytes()
    assert raw.headers == {
        "x-tensor-name": "y",
        "x-tensor-shape": "1,2",
        "x-tensor-type": "float32",
    }
    npy = ask(found, OCTETS, "application/octet-stream", "application/x-npy")
    assert isinstance(npy, Reply)
    assert ask(found, npy.content, "application/x-npy") == {"result": [[4, 8]]}
    assert ask(found, b"a", "text/anything") == b"a"
    with pytest.raises(
        UnsupportedMediaType, match="takes application/json, application/octet-stream"
    ):
        ask(found, b"", "image/png")
    found.close()


def test_models_alone_take_what_they_know(tmp_path: Path) -> None:
    settings = release(tmp_path)
    models.doubled(settings.model_dir / "model.onnx")
    with started(settings) as found:
        for kind in ("application/json; charset=utf-8", "application/vnd.x+json", "", "text/plain"):
            assert ask(found, b'{"data": [[1, 2, 3, 4]]}', kind) == {"result": [[2, 4, 6, 8]]}
        for kind in ("application/xml", "image/jpeg", "nonsense"):
            with pytest.raises(UnsupportedMediaType):
                ask(found, b"", kind)
        large = b'{"data": [' + b",".join([b"[1, 2, 3, 4]"] * 40_000) + b"]}"

        async def main() -> object:
            return await found.score(Payload(content=large))

        assert len(str(asyncio.run(main()))) > 10


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    settings = release(tmp_path)
    models.doubled(settings.model_dir / "model.onnx")
    content = np.array([[1, 2, 3, np.nan]], np.float32).tobytes()
    with started(settings) as found, pytest.raises(BadRequest, match="not finite"):
        ask(found, content, "application/octet-stream")
    with started(replace(settings, allow_nan=True)) as found:
        assert ask(found, content, "application/octet-stream") == {"result": [[2, 4, 6, None]]}


def test_pictures_are_bounded(tmp_path: Path) -> None:
    script = "def init(): pass\ndef run(data): pass\ndef run_image(image): return image.size\n"
    settings = replace(release(tmp_path, script), max_pixels=100)
    with started(settings) as found:
        from tests.runtime.test_image_decoding import encoded

        assert ask(found, encoded("PNG", (10, 10)), "image/png") == [10, 10]
        with pytest.raises(ContentTooLarge, match="more than 100 pixels"):
            ask(found, encoded("PNG", (11, 10)), "image/png")


def test_parts_of_joined_outputs() -> None:
    array, maps = np.arange(6).reshape(3, 2), [{"a": 1}, {"a": 2}, {"a": 3}]
    parts = split({"x": array, "p": maps}, [1, 2])
    assert [(str(part["x"]), part["p"]) for part in parts] == [
        ("[[0 1]]", maps[:1]),
        ("[[2 3]\n [4 5]]", maps[1:]),
    ]
    for wrong in (array[:2], np.array(3), {"a": 1}):
        with pytest.raises(RowsDiffer, match="a run of 3 rows returned"):
            split({"x": wrong}, [1, 2])


def test_close_results() -> None:
    one = {"y": np.array([1.0, np.nan]), "label": np.array(["a"]), "maps": [{0: 0.5}]}
    assert close(
        one, {"y": np.array([1.0000001, np.nan]), "label": np.array(["a"]), "maps": [{0: 0.5}]}
    )
    assert not close(one, one | {"y": np.array([1.1, np.nan])})
    assert not close(one, one | {"label": np.array(["b"])})
    assert not close(one, one | {"maps": [{0: 0.6}]})
    assert not close(one, {"y": one["y"]})


def test_a_worker_that_is_closed_takes_nothing() -> None:
    worker = Worker(lambda tensors: {}, limit=1)
    worker.close()
    with pytest.raises(ServiceUnavailable):
        worker.submit(ScoringJob(Work(), lambda job: None))
    worker.work()
