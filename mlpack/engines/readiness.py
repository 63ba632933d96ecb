"""Waiting until containers are ready, or it is clear that one will not be."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlpack.engines.engine import ContainerState, Engine, EngineError

MAX_RESTARTS = 3
"""A module may end once or twice because another one is not there yet."""

STEADY_SECONDS = 2
"""How long a restarted module has to run before it counts as running."""

_PAUSE = 0.1
# A proxy of the environment does not lead to this machine.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class NotReady(EngineError):
    """A container that ended, or never answered."""

    hint = "its last lines are above; try the scoring script with the model it was built with"


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a container is ready."""

    word: str
    settled: bool = True
    """Whether looking again would change nothing."""

    failed: bool = False


def answers(url: str) -> bool:
    """Whether an HTTP server at ``url`` answers with status 200."""
    try:
        with _DIRECT.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def readiness(
    state: ContainerState, *, answer: bool | None = None, steady: bool = True
) -> Readiness:
    """What the state of a container that is to run means.

    ``answer`` says whether it answers over HTTP, for one that should; ``steady`` whether it has
    run for a while since its last restart.

    >>> readiness(ContainerState("running"), answer=True).word
    'ready'
    >>> readiness(ContainerState("exited", exit_code=1))
    Readiness(word='ended with status 1', settled=True, failed=True)
    """
    if state.restarts >= MAX_RESTARTS:
        return Readiness(f"ended and was restarted {state.restarts} times", failed=True)
    # podman's are stopped until it has cleaned up.
    if state.status in ("exited", "dead", "stopped"):
        return Readiness(f"ended with status {state.exit_code}", failed=state.exit_code != 0)
    if state.status != "running":
        return Readiness(state.status, settled=False)
    if answer is False:
        return Readiness("starting", settled=False)
    if state.health not in ("", "healthy"):
        return Readiness(state.health, settled=False)
    if answer or state.health:
        return Readiness("ready")
    return Readiness("running", settled=steady or not state.restarts)


def wait_until_ready(
    engine: Engine, containers: Mapping[str, Sequence[str]], seconds: float
) -> Mapping[str, Readiness]:
    """Look at containers until each is settled; return how each is.

    ``containers`` has for each container the URLs at one of which it should answer, or none.
    What is not ready after ``seconds`` has failed; with 0 it is looked at once, and no URL is
    asked.
    """
    watches = {id: _Watch(engine, id, urls if seconds else ()) for id, urls in containers.items()}
    deadline = time.monotonic() + seconds
    while True:
        found = {id: each.look() for id, each in watches.items()}
        if not seconds or all(each.settled for each in found.values()):
            return found
        if time.monotonic() > deadline:
            return {id: _given_up(each) for id, each in found.items()}
        time.sleep(_PAUSE)


def _given_up(found: Readiness) -> Readiness:
    if found.settled or found.word == "running":
        return found
    return Readiness(f"still {found.word}", failed=True)


@dataclass
class _Watch:
    """One container that is looked at repeatedly."""

    engine: Engine
    id: str
    urls: Sequence[str]
    restarts: int = 0
    since: float = 0

    def look(self) -> Readiness:
        state = self.engine.state(self.id)
        now = time.monotonic()
        if state.restarts != self.restarts:
            self.restarts, self.since = state.restarts, now
        asks = bool(self.urls) and state.status == "running"
        return readiness(
            state,
            answer=any(answers(each) for each in self.urls) if asks else None,
            steady=now - self.since >= STEADY_SECONDS,
        )


def require_ready(engine: Engine, container: str, url: str, seconds: float) -> None:
    """Wait until ``url`` answers; raise :class:`NotReady` with the container's last lines."""
    found = wait_until_ready(engine, {container: [url]}, seconds)[container]
    if found.word != "ready":
        said = engine.logs(container)[-2000:]
        raise NotReady(f"{said}\ncontainer {container[:12]} {found.word}")
