"""Interruptions aimed at an effect and its undo: none is lost, none comes in between."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlpack.cli import main
from mlpack.interruptions import call_in_threads
from tests.support import PROFILE

CHECKOUT = Path(__file__).resolve().parents[1]
COUNT = 3000 if PROFILE == "full" else 400

# Timers fire at random moments before, inside and after the step: the handler sends SIGINT as a
# terminal does.
STEPS = """
import os, random, signal, sys, time
import numpy  # starts threads of its own, which get signals too
from mlpack.interruptions import held_back, undone_on_failure

random.seed(1)
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
interrupted = 0
for _ in range(int(sys.argv[1])):
    there = []
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(20e-6, 400e-6))
        with undone_on_failure() as undo:
            with held_back():
                there.append("half")
                time.sleep(random.choice((0, 1e-4, 3e-4)))
                there[0] = "whole"
                undo.callback(there.clear)
            time.sleep(5e-3)
        sys.exit("an interruption was lost")
    except KeyboardInterrupt:
        interrupted += 1
        assert there == [], there
print(interrupted)
"""

THREADS = """
import os, random, signal, sys, threading, time
from mlpack.cli import main
from mlpack.interruptions import call_in_threads

random.seed(2)
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
interrupted = 0
for _ in range(int(sys.argv[1])):
    stop = threading.Event()
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(20e-6, 6e-4))
        call_in_threads([lambda: stop.wait(30)] * 4, 2, stop.set)
        sys.exit("an interruption was lost")
    except KeyboardInterrupt:
        interrupted += 1
        assert threading.active_count() == 1
print(interrupted)
"""


@pytest.mark.parametrize("program", [STEPS, THREADS])
def test_no_interruption_is_lost_and_none_comes_between(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, str(COUNT)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=CHECKOUT,
    )
    assert done.stderr == ""
    assert done.stdout.strip() == str(COUNT)


def test_results_come_in_the_order_of_the_calls() -> None:
    first = threading.Event()

    def slow() -> str:
        assert first.wait(30)
        return "slow"

    def quick() -> str:
        first.set()
        return "quick"

    assert call_in_threads([slow, quick], 2, lambda: None) == ["slow", "quick"]
    assert call_in_threads([], 2, lambda: None) == []


def test_one_that_fails_stops_the_others_and_drops_those_that_wait() -> None:
    stop, begun = threading.Event(), []

    def fail() -> None:
        raise ValueError("no")

    def wait() -> None:
        begun.append(1)
        assert stop.wait(30)

    with pytest.raises(ValueError, match="no"):
        call_in_threads([fail, wait, wait, wait], 2, stop.set)
    assert stop.is_set()
    assert len(begun) < 3


class Interrupted:
    """A member of a class that is interrupted while the class is made."""

    def __set_name__(self, owner: type, name: str) -> None:
        raise KeyboardInterrupt


def test_an_interruption_while_a_class_is_made_ends_as_every_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main.cli, "main", lambda **_: type("Made", (), {"member": Interrupted()}))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            main.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 130
    assert "interrupted" in capsys.readouterr().err
