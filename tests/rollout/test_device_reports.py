"""What a report of edgeAgent is taken for."""

from __future__ import annotations

from typing import Any

import pytest

from mlpack.rollout.hub import MAX_REASON, AgentReport, DeploymentQueries, DeviceOutcome

NEW, OLD = "r.example.com/fan@sha256:" + "2" * 64, "r.example.com/fan@sha256:" + "1" * 64


def twin(
    image: str = OLD, status: str = "running", code: int = 200, said: str = "", behind: int = 0
) -> dict[str, Any]:
    return {
        "deviceId": "van-1",
        "properties": {
            "desired": {"$version": 7},
            "reported": {
                "lastDesiredVersion": 7 - behind,
                "lastDesiredStatus": {"code": code, "description": said},
                "runtime": {"platform": {"os": "Linux", "architecture": "aarch64"}},
                "modules": {"fan": {"settings": {"image": image}, "runtimeStatus": status}},
            },
        },
    }


@pytest.mark.parametrize(
    ("report", "outcome"),
    [
        (twin(NEW), "running"),
        (twin(NEW, code=500, said="another module"), "running"),
        (twin(NEW, "backoff"), "failed"),
        (twin(NEW, "backoff", behind=1), "silent"),
        (twin(NEW, behind=1), "silent"),
        (twin(NEW, "unhealthy"), "failed"),
        (twin(NEW, "created"), "silent"),
        (twin(OLD), "silent"),
        (twin(OLD, code=500, said="The operation was canceled."), "pulling"),
        (twin(OLD, code=500, said="Error: A task was canceled"), "pulling"),
        (twin(OLD, code=500, said="manifest unknown"), "failed"),
        (twin(OLD, code=500, said="manifest unknown", behind=1), "silent"),
        (twin(OLD, code=412), "failed"),
        (twin(OLD, code=406), "silent"),
        ({"deviceId": "van-1"}, "silent"),
        ({"deviceId": "van-1", "properties": {"reported": {"modules": 3}}}, "silent"),
    ],
)
def test_outcomes(report: dict[str, Any], outcome: DeviceOutcome) -> None:
    assert AgentReport.of(report, "fan").outcome(NEW) == outcome


def test_reasons_are_short_lines() -> None:
    assert AgentReport.of(twin(code=500, said="no\nsuch\x1b image"), "fan").reason(NEW) == (
        "500 no such image"
    )
    long = AgentReport.of(twin(code=500, said="x" * 500), "fan").reason(NEW)
    assert len(long) == MAX_REASON
    assert AgentReport.of(twin(NEW, "backoff"), "fan").reason(NEW) == "backoff"


def test_the_platform_is_read() -> None:
    assert AgentReport.of(twin(), "fan").platform == "linux/arm64"
    assert AgentReport.of({}, "fan").platform == ""


def test_names_of_other_signs_stand_in_brackets() -> None:
    plain, other = (DeploymentQueries("mlpack-vans", name, "r/x") for name in ("fan", "fan-v2"))
    assert "modules.fan.settings.image = 'r/x'" in plain.running
    assert "modules.[[fan-v2]].settings.image = 'r/x'" in other.running
    assert "configurations.[[mlpack-vans]].status = 'Applied'" in other.trouble
