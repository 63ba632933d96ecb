"""Containers wanted and containers found: what changes, in which order, and how they do."""

from __future__ import annotations

import pytest

from mlpack.plan.containers import Held, LocalModule, Wanted, container
from mlpack.plan.up import (
    Found,
    Health,
    Look,
    NameTaken,
    Step,
    decide,
    ended_in,
    given_up,
    health,
)

DEPLOYMENT, ANOTHER = "/vans/deployment.json", "/mines/deployment.json"
IMAGE = f"sha256:{'1' * 64}"


def wanted(name: str = "fan", *, order: int = 1, running: bool = True) -> Wanted:
    module = LocalModule(name=name, image="fan:1", options={}, order=order, running=running)
    return container(DEPLOYMENT, module, Held("fan:1", IMAGE), "net", [name])


def found(name: str = "fan", *, state: str = "running", **more: object) -> Found:
    """A container that is as :func:`wanted` wants it, but for what is given."""
    same = {"id": f"id of {name}", "name": name, "module": name, "order": 1, "image": IMAGE}
    spec = wanted(name).spec
    said = {**same, "deployment": DEPLOYMENT, "state": state, "spec": spec, **more}
    return Found(**said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("there", "running", "step", "why"),
    [
        (None, True, Step.CREATE, ""),
        (None, False, Step.CREATE, ""),
        (found(), True, Step.KEEP, ""),
        (found(state="restarting"), True, Step.KEEP, ""),
        (found(state="exited"), True, Step.START, "it was exited"),
        (found(state="created"), True, Step.START, "it was created"),
        (found(), False, Step.STOP, "the manifest wants it stopped"),
        (found(state="created"), False, Step.KEEP, ""),
        (found(spec="sha256:other"), True, Step.REPLACE, "the manifest says otherwise"),
        (found(image="sha256:other"), True, Step.REPLACE, "its image is another"),
        (found(state="exited", spec=""), True, Step.REPLACE, "the manifest says otherwise"),
    ],
)
def test_one_module(there: Found | None, running: bool, step: Step, why: str) -> None:
    [change] = decide(DEPLOYMENT, [wanted(running=running)], [there] if there else [])
    assert (change.step, change.why, change.found) == (step, why, there)


def test_what_goes_comes_first_and_modules_start_in_their_order() -> None:
    there = [found("old", order=1), found("older", order=2), found("b")]
    modules = [wanted("z", order=0), wanted("b"), wanted("a"), wanted("y", order=9)]
    changes = decide(DEPLOYMENT, modules, there)
    assert [(each.step.value, each.module) for each in changes] == [
        ("remove", "older"),
        ("remove", "old"),
        ("create", "z"),
        ("create", "a"),
        ("keep", "b"),
        ("create", "y"),
    ]


def test_what_a_run_that_was_killed_left_is_removed() -> None:
    left = found("fan.next", id="left", module="fan", state="created")
    changes = decide(DEPLOYMENT, [wanted()], [left, found()])
    assert [(each.step, each.found and each.found.id) for each in changes] == [
        (Step.REMOVE, "left"),
        (Step.KEEP, "id of fan"),
    ]


def test_containers_of_others_are_left_alone() -> None:
    there = [found("broker", deployment=""), found("camera", deployment=ANOTHER)]
    assert [each.step for each in decide(DEPLOYMENT, [wanted()], there)] == [Step.CREATE]


@pytest.mark.parametrize(
    ("deployment", "message", "hint"),
    [
        ("", "of no deployment", "docker rename fan NAME"),
        (ANOTHER, f"is of {ANOTHER}", f"mlpack down {ANOTHER}"),
    ],
)
def test_a_name_that_another_container_has_is_refused(
    deployment: str, message: str, hint: str
) -> None:
    with pytest.raises(NameTaken, match=message) as refused:
        decide(DEPLOYMENT, [wanted()], [found(deployment=deployment, id="x")])
    assert hint in refused.value.hint


def test_who_started_last_ends_first() -> None:
    there = [found("a", order=1), found("b", order=1), found("c", order=0)]
    assert [each.name for each in ended_in(there)] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("look", "expected"),
    [
        (Look(state="running"), Health("running", settled=False)),
        (Look(state="running", steady=True), Health("running")),
        (Look(state="running", answers=True), Health("ready")),
        (Look(state="running", answers=False, steady=True), Health("starting", settled=False)),
        (Look(state="running", health="healthy"), Health("ready")),
        (Look(state="running", health="starting"), Health("starting", settled=False)),
        # It may be well again before the time is over.
        (Look(state="running", health="unhealthy"), Health("unhealthy", settled=False)),
        (Look(state="running", health="healthy", answers=False), Health("starting", settled=False)),
        (Look(state="restarting", restarts=1), Health("restarting", settled=False)),
        (
            Look(state="restarting", restarts=3),
            Health("ended and was restarted 3 times", failed=True),
        ),
        (Look(state="exited"), Health("ended with status 0")),
        (Look(state="exited", status=3), Health("ended with status 3", failed=True)),
        (Look(state="dead", status=137), Health("ended with status 137", failed=True)),
    ],
)
def test_what_a_look_means(look: Look, expected: Health) -> None:
    assert health(look) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Health("ready"), Health("ready")),
        (Health("ended with status 1", failed=True), Health("ended with status 1", failed=True)),
        (Health("unhealthy", settled=False), Health("still unhealthy", failed=True)),
        # Little time was given, and nothing speaks against it.
        (Health("running", settled=False), Health("running", settled=False)),
    ],
)
def test_what_the_end_of_the_time_means(found: Health, expected: Health) -> None:
    assert given_up(found) == expected
