"""What leads from the containers an engine has to those a deployment wants, and how they do.

Values in, values out: :func:`decide` compares, :func:`state` says what a look at one means.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from mlpack.errors import MlpackError
from mlpack.plan.containers import Wanted


class NameTaken(MlpackError):
    """A container that has a module's name, and is not this deployment's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A container an engine has."""

    id: str
    name: str
    state: str
    """Docker's word: ``created``, ``running``, ``paused``, ``restarting``, ``exited``, ``dead``."""

    image: str
    """The id of its image."""

    deployment: str = ""
    """Empty for one that belongs to none."""

    module: str = ""
    order: int = 0
    spec: str = ""

    @property
    def alive(self) -> bool:
        """Whether it runs, or will again by itself."""
        return self.state in ("running", "restarting", "paused")


class Step(Enum):
    """What happens to a container."""

    KEEP = "keep"
    CREATE = "create"
    REPLACE = "replace"
    START = "start"
    STOP = "stop"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One step: to the container that was ``found``, towards the one that is ``wanted``."""

    step: Step
    module: str
    wanted: Wanted | None = None
    found: Found | None = None
    why: str = ""


def decide(
    deployment: str, wanted: Sequence[Wanted], there: Collection[Found]
) -> tuple[Change, ...]:
    """What leads from the containers ``there`` to those ``wanted``.

    First what goes, last started first; then the modules in the order they start in. Raises
    :class:`NameTaken` where a container that is not the deployment's has a module's name.
    """
    ours = {each.id: each for each in there if each.deployment == deployment}
    require_names(deployment, [each.module.name for each in wanted], there)
    named = {each.name: each for each in ours.values() if each.name == each.module}
    steps = [_step(each, named.get(each.module.name)) for each in started_in(wanted)]
    kept = {change.found.id for change in steps if change.found}
    gone = [
        Change(step=Step.REMOVE, module=each.module, found=each, why="not in the manifest")
        for each in ended_in(ours.values())
        if each.id not in kept
    ]
    return (*gone, *steps)


def require_names(deployment: str, modules: Collection[str], there: Collection[Found]) -> None:
    """Raise :class:`NameTaken` where a container of another has the name of a module."""
    taken = {each.name: each for each in there if each.deployment != deployment}
    for name in modules:
        if name in taken:
            raise _taken(name, taken[name])


def started_in(wanted: Collection[Wanted]) -> list[Wanted]:
    """Containers in the order they start in: edgeAgent's, and by name where that says nothing."""
    return sorted(wanted, key=lambda each: (each.module.order, each.module.name))


def ended_in(found: Collection[Found]) -> list[Found]:
    """Containers in the order they end in."""
    return sorted(found, key=lambda each: (each.order, each.name), reverse=True)


def _step(wanted: Wanted, found: Found | None) -> Change:
    name = wanted.module.name
    if found is None:
        return Change(step=Step.CREATE, module=name, wanted=wanted)
    step, why = Step.KEEP, ""
    if found.spec != wanted.spec:
        step, why = Step.REPLACE, "the manifest says otherwise"
    elif found.image != wanted.image.id:
        step, why = Step.REPLACE, "its image is another"
    elif wanted.module.running and not found.alive:
        step, why = Step.START, f"it was {found.state}"
    elif not wanted.module.running and found.alive:
        step, why = Step.STOP, "the manifest wants it stopped"
    return Change(step=step, module=name, wanted=wanted, found=found, why=why)


def _taken(name: str, found: Found) -> NameTaken:
    if found.deployment:
        return NameTaken(
            f"module {name}: a container of that name is of {found.deployment}",
            hint=f"end that deployment first: mlpack down {found.deployment}",
        )
    return NameTaken(
        f"module {name}: there is a container of that name, which is of no deployment",
        hint=f"remove it, or give it another name: docker rename {name} NAME",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look at a container shows."""

    state: str
    """Docker's word, as in :class:`Found`."""

    status: int = 0
    """What it ended with, where it did."""

    restarts: int = 0
    """How often it was started again since it was first looked at."""

    health: str = ""
    """Docker's word where it has a health check: ``starting``, ``healthy``, ``unhealthy``."""

    answers: bool | None = None
    """Whether it answers over HTTP, where it is one that should."""

    steady: bool = False
    """Whether it has run for a while since it was started last."""


@dataclass(frozen=True, slots=True)
class Health:
    """How a module does."""

    word: str
    settled: bool = True
    """Whether looking again changes nothing; else it may be well soon."""

    failed: bool = False


MAX_RESTARTS = 3
"""Once or twice a module may end because another is not there yet."""


def health(look: Look) -> Health:
    """What a look means for a module that is wanted running.

    >>> health(Look(state="running", answers=True)), health(Look(state="exited", status=1)).word
    (Health(word='ready', settled=True, failed=False), 'ended with status 1')
    """
    if look.restarts >= MAX_RESTARTS:
        return Health(f"ended and was restarted {look.restarts} times", failed=True)
    if look.state in ("exited", "dead"):
        return Health(f"ended with status {look.status}", failed=look.status != 0)
    if look.state != "running":
        return Health(look.state, settled=False)
    if look.answers is False:
        return Health("starting", settled=False)
    if look.health not in ("", "healthy"):
        return Health(look.health, settled=False)
    if look.answers or look.health:
        return Health("ready")
    return Health("running", settled=look.steady)


def given_up(found: Health) -> Health:
    """What it means that a module's time is over.

    >>> given_up(Health("starting", settled=False)).word, given_up(Health("ready")).word
    ('still starting', 'ready')
    """
    if found.settled or found.word == "running":
        return found
    return Health(f"still {found.word}", failed=True)
