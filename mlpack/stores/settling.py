"""Waiting until the modules of a deployment are ready, or it is clear that one will not be."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from mlpack.plan.containers import Wanted
from mlpack.plan.up import Health, Look, given_up, health
from mlpack.stores.containers import Containers
from mlpack.stores.daemon import answers

STEADY_SECONDS = 2
"""How long a module that cannot be asked has to run before it counts."""

_PAUSE = 0.2


@dataclass(frozen=True, slots=True)
class Seen:
    """How a module did when it was looked at last."""

    health: Health
    addresses: tuple[str, ...]
    """``HOST:PORT``, where it is reached from this machine."""


@dataclass
class _Watch:
    """One container that is looked at again and again."""

    id: str
    wanted: Wanted
    since: float
    """When it was started last, as far as was seen; before all time where nobody saw it."""

    first: int | None = None
    last: int = 0

    def look(self, here: Containers, *, ask: bool) -> Seen:
        look, addresses = here.look(self.id)
        ports = self.wanted.host_ports
        addresses = tuple(f"{here.host}:{port}" for port in ports) or addresses
        look = self._counted(look)
        if ask and self.wanted.image.release and addresses and look.state == "running":
            look = replace(look, answers=any(answers(f"http://{each}/") for each in addresses))
        return Seen(health(look), addresses)

    def _counted(self, look: Look) -> Look:
        now = time.monotonic()
        if self.first is None:
            self.first = self.last = look.restarts
        if look.restarts != self.last:
            self.last, self.since = look.restarts, now
        steady = now - self.since >= STEADY_SECONDS
        return replace(look, restarts=look.restarts - self.first, steady=steady)


def settle(
    here: Containers,
    running: Mapping[str, Wanted],
    started: Collection[str],
    *,
    seconds: float,
) -> Mapping[str, Seen]:
    """Look at the containers ``running``, by their ids, until each is settled.

    Those ``started`` now have to run for a while. After ``seconds`` what is not well has
    failed; with 0 it is looked at once, and nothing is asked over HTTP.
    """
    begun = time.monotonic()
    watched = [
        _Watch(id, wanted, since=begun if id in started else float("-inf"))
        for id, wanted in running.items()
    ]
    seen: dict[str, Seen] = {}
    while True:
        for each in watched:
            if each.id not in seen or not seen[each.id].health.settled:
                seen[each.id] = each.look(here, ask=seconds > 0)
        waits = not all(each.health.settled for each in seen.values())
        if not waits or seconds <= 0:
            return seen
        if time.monotonic() - begun > seconds:
            return {id: replace(each, health=given_up(each.health)) for id, each in seen.items()}
        time.sleep(_PAUSE)
