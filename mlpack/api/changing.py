"""Carrying changes of containers out, so that a failure leaves what was there before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from mlpack.errors import MlpackError
from mlpack.plan.up import Change, Found, Step, ended_in
from mlpack.stores.containers import Containers

T = TypeVar("T")

_MADE = (Step.CREATE, Step.REPLACE)
_STOPPED = (Step.REMOVE, Step.REPLACE, Step.STOP)
_STARTED = (*_MADE, Step.START)
_GONE = (Step.REMOVE, Step.REPLACE)


class Undo:
    """Takes steps, and takes them back, last first."""

    def __init__(self) -> None:
        self._back: list[Callable[[], object]] = []

    def take(self, step: Callable[[], T], back: Callable[[T], object]) -> T:
        """Take a step, and remember what takes it back from what it gave.

        The daemon does what it was asked for whether somebody waits or not, so that an
        interruption has to wait until it is known what there is to take back.
        """

        def whole() -> T:
            done = step()
            self._back.append(lambda: back(done))
            return done

        return uninterrupted(whole)

    @property
    def begun(self) -> bool:
        """Whether there is anything to take back."""
        return bool(self._back)

    def run(self) -> str:
        """Take them all back; return why one could not be, or an empty text."""
        failed = ""
        while self._back:
            try:
                self._back.pop()()
            except (MlpackError, OSError) as error:  # a daemon that went away is an OSError
                failed = failed or str(error)
        return failed


def uninterrupted(step: Callable[[], T]) -> T:
    """Take a step to its end; an interruption is raised after it."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(step).result()


@contextmanager
def undoing(say: Callable[[str], None]) -> Iterator[Undo]:
    """Take back all steps of the block where it fails or is interrupted, and say so."""
    undo = Undo()
    try:
        yield undo
    except BaseException:
        begun = undo.begun
        failed = undo.run()
        if failed:
            say(f"not everything could be undone ({failed}); mlpack down removes what is left")
        elif begun:
            say("what this run began was undone: all is as it was before")
        else:
            say("nothing was changed")
        raise


def remove_replaced(here: Containers, changes: Sequence[Change]) -> None:
    """Remove the containers whose place others have, and those that none takes."""
    gone = [each.found.id for each in changes if each.found is not None and each.step in _GONE]

    def remove() -> None:
        for id in gone:
            here.remove(id)

    uninterrupted(remove)


def replace(here: Containers, changes: Sequence[Change], undo: Undo) -> dict[str, str]:
    """Make, stop and start containers; return the id of each module's.

    New ones are made before an old one is stopped, so that most of what the daemon refuses
    stops none. Old ones stay, under another name, until :func:`remove_replaced`.
    """
    ids = {each.module: each.found.id for each in changes if each.wanted and each.found}
    ids |= _make(here, changes, undo)
    for found in ended_in([e.found for e in changes if e.found and e.step in _STOPPED]):
        if found.alive:
            _stop(here, found, undo)
    for change in changes:
        if change.step is Step.REPLACE and change.found is not None:
            _rename(here, change.found.id, change.module, _aside(change.found), undo)
            _rename(here, ids[change.module], _next(change.module), change.module, undo)
    for change in changes:
        if change.wanted and change.wanted.module.running and change.step in _STARTED:
            here.require_free(change.wanted)
            _start(here, ids[change.module], change.module, undo)
    return ids


def _make(here: Containers, changes: Sequence[Change], undo: Undo) -> dict[str, str]:
    """Make the new containers; those that replace one get its name when that has ended."""
    ids = {}
    for change in changes:
        if change.step in _MADE and change.wanted is not None:
            replaces = change.step is Step.REPLACE
            name = _next(change.module) if replaces else change.module
            make = partial(here.create, change.wanted, name)
            ids[change.module] = undo.take(make, here.remove)
    return ids


def _next(module: str) -> str:
    return f"{module}.next"


def _aside(found: Found) -> str:
    return f"{found.module}.{found.id[:12]}"


def _stop(here: Containers, found: Found, undo: Undo) -> None:
    undo.take(partial(here.stop, found.id), lambda _: here.start(found.id, found.module))


def _rename(here: Containers, id: str, old: str, new: str, undo: Undo) -> None:
    undo.take(partial(here.rename, id, new), lambda _: here.rename(id, old))


def _start(here: Containers, id: str, module: str, undo: Undo) -> None:
    undo.take(partial(here.start, id, module), lambda _: here.stop(id))
