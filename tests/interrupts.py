"""Interrupting a command before each of its effects, one run for each.

Python's audit events name a process's effects (files opened for writing, renamed and removed,
connections, programs). Before the n-th of them SIGINT is sent to this process, as a terminal
does: a command that holds signals back gets it later, any other at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support import repeats, run

_EFFECTS = frozenset(
    {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod"}
    | {"sqlite3.connect", "socket.connect", "subprocess.Popen", "fcntl.flock"}
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

INTERRUPTED = 130


@dataclass
class _Watch:
    """Counts effects, and interrupts before one of them."""

    at: int | None
    count: int = 0
    names: list[str] = field(default_factory=list)

    def see(self, event: str, args: tuple[object, ...]) -> None:
        if event == "open":
            flags = args[2]
            if not (isinstance(flags, int) and flags & _WRITES):
                return
            event = f"open {args[0]!r}"
        elif event not in _EFFECTS:
            return
        number, self.count = self.count, self.count + 1
        self.names.append(event)
        if number == self.at:
            os.kill(os.getpid(), signal.SIGINT)


_watching: list[_Watch] = []
_hooked: list[bool] = []


def _hook(event: str, args: tuple[object, ...]) -> None:
    for each in _watching:
        each.see(event, args)


@contextmanager
def _watch(at: int | None) -> Iterator[_Watch]:
    if not _hooked:
        sys.addaudithook(_hook)  # for good: hooks cannot be removed
        _hooked.append(True)
    watch = _Watch(at)
    _watching.append(watch)
    try:
        yield watch
    finally:
        _watching.clear()


def interrupted_at(args: tuple[str, ...], at: int | None) -> tuple[int, str, list[str]]:
    """Run a command, interrupted before effect ``at``: its status, stderr and effects."""
    with _watch(at) as watch:
        try:
            done = run(*args)
            status, said = done.exit_code, done.stderr
        except KeyboardInterrupt:
            status, said = INTERRUPTED, "error: interrupted"
    return status, said, watch.names


def interrupted_at_every_step(
    prepare: Callable[[], tuple[str, ...]], state: Callable[[], object]
) -> int:
    """Interrupt a command at every effect; return how many effects it has.

    ``prepare`` makes what the command works on anew and returns its arguments; ``state`` is all
    that a user could see of it. After an interruption the state is that before or after the
    command, and running it again ends in the latter. A quick run takes some of the effects.
    """
    args = prepare()
    before = state()
    status, said, names = interrupted_at(args, None)
    assert status == 0, said
    after = state()
    points = repeats(min(12, len(names)), len(names))
    for number in range(points):
        at = number * len(names) // points
        args = prepare()
        assert state() == before
        status, said, seen = interrupted_at(args, at)
        where = f"at {at} of {len(names)}, before {seen[at:]} after {seen[:at]}"
        assert status in (0, INTERRUPTED), f"{where}: {said}"
        found = _seen(state, where)
        assert found in (before, after), f"{where}: {_difference(found, before, after)}"
        status, said, _ = interrupted_at(args, None)
        assert status == 0, f"again, {where}: {said}"
        assert state() == after, f"again, {where}: {_difference(state(), after)}"
    return len(names)


def _seen(state: Callable[[], object], where: str) -> object:
    try:
        return state()
    except AssertionError as error:
        raise AssertionError(f"{where}: {error}") from error


def _difference(found: object, *expected: object) -> str:
    if not isinstance(found, dict):
        return repr(found)
    return " | ".join(
        str(
            {k: (found.get(k), each.get(k)) for k in {*found, *each} if found.get(k) != each.get(k)}
        )
        for each in expected
        if isinstance(each, dict)
    )
