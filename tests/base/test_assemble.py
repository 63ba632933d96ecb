"""Making a base for several platforms at once, and what an interrupt leaves running."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from mlpack.base.assemble import at_once
from mlpack.base.layer_files import Advance
from mlpack.oci.descriptor import Platform
from tests.support import AMD64, ARM64

LONG = 120.0


def make_slowly(platform: Platform, advance: Advance) -> Platform:
    """Work for longer than any test, unless ``advance`` stops it."""
    end = time.monotonic() + LONG
    while time.monotonic() < end:
        advance(0)
        time.sleep(0.001)
    return platform


def interrupted_at(step: int, call: Callable[[], object]) -> bool:
    """Interrupt ``call`` before line ``step`` of :func:`at_once`, or while it waits after that.

    Returns whether there was anything to interrupt.
    """
    left = step

    def trace(frame: FrameType, event: str, arg: Any) -> Any:  # noqa: ANN401
        nonlocal left
        if frame.f_code is not at_once.__code__:
            return None
        if event == "exception":
            left = 0  # one interrupt is enough
        elif event == "line" and left:
            left -= 1
            if not left:
                signal.setitimer(signal.ITIMER_REAL, 0)  # one interrupt is enough
                raise KeyboardInterrupt
        return trace

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    tracing = sys.gettrace()  # coverage's
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(tracing)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return False


def test_results_come_in_the_order_of_the_platforms() -> None:
    def make(platform: Platform, advance: Advance) -> str:
        time.sleep(0.05 if platform == AMD64 else 0)
        return str(platform)

    assert at_once((AMD64, ARM64), make) == ("linux/amd64", "linux/arm64")


def test_a_platform_that_fails_stops_the_others() -> None:
    def make(platform: Platform, advance: Advance) -> Platform:
        if platform == ARM64:
            raise ValueError(platform)
        return make_slowly(platform, advance)

    start = time.monotonic()
    with pytest.raises(ValueError, match="arm64"):
        at_once((AMD64, ARM64), make)
    assert time.monotonic() - start < LONG / 2


@pytest.mark.parametrize("step", range(1, 13))
def test_an_interrupt_at_any_step_stops_all_platforms(step: int) -> None:
    start = time.monotonic()
    assert interrupted_at(step, lambda: at_once((AMD64, ARM64), make_slowly))
    assert time.monotonic() - start < LONG / 2
    assert not [each for each in threading.enumerate() if each.name.startswith("base")]
