"""The rollout's decisions, against a small world that does what it is told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpack.api.deploy import deployment_id
from mlpack.oci.descriptor import Digest
from mlpack.rollout.decide import (
    Action,
    Complete,
    Create,
    Delete,
    Done,
    HubDeployment,
    Label,
    Observation,
    Policy,
    Prune,
    Refuse,
    Remember,
    Rollout,
    Stop,
    Tag,
    Wait,
    Widen,
    bucket,
    decide,
    heir,
    of_group,
)
from mlpack.settings.condition import Condition
from mlpack.settings.reader import BUCKETS
from tests.support import repeats

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
STAGES = (Decimal("0.01"), Decimal("0.1"), Decimal("0.5"), Decimal(1))
VANS = Condition.parse("tags.deviceGroup = 'vans'")


def rollout(version: int = 2, **more: object) -> Rollout:
    digest = Digest.of(f"fan:{version}".encode())
    made = Rollout(
        id=deployment_id("vans", f"fan:{version}", digest),
        group="vans",
        condition=VANS,
        release=f"fan:{version}",
        digest=digest,
        image=f"registry.example.com/fan@{digest}",
        policy=Policy(stages=STAGES, success=Decimal("0.95"), max_failures=Decimal("0.02")),
    )
    return replace(made, **more)  # type: ignore[arg-type]


@dataclass
class World:
    """A hub and its devices; ``bad`` and ``silent`` are those that fail or say nothing."""

    devices: tuple[str, ...]
    bad: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    tags: dict[str, int] = field(default_factory=dict)
    held: dict[str, HubDeployment] = field(default_factory=dict)
    now: datetime = NOON
    did: list[Action] = field(default_factory=list)

    def see(self, asked: Rollout) -> Observation:
        mine = self.held.get(asked.id)
        meant = self.meant(mine.condition) if mine else frozenset()
        failed = meant & self.bad
        return Observation(
            deployments=tuple(self.held.values()),
            untagged=tuple(d for d in self.devices if d not in self.tags),
            targeted=len(meant),
            running=len(meant - self.bad - self.silent),
            failed=len(failed),
            reasons={"500 no such image": len(failed)} if failed else {},
        )

    def meant(self, condition: str) -> frozenset[str]:
        if condition == VANS.text:
            return frozenset(self.devices)
        below = int(condition.rpartition("<")[2])
        return frozenset(d for d, place in self.tags.items() if place < below)

    def change(self, id: str, **labels: str) -> None:
        self.held[id] = replace(self.held[id], labels={**self.held[id].labels, **labels})

    def do(self, asked: Rollout, action: Action) -> None:  # noqa: C901
        self.did.append(action)
        self.now += timedelta(minutes=1)
        match action:
            case Tag(buckets):
                self.tags.update(buckets)
            case Create():
                assert asked.id not in self.held
                assert len(self.held) < asked.limit
                self.held[asked.id] = HubDeployment(
                    id=asked.id,
                    labels=asked.labels(action.stage, self.now, {}),
                    condition=action.condition,
                    priority=action.priority,
                    created=self.now.isoformat(),
                )
            case Widen():
                mine = self.held[asked.id]
                self.held[asked.id] = replace(
                    mine,
                    condition=action.condition,
                    labels=asked.labels(action.stage, self.now, mine.labels),
                )
            case Complete(id):
                self.change(id, **{Label.STATE: "complete"})
            case Stop(id, why):
                self.change(id, **{Label.STATE: "stopping", Label.REASON: why})
            case Remember(id, note):
                self.change(id, **{Label.UNDONE: note})
            case Delete(id):
                del self.held[id]
            case Prune(ids):
                for each in ids:
                    del self.held[each]

    def run(self, asked: Rollout, steps: int = 60) -> Action:
        """Run until nothing more happens; return what said so."""
        for _ in range(steps):
            action = decide(asked, self.see(asked), self.now)
            if isinstance(action, Wait | Done | Refuse):
                return action
            self.do(asked, action)
        raise AssertionError("it never ends")


def fleet(count: int = 400) -> tuple[str, ...]:
    return tuple(f"van-{number}" for number in range(count))


def test_buckets_are_even_and_do_not_change() -> None:
    assert (bucket("van-1"), bucket("van-2")) == (2951, 3169)
    found = [bucket(device) for device in fleet(10_000)]
    for share in STAGES:
        below = sum(each < share * BUCKETS for each in found)
        assert below == pytest.approx(10_000 * float(share), rel=0.2)


def test_a_good_release_goes_through_every_stage() -> None:
    world = World(fleet())
    assert world.run(rollout()) == Done()
    assert [type(each).__name__ for each in world.did] == [
        "Tag", "Create", "Widen", "Widen", "Widen", "Complete",
    ]  # fmt: skip
    assert world.held[rollout().id].condition == VANS.text
    assert world.held[rollout().id].state == "complete"
    # Running it twice changes nothing.
    before = dict(world.held)
    assert world.run(rollout()) == Done()
    assert (world.held, len(world.did)) == (before, 6)


def test_a_bad_release_is_stopped_and_the_one_before_takes_over() -> None:
    world = World(fleet())
    world.run(rollout(1))
    world.bad = frozenset(fleet()[::10])
    ended = world.run(rollout(2))
    assert isinstance(ended, Refuse)
    assert ended.policy
    assert "fan:2 was undone on vans before" in ended.why
    assert "failed, more than 2%, most with: 500 no such image" in ended.why
    assert list(world.held) == [rollout(1).id]
    assert [type(each).__name__ for each in world.did[-3:]] == ["Stop", "Remember", "Delete"]
    # Another release, and this one when asked for again, are tried.
    world.bad = frozenset()
    assert world.run(rollout(2, again=True)) == Done()
    assert world.held[rollout(2).id].priority == 11
    assert world.run(rollout(3)) == Done()


def test_silence_is_no_success() -> None:
    world = World(fleet(), silent=frozenset(fleet()[::4]))
    ended = world.run(rollout())
    assert isinstance(ended, Wait)
    assert "silent" in ended.why
    world.silent = frozenset()
    assert world.run(rollout()) == Done()


def test_a_stage_lasts_as_long_as_it_must() -> None:
    asked = rollout()
    asked = replace(asked, policy=replace(asked.policy, soak_seconds=3600))
    world = World(fleet())
    ended = world.run(asked)
    assert isinstance(ended, Wait)
    assert "lasts until" in ended.why
    world.now += timedelta(hours=1)
    assert isinstance(world.run(asked), Wait)
    assert world.held[asked.id].stage == 1


def test_a_release_under_way_is_not_overtaken() -> None:
    world = World(fleet(), silent=frozenset(fleet()))
    world.run(rollout(2))
    ended = world.run(rollout(3))
    assert isinstance(ended, Refuse)
    assert ended.why == "fan:2 is being rolled out to vans"


def test_an_older_release_is_not_laid_over_a_newer_one_by_accident() -> None:
    world = World(fleet())
    world.run(rollout(1))
    world.run(rollout(2))
    ended = world.run(rollout(1))
    assert isinstance(ended, Refuse)
    assert "--to fan:1" in ended.hint


def test_old_deployments_go_and_the_hub_never_overflows() -> None:
    world = World(fleet(50))
    world.held["theirs"] = HubDeployment(id="theirs", priority=99)
    for version in range(1, 8):
        assert world.run(rollout(version, limit=4)) == Done()
        kept = of_group(world.held.values(), "vans")
        assert [each.release for each in kept] == [
            f"fan:{v}" for v in range(version, max(0, version - 2), -1)
        ]
    assert "theirs" in world.held


def test_a_full_hub_is_said_so() -> None:
    world = World(fleet(50))
    world.held = {f"theirs-{n}": HubDeployment(id=f"theirs-{n}") for n in range(10)}
    ended = world.run(rollout(limit=10))
    assert isinstance(ended, Refuse)
    assert "maximum of 10 deployments" in ended.why


def test_a_changed_target_is_followed() -> None:
    world = World(fleet())
    world.run(rollout())
    world.held[rollout().id] = replace(world.held[rollout().id], condition="tags.old = 1 < 5")
    assert world.run(rollout()) == Done()
    assert world.held[rollout().id].condition == VANS.text


def test_devices_that_join_are_given_their_bucket() -> None:
    world = World(fleet(), silent=frozenset(fleet()))
    world.run(rollout())
    world.devices = (*world.devices, "late")
    world.run(rollout())
    assert world.tags["late"] == bucket("late")


def test_where_nothing_is_below_the_base_remembers() -> None:
    world = World(fleet(), bad=frozenset(fleet()))
    labels = {Label.GROUP: "vans", Label.STATE: "base"}
    world.held["mlpack-vans-base"] = HubDeployment(id="mlpack-vans-base", labels=labels)
    assert isinstance(world.run(rollout(1)), Refuse)
    assert world.held["mlpack-vans-base"].labels[Label.UNDONE].startswith(rollout(1).id)
    gone = HubDeployment(id="x", labels={Label.GROUP: "drones"})
    assert heir(gone, world.held.values()) is None


shares = st.sampled_from([Decimal(x) / 100 for x in (1, 2, 5, 20, 50, 90)])


@settings(max_examples=repeats(20, 60))
@given(
    devices=st.integers(0, 120),
    bad=st.integers(0, 100),
    silent=st.integers(0, 100),
    most=st.sampled_from([Decimal(0), Decimal("0.02"), Decimal("0.3")]),
    stages=st.lists(shares, unique=True, max_size=4),
    deaths=st.lists(st.integers(0, 20), max_size=5),
)
def test_whatever_devices_do_and_wherever_it_dies(
    devices: int,
    bad: int,
    silent: int,
    most: Decimal,
    stages: list[Decimal],
    deaths: list[int],
) -> None:
    names = fleet(devices)
    world = World(
        names,
        bad=frozenset(name for name in names if bucket(name + "bad") % 100 < bad),
        silent=frozenset(name for name in names if bucket(name + "quiet") % 100 < silent),
    )
    policy = Policy(stages=(*sorted(stages), Decimal(1)), success=Decimal("0.9"), max_failures=most)
    asked = rollout(policy=policy)
    world.run(rollout(1, policy=replace(policy, success=Decimal(0), max_failures=Decimal(1))))
    reached = 0
    for steps in [*deaths, 40]:
        # Each time another process begins, with nothing but the hub to go by.
        for _ in range(steps):
            seen = world.see(asked)
            action = decide(asked, seen, world.now)
            mine = world.held.get(asked.id)
            if mine:
                assert mine.stage >= reached
                reached = mine.stage
            if isinstance(action, Widen):
                assert seen.running >= policy.success * seen.targeted
                assert seen.failed <= most * seen.targeted
                assert action.stage == reached + 1
            if isinstance(action, Wait | Done | Refuse):
                break
            world.do(asked, action)
    ended = world.run(asked)
    failed = world.see(asked)
    if isinstance(ended, Done):
        assert failed.failed <= most * len(names)
        assert failed.running >= policy.success * len(names)
    elif isinstance(ended, Refuse):
        assert [each.release for each in of_group(world.held.values(), "vans")] == ["fan:1"]
    else:
        assert failed.running < policy.success * failed.targeted
    assert world.run(asked) == ended


def test_the_policy_of_a_rollout_is_in_its_labels() -> None:
    policy = replace(rollout().policy, soak_seconds=90, max_failures=Decimal("0.005"))
    assert Policy.of(policy.labels()) == policy


def test_ids_are_what_a_hub_takes() -> None:
    long = deployment_id("vans", "m" * 63 + ":" + "9" * 63, Digest.of(b""))
    assert len(long) <= 128
    assert long.endswith("-e3b0c442")
    assert deployment_id("vans", "fan.x:1_2", Digest.of(b"")) == "mlpack-vans-fan-x-1_2-e3b0c442"


def test_of_two_that_apply_the_later_one_wins() -> None:
    labels = {Label.GROUP: "vans", Label.STATE: "complete"}
    first = HubDeployment(id="a", labels=labels, priority=10, created="2026-01-01")
    second = HubDeployment(id="b", labels=labels, priority=10, created="2026-01-02")
    third = HubDeployment(id="c", labels=labels, priority=9, created="2026-01-03")
    assert [each.id for each in of_group([third, first, second], "vans")] == ["b", "a", "c"]
