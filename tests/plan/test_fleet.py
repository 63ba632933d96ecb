"""Cohorts, and what a release takes on all of them together."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest

from mlpack.oci.descriptor import Digest
from mlpack.plan.cost import Metered, Pooled, Tariff
from mlpack.plan.engines import engine
from mlpack.plan.fleet import Cohort, CohortPlan, Device, FleetPlan, cohorts, count_held, fleet_cost
from mlpack.plan.transfer import alternative, whole_image
from mlpack.rollout.decide import bucket
from tests.plan.fleet import move, release

STAGES = (Decimal("0.1"), Decimal(1))
PER_MB = Tariff(
    name="own", title="Own", currency="USD", source="test", date=date(2026, 1, 1), per="month",
    terms=Metered(price=Decimal("0.03"), unit_bytes=1_000_000),
)  # fmt: skip


def plan(*parts: tuple[str, int], link: int = 0, tariff: Tariff = PER_MB) -> FleetPlan:
    moby, made = engine("moby"), []
    for holds, count in parts:
        pull = move(None if holds in ("none", "unknown") else release("1"))
        ways = (
            (whole_image(moby, pull), alternative("layer", moby, pull)) if holds != "fan:2" else ()
        )
        split = Cohort(
            holds=holds, platform="", devices=count, stages=(count // 10, count * 9 // 10)
        )
        made.append(CohortPlan(cohort=split, alternatives=ways, current=holds == "fan:2"))
    return FleetPlan(
        group="vans",
        condition="tags.a = 1",
        release="fan:2",
        digest=Digest.of(b""),
        engine="moby",
        stages=STAGES,
        cohorts=tuple(made),
        tariff=tariff,
        link_bytes_per_second=link,
    )


def test_cohorts_are_devices_in_the_same_state() -> None:
    devices = [Device(id=f"van-{n}", holds="fan:1" if n % 3 else "none") for n in range(300)]
    found = cohorts([(each, bucket(each.id)) for each in devices], STAGES)
    assert [(each.holds, each.devices) for each in found] == [("fan:1", 200), ("none", 100)]
    first = sum(bucket(each.id) < 1000 for each in devices)
    assert sum(each.stages[0] for each in found) == first
    assert all(sum(each.stages) == each.devices for each in found)
    assert count_held(devices) == {"fan:1": 200, "none": 100}


def test_an_entry_may_stand_for_many_devices() -> None:
    (found,) = cohorts([(Device(id="*", holds="fan:1", count=1005), 0)], STAGES)
    assert (found.devices, found.stages) == (1005, (100, 905))


def test_bytes_and_money_add_up_over_cohorts() -> None:
    found = plan(("fan:1", 900), ("none", 100), ("fan:2", 50))
    ours, empty = (each.bytes("layer") or 0 for each in found.cohorts[:2])
    assert ours < 30_000 < 50_000_000 < empty
    assert found.total("layer") == 900 * ours + 100 * empty
    assert found.stage_bytes(0) == 90 * ours + 10 * empty
    assert found.devices == 1050
    bill = found.bill("layer")
    assert bill is not None
    assert bill.usage == Decimal(900 * ours + 100 * empty) * Decimal("0.03") / 1_000_000
    assert found.total("usual") is None
    assert found.names == ("whole", "layer")
    assert found.cohorts[2].bytes("layer") == 0


def test_a_step_is_billed_to_each_device() -> None:
    terms = Metered(price=Decimal(1), unit_bytes=1000, step_bytes=1000)
    bill = fleet_cost(replace(PER_MB, terms=terms), [(1, 10), (1001, 5)])
    assert bill.usage == 10 + 10
    assert bill.devices == 15


def test_a_pool_is_shared_by_all_cohorts() -> None:
    pooled = replace(PER_MB, terms=Pooled(price=Decimal(5), devices=10, pool_bytes=10_000))
    bill = fleet_cost(pooled, [(500, 10), (1500, 10)])
    assert (bill.beyond_bytes, bill.fixed) == (0, Decimal(10))


@pytest.mark.parametrize(("link", "said"), [(8_000, True), (10_000_000, False), (0, False)])
def test_a_pull_edgeagent_would_give_up_is_warned_of(link: int, said: bool) -> None:
    found = plan(("none", 10), link=link)
    assert any("ManagementApiTimeoutSecs" in each for each in found.warnings) is said
    assert (found.slowest_seconds > 0) is bool(link)


def test_unknown_images_are_counted_as_empty_devices() -> None:
    found = plan(("unknown", 7), ("fan:1", 3))
    (warning,) = found.warnings
    assert warning.startswith("7 ")
    shown = found.to_json()
    assert shown["devices"] == 10
    assert shown["bytes"] == found.total("layer")


def test_a_group_without_devices_costs_nothing_and_is_no_error() -> None:
    found = plan()
    assert (found.devices, found.total("layer"), found.bill("layer")) == (0, 0, None)
    assert found.to_json()["bytes"] == 0
