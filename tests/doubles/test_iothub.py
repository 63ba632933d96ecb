"""The double of IoT Hub by itself: who gets what, what devices say, and what a query means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.doubles.iothub import IotHub
from tests.doubles.iothub_devices import CANCELED, Behave, Pull
from tests.doubles.iothub_query import BadQuery, parse_condition, parse_query
from tests.doubles.iothub_rest import shown

AGENT = {"schemaVersion": "1.1", "runtime": {}, "systemModules": {}, "modules": {}}


def deployment(
    id: str,
    priority: int,
    images: Mapping[str, str],
    *,
    base: bool = False,
    where: str = "tags.a=1",
) -> dict[str, object]:
    modules = {name: {"settings": {"image": image}} for name, image in images.items()}
    parts: dict[str, object] = {f"properties.desired.modules.{n}": m for n, m in modules.items()}
    if base:
        parts = {"properties.desired": {**AGENT, "modules": modules}}
    return {
        "id": id,
        "priority": priority,
        "targetCondition": where,
        "content": {"modulesContent": {"$edgeAgent": parts}},
    }


def hub_with(
    *deployments: dict[str, object], behave: Behave = lambda device, images: Pull()
) -> IotHub:
    hub = IotHub(behave=behave)
    hub.add_device("van-1", {"a": 1})
    for each in deployments:
        hub.put(each)
    return hub


def images(hub: IotHub) -> Mapping[str, str]:
    return hub.devices["van-1"].image


def status(hub: IotHub) -> tuple[object, object]:
    reported: Any = hub.devices["van-1"].agent["properties"]
    said = reported["reported"].get("lastDesiredStatus", {})
    return said.get("code"), said.get("description")


BASE = deployment("base", 1, {"m": "base:1"}, base=True)


@pytest.mark.parametrize(
    ("deployments", "runs"),
    [
        ([BASE], {"m": "base:1"}),
        ([BASE, deployment("l", 2, {"fan": "fan:1"})], {"m": "base:1", "fan": "fan:1"}),
        ([BASE, deployment("l", 2, {"m": "m:2"})], {"m": "m:2"}),
        # The highest priority wins; of one priority the one created last.
        ([BASE, deployment("h", 9, {"m": "h"}), deployment("l", 8, {"m": "l"})], {"m": "h"}),
        ([BASE, deployment("a", 9, {"m": "a"}), deployment("b", 9, {"m": "b"})], {"m": "b"}),
        ([BASE, deployment("other", 1, {"m": "other"}, base=True)], {"m": "other"}),
        # A layer is nothing without a base, or not above it.
        ([deployment("l", 2, {"fan": "fan:1"})], {}),
        ([BASE, deployment("l", 1, {"m": "l"})], {"m": "base:1"}),
        # Another whole deployment of a higher priority hides all below.
        ([BASE, deployment("l", 2, {"fan": "f"}), deployment("top", 3, {}, base=True)], {}),
        ([BASE, deployment("l", 2, {"fan": "f"}, where="tags.a=2")], {"m": "base:1"}),
    ],
)
def test_what_applies(deployments: list[dict[str, object]], runs: Mapping[str, str]) -> None:
    hub = hub_with(*deployments)
    hub.advance(60)
    assert images(hub) == runs


def test_what_is_deleted_gives_way_and_what_has_no_heir_stays() -> None:
    hub = hub_with(BASE, deployment("1", 2, {"fan": "1"}), deployment("2", 3, {"fan": "2"}))
    seen = []
    for gone in ("", "2", "1", "base"):
        hub.configurations.pop(gone, None)
        hub.changed()
        hub.advance(60)
        seen.append(dict(images(hub)))
    plain = {"m": "base:1"}
    assert seen == [{**plain, "fan": "2"}, {**plain, "fan": "1"}, plain, plain]


def test_the_hub_says_which_deployments_a_device_has() -> None:
    hub = hub_with(
        BASE, deployment("lower", 0, {}, base=True), deployment("layer", 2, {"fan": "1"})
    )
    hub.advance(1)
    assert hub.devices["van-1"].agent["configurations"] == {
        "base": {"status": "Applied"},
        "layer": {"status": "Applied"},
        "lower": {"status": "Targeted"},
    }


def test_a_pull_that_fails_is_reported_and_tried_again_ever_later() -> None:
    tries: list[Mapping[str, str]] = []

    def behave(device: str, images: Mapping[str, str]) -> Pull:
        tries.append(images)
        return Pull(seconds=1, error="Failed to pull image fan:1" if "fan" in images else "")

    hub = hub_with(BASE, deployment("1", 2, {"fan": "1"}), behave=behave)
    hub.advance(5)
    assert status(hub) == (500, "Failed to pull image fan:1")
    assert images(hub) == {}
    hub.advance(300)
    assert len(tries) == 5  # after 10, 20, 40, 80 and 160 seconds
    hub.configurations.pop("1")
    hub.changed()
    hub.advance(10)
    assert (status(hub), images(hub)) == ((200, None), {"m": "base:1"})
    hub.advance(10_000)
    assert len(tries) == 6


def test_a_long_pull_is_reported_as_canceled_while_it_goes_on() -> None:
    hub = hub_with(BASE, behave=lambda device, images: Pull(seconds=1000))
    hub.advance(299)
    assert status(hub) == (None, None)
    hub.advance(1)
    assert status(hub) == (500, CANCELED)
    hub.advance(700)
    assert status(hub) == (200, None)


def test_a_patient_agent_waits_as_long_as_it_is_told() -> None:
    patient = {"edgeAgent": {"env": {"ManagementApiTimeoutSecs": {"value": "2000"}}}}
    base = deployment("base", 1, {"m": "1"}, base=True)
    base["content"] = {
        "modulesContent": {
            "$edgeAgent": {
                "properties.desired": {
                    **AGENT,
                    "systemModules": patient,
                    "modules": {"m": {"settings": {"image": "1"}}},
                }
            }
        }
    }
    hub = hub_with(base, behave=lambda device, images: Pull(seconds=1000))
    hub.advance(900)
    assert status(hub) == (None, None)
    hub.advance(100)
    assert status(hub) == (200, None)


def test_a_silent_device_says_nothing_until_it_is_back() -> None:
    silent = True
    hub = hub_with(BASE, behave=lambda device, images: Pull(silent=silent))
    hub.advance(10_000)
    assert status(hub) == (None, None)
    silent = False
    hub.wake("van-1")
    hub.advance(20)
    assert status(hub) == (200, None)


def test_a_module_that_crashes_is_reported_beside_those_that_run() -> None:
    def behave(device: str, images: Mapping[str, str]) -> Pull:
        return Pull(status="backoff" if "fan" in images else "running")

    hub = hub_with(BASE, behave=behave)
    hub.advance(20)
    hub.put(deployment("1", 2, {"fan": "1"}))
    hub.advance(20)
    down = "SELECT deviceId FROM devices.modules WHERE properties.reported.modules."
    assert status(hub) == (200, None)
    assert hub.run_query(f"{down}fan.runtimeStatus != 'running'") == [{"deviceId": "van-1"}]
    assert hub.run_query(f"{down}m.runtimeStatus != 'running'") == []


def test_a_device_may_really_pull() -> None:
    """What the hook is called with, and that it is called once for each change."""
    pulled: list[tuple[str, Mapping[str, str]]] = []

    def behave(device: str, images: Mapping[str, str]) -> Pull:
        pulled.append((device, images))
        return Pull(seconds=3)

    hub = hub_with(BASE, deployment("1", 2, {"fan": "fan@sha256:1"}), behave=behave)
    hub.advance(60)
    hub.put(deployment("2", 3, {"fan": "fan@sha256:2"}))
    hub.advance(60)
    assert pulled == [
        ("van-1", {"m": "base:1", "fan": "fan@sha256:1"}),
        ("van-1", {"fan": "fan@sha256:2"}),
    ]


def test_counts_are_as_old_as_the_hub_makes_them() -> None:
    hub = hub_with(BASE)
    hub.add_device("van-2", {"a": 1}, edge=False)
    hub.advance(299)
    assert hub.configurations["base"].system == {}
    hub.advance(1)
    counted = {
        "targetedCount": 1,
        "appliedCount": 1,
        "reportedSuccessfulCount": 1,
        "reportedFailedCount": 0,
    }
    assert hub.configurations["base"].system == counted
    hub.add_device("van-3", {"a": 1})
    hub.advance(299)
    assert hub.configurations["base"].system == counted
    hub.advance(1)
    assert hub.configurations["base"].system["targetedCount"] == 2
    assert shown(hub.configurations["base"])["systemMetrics"]["results"] == {  # type: ignore[index]
        **counted,
        "targetedCount": 2,
        "appliedCount": 2,
        "reportedSuccessfulCount": 2,
    }


TWIN = {
    "deviceId": "van-1",
    "tags": {"a": {"b": 1}, "s": "it's", "t": True, "f": 1.5, "a-b": "x"},
    "properties": {"reported": {"v": 3}, "desired": {"$version": 3}},
    "configurations": {"x-1": {"status": "Applied"}},
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("tags.a.b = 1", True),
        ("tags.a.b=1 AND tags.s='it''s'", True),
        ("tags.a.b <> 1", False),
        ("tags.a.b != '1'", True),
        ("tags.f > 1 and tags.f <= 1.5", True),
        ("tags.t = true", True),
        ("tags.t = 1", False),
        ("tags.a.b = true", False),
        ("tags.s > 'a'", True),
        ("tags.s > 1", None),
        ("tags.[[a-b]] = 'x'", True),
        ("tags.none = 1", None),
        ("tags.none != 1", None),
        ("NOT tags.none = 1", None),
        ("NOT tags.a.b = 2", True),
        ("tags.none = 1 OR tags.a.b = 1", True),
        ("tags.none = 1 AND tags.a.b = 2", False),
        ("tags.none = 1 OR tags.a.b = 2", None),
        ("is_defined(tags.a)", True),
        ("NOT IS_DEFINED(tags.none)", True),
        ("deviceId = 'van-1'", True),
        ("tags.a.b = 2 AND tags.a.b = 3 OR tags.a.b = 1", True),
        ("tags.a.b = 2 AND (tags.a.b = 3 OR tags.a.b = 1)", False),
        ("properties.reported.v = properties.reported.v", True),
    ],
)
def test_what_a_condition_means(text: str, holds: bool | None) -> None:
    assert parse_condition(text)(TWIN) is holds
    found = parse_query(f"SELECT * FROM devices WHERE {text}").run([TWIN])
    assert found == ([TWIN] if holds else [])


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("tags.a.b IN [1, 2]", True),
        ("tags.a.b IN ['1']", False),
        ("tags.t IN [1]", False),
        ("tags.a.b NIN [1, 2]", False),
        ("tags.none IN [1]", False),
    ],
)
def test_a_query_has_lists_and_a_target_condition_has_none(text: str, holds: bool) -> None:
    found = parse_query(f"SELECT * FROM devices WHERE {text}").run([TWIN])
    assert found == ([TWIN] if holds else [])
    with pytest.raises(BadQuery):
        parse_condition(text)
    with pytest.raises(BadQuery):
        parse_condition(f"deviceId = 'x' OR NOT ({text})")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SELECT COUNT() AS n FROM devices", [{"n": 1}]),
        ("select count() from devices where tags.a.b = 2", [{"$1": 0}]),
        ('SELECT COUNT() AS n FROM devices WHERE tags.s = "it\'s"', [{"n": 1}]),
        ("SELECT COUNT() AS n FROM devices WHERE tags.s = 'it\\'s'", [{"n": 1}]),
        ("SELECT deviceId, tags.a.b AS b, tags.none FROM devices", [{"deviceId": "van-1", "b": 1}]),
        (
            "SELECT deviceId FROM devices WHERE properties.desired.$version = "
            "properties.reported.v AND configurations.[[x-1]].status = 'Applied'",
            [{"deviceId": "van-1"}],
        ),
    ],
)
def test_what_a_query_finds(text: str, found: object) -> None:
    assert parse_query(text).run([TWIN]) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tags.a",
        "tags.a = ",
        "tags.a == 1",
        'tags.a = "x"',
        "tags.a = 'x",
        "tags.a = x",
        "a = 1",
        "tags.a = 1 AND",
        "(tags.a = 1",
        "tags.a = 1)",
        "tags.a-b = 1",
        "tags.a IN []",
        "tags.a IN [1]",
        "tags.[[a/b]] = 1",
        "tags.a = null",
        "STARTSWITH(deviceId, 'x')",
        "FROM devices.modules WHERE tags.a = 1",
        f"tags.a = '{'x' * 8192}'",
        "configurations.[[x]].status = 'Applied'",
        "properties.desired.a = 1",
    ],
)
def test_what_is_no_target_condition(text: str) -> None:
    with pytest.raises(BadQuery):
        parse_condition(text)
