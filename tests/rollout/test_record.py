"""Rollouts in the ledger: what older versions stored is read, and broken members are not."""

from __future__ import annotations

import pytest

from mlpack.rollout.record import MeasuredRollout, PlannedRollout, StageMeasurement

PLANNED = {
    "deployment": "mlpack-vans-fan-2-00000000",
    "group": "vans",
    "devices": 40,
    "bytes": 4_000,
    "strategy": "layer",
    "strategies": [
        {"name": "whole", "bytes": 9_000, "cost": {"usage": "9.00"}},
        {"name": "layer", "bytes": 4_000, "cost": {"usage": "0.40"}},
    ],
    "tariff": {"currency": "USD"},
}
MEASURED = {
    "state": "rolling",
    "why": "",
    "stages": [
        {
            "share": "20%",
            "devices": 8,
            "running": 6,
            "failed": 1,
            "silent": 1,
            "since": "2026-11-20T08:00:00Z",
            "until": "2026-11-20T08:01:00Z",
        }
    ],
    "devices": 8,
    "running": 6,
    "failed": 1,
    "silent": 1,
    "bytes": 700,
    "cost": None,
    "until": "2026-11-20T08:01:00Z",
}


def test_a_plan_is_read_with_the_cost_of_its_strategy() -> None:
    found = PlannedRollout.from_json(PLANNED)
    assert (found.group, found.devices, found.bytes) == ("vans", 40, 4_000)
    assert (found.cost, found.currency) == ("0.40", "USD")


def test_a_measurement_is_written_as_it_was_read() -> None:
    found = MeasuredRollout.from_json(MEASURED)
    assert found.last.running == 6
    assert found.to_json() == MEASURED


def test_a_rollback_stored_the_state_alone() -> None:
    found = MeasuredRollout.from_json({"state": "undone", "why": "by hand"})
    assert (found.state, found.why, found.last) == ("undone", "by hand", StageMeasurement())


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"devices": "many", "strategies": 3, "tariff": [], "stages": {}},
        {"strategies": [1, {"name": []}, {"name": "layer", "cost": []}], "stages": [None, 7]},
    ],
)
def test_missing_and_broken_members_keep_their_defaults(document: dict[str, object]) -> None:
    assert PlannedRollout.from_json(document) == PlannedRollout()
    found = MeasuredRollout.from_json(document)
    assert (found.state, found.last, found.bytes) == ("", StageMeasurement(), 0)
